"""No field of the contract is forgotten on the way from the ledger to a message."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import betterproto2
import pytest
from credit_models import GrantCategory, HoldState, TransactionType
from credit_models.codec import encode
from credit_models.ledger import (
    Account,
    Allocation,
    AppAccount,
    Caps,
    Category,
    Details,
    Grant,
    Hold,
    Kind,
    Purchase,
    Receipt,
    Transaction,
)
from credit_models.translation import messages
from credit_models.translation.commands import caps_from_message

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
ENTRY = Transaction(
    id="t",
    user_id=1,
    app_id=2,
    kind=Kind.USE,
    credits=3,
    balance_after=4,
    sequence=5,
    created_at=NOW,
    created_by=6,
    key="k",
    purchase_id="p",
    report_id="r",
    report_name="R",
    previous_hash=b"P",
    hash=b"H",
)
LATER = NOW + timedelta(hours=1)
# No entry of the ledger has all details; the conversion does not know that.
GRANTED = replace(
    ENTRY,
    kind=Kind.EXTEND,
    details=Details(
        related_id="g",
        allocations=(Allocation(credits=1), Allocation(credits=2, grant_id="g")),
        delta=-3,
        effective_at=NOW,
        ends_at=LATER,
        released=8,
        held_after=9,
        metadata=(("a", "b"),),
        note="n",
    ),
)
PURCHASE = Purchase(
    id="p",
    user_id=1,
    app_id=2,
    report_id="r",
    report_name="R",
    credits=3,
    created_at=NOW,
    created_by=6,
    transaction_id="t",
    sequence=5,
    refunded_credits=2,
)
HOLD = Hold(
    id="h",
    sequence=4,
    credits=5,
    placed_at=NOW,
    ends_at=LATER,
    captured=6,
    purpose="P",
    created_by=7,
)
GRANT = Grant(
    id="g",
    sequence=3,
    credits=9,
    left=8,
    priority=7,
    category=Category.PAID,
    starts_at=NOW,
    ends_at=LATER,
    created_by=1,
)
ACCOUNT = Account(
    user_id=1,
    id="a",
    balances={9: 90, 2: 20},
    apps={9: AppAccount.of(grants=(replace(GRANT, starts_at=None),), holds=(HOLD,))},
    revision=5,
    created_at=NOW,
    updated_at=NOW,
    created_by=6,
    updated_by=7,
)


@pytest.mark.parametrize(
    ("message", "unfilled"),
    [
        (messages.account_to_message(ACCOUNT), set()),
        # A user who owes credits has no balance. Only the answer to `GetAppBalance` has a revision.
        (messages.balance_to_message(ACCOUNT, 9), {"owed", "revision"}),
        (
            messages.balance_to_message(replace(ACCOUNT, balances={9: -1}), 9),
            {"balance", "revision"},
        ),
        (
            messages.receipt_to_message(Receipt(transaction=GRANTED, replayed=True)),
            {"owed", "validated"},
        ),
        (
            messages.receipt_to_message(
                Receipt(
                    transaction=replace(GRANTED, balance_after=-1), replayed=True, validated=True
                )
            ),
            {"balance", "hash", "purchase_id"},
        ),
        (messages.grant_to_message(GRANT), set()),
        (messages.hold_to_message(HOLD), {"released", "settled_at"}),
        (
            messages.settled_hold_to_message(
                replace(ENTRY, details=Details(request=(("purpose", "P"),), ends_at=LATER)),
                replace(ENTRY, details=Details(related_total=1)),
            ),
            {"held"},
        ),
        (messages.step_to_message(GRANTED), set()),
        (messages.grants_to_message(ACCOUNT, 9), set()),
        (messages.forecast_to_message(ACCOUNT, 9, until=None), set()),
        (messages.transaction_to_message(GRANTED), {"owed_after"}),
        (messages.transaction_to_message(replace(GRANTED, balance_after=-1)), {"balance_after"}),
        (messages.purchase_to_message(PURCHASE), set()),
    ],
    ids=lambda given: type(given).__name__,
)
def test_every_field_of_an_answer_is_filled(
    message: betterproto2.Message, unfilled: set[str]
) -> None:
    empty = vars(type(message)())
    filled = {name for name, value in vars(message).items() if value != empty[name]}
    assert empty.keys() - filled - {"_unknown_fields"} == unfilled


@pytest.mark.parametrize("kind", [Kind.ADD, Kind.USE])
def test_the_receipt_of_a_plain_write_is_that_of_0_2_0_with_the_hash(kind: Kind) -> None:
    entry = replace(ENTRY, kind=kind)
    data = encode(messages.receipt_to_message(Receipt(transaction=entry, replayed=False)))
    assert data == b"\x0a\x01t\x12\x01p\x18\x04\x20\x05\x8a\x01\x01H"


def test_balances_are_in_the_order_of_their_apps() -> None:
    message = messages.account_to_message(ACCOUNT)
    assert [(balance.app_id, balance.balance) for balance in message.balances] == [(2, 20), (9, 90)]


def test_every_kind_of_transaction_has_a_type_and_every_category_of_a_grant() -> None:
    assert {kind.name for kind in Kind} == TransactionType.__members__.keys() - {"UNSPECIFIED"}
    assert {category.name for category in Category} == GrantCategory.__members__.keys()
    for category in Category:
        message = messages.grant_to_message(replace(GRANT, category=category))
        assert message.category.name == category.name
    for kind in Kind:
        listed = messages.transaction_to_message(replace(ENTRY, kind=kind))
        assert listed.type.name == kind.name


@pytest.mark.parametrize("kind", Kind)
def test_only_an_entry_that_sets_the_end_of_a_grant_or_hold_shows_it(kind: Kind) -> None:
    setting = {"GRANT", "SCHEDULE", "TRANSFER_IN", "HOLD", "EXTEND"}
    entry = replace(GRANTED, kind=kind)
    receipt = messages.receipt_to_message(Receipt(transaction=entry, replayed=False))
    assert (receipt.expires_at is not None) is (kind.name in setting)
    listed = messages.transaction_to_message(entry)
    assert (listed.expires_at is not None) is (kind.name in setting)


@pytest.mark.parametrize("caps", [Caps(), Caps(hour=1), Caps(day=2, month=3)])
def test_caps_are_the_same_there_and_back(caps: Caps) -> None:
    message = messages.caps_to_message(caps)
    assert (message is None) is (caps == Caps())
    assert caps_from_message(message) == caps


def test_a_hold_is_settled_by_the_latest_entry_about_it() -> None:
    placed = replace(
        ENTRY, kind=Kind.HOLD, credits=20, details=Details(ends_at=LATER, held_after=20)
    )
    for kind, effective_at, state in (
        (Kind.USE, None, HoldState.CAPTURED),
        (Kind.RELEASE, None, HoldState.RELEASED),
        (Kind.RELEASE, LATER, HoldState.EXPIRED),
    ):
        details = Details(related_total=7, effective_at=effective_at)
        latest = replace(ENTRY, kind=kind, created_at=NOW, details=details)
        hold = messages.settled_hold_to_message(placed, latest)
        assert (hold.state, hold.held, hold.captured, hold.released) == (state, 0, 7, 13)
        assert hold.settled_at == (effective_at or NOW)
        assert hold.expires_at == LATER
