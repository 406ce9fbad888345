"""No field of the contract is forgotten on the way to the wire."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import betterproto2
import pytest
from credit_models import Allocation as AllocationMessage
from credit_models import CreditTransaction, TransactionType
from credit_models import Purchase as PurchaseMessage
from credit_models.codec import decode
from credit_models.ledger import (
    Caps,
    Kind,
    Policy,
)
from credit_server.api import convert
from credit_server.store.history import PurchaseRow, RowDetails, TransactionRow
from credit_server.store.port import AppPolicy, Unreadable

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
MILLISECONDS = round(NOW.timestamp() * 1000)
LATER = NOW + timedelta(hours=1)
ROW = TransactionRow(
    id="t",
    user_id=1,
    app_id=2,
    credits=3,
    created_at=MILLISECONDS,
    created_by=6,
    kind=Kind.USE,
    balance_after=4,
    sequence=5,
    purchase_id="p",
    key="k",
    report_id="r",
    report_name="R",
    previous_hash=b"P",
    hash=b"H",
)
FULL_ROW = ROW._replace(
    kind=Kind.EXTEND,
    details=RowDetails(
        effect=-3,
        related_id="g",
        effective_at=MILLISECONDS,
        ends_at=MILLISECONDS + 3_600_000,
        allocations=(("", 1), ("g", 2)),
        metadata=(("a", "b"),),
        note="n",
    ),
)
PURCHASE_ROW = PurchaseRow(
    id="p",
    user_id=1,
    app_id=2,
    report_id="r",
    report_name="R",
    credits=3,
    created_at=MILLISECONDS,
    created_by=6,
    transaction_id="t",
    sequence=5,
    refunded_credits=2,
)
POLICY = AppPolicy(
    app_id=1,
    policy=Policy(caps=Caps(hour=2, day=3, month=4), allow_negative=True),
    revision=5,
    updated_at=NOW,
    updated_by=6,
)


@pytest.mark.parametrize(
    ("message", "unfilled"),
    [
        (decode(PurchaseMessage, *convert.purchases_to_wire([PURCHASE_ROW])), set()),
        (decode(CreditTransaction, *convert.transactions_to_wire([FULL_ROW])), {"owed_after"}),
        (
            decode(
                CreditTransaction,
                *convert.transactions_to_wire([FULL_ROW._replace(balance_after=-1)]),
            ),
            {"balance_after"},
        ),
        (convert.policy_to_message(POLICY), set()),
    ],
    ids=lambda given: type(given).__name__,
)
def test_every_field_of_an_answer_is_filled(
    message: betterproto2.Message, unfilled: set[str]
) -> None:
    empty = vars(type(message)())
    filled = {name for name, value in vars(message).items() if value != empty[name]}
    assert empty.keys() - filled - {"_unknown_fields"} == unfilled


def test_every_field_of_a_transaction_is_its_own() -> None:
    first = ROW._replace(
        kind=Kind.ADD,
        purchase_id="",
        key="",
        balance_after=0,
        created_at=1,
        report_id="",
        report_name="",
        previous_hash=b"",
        hash=b"",
    )
    owing = first._replace(balance_after=-7)
    rows = [ROW, FULL_ROW, first, owing, first, ROW]
    messages = [decode(CreditTransaction, data) for data in convert.transactions_to_wire(rows)]
    used = CreditTransaction(
        id="t",
        user_id=1,
        app_id=2,
        credits=3,
        created_at=NOW,
        created_by=6,
        type=TransactionType.USE,
        balance_after=4,
        sequence=5,
        purchase_id="p",
        idempotency_key="k",
        effect=-3,
        report_id="r",
        report_name="R",
        previous_hash=b"P",
        hash=b"H",
    )
    full = replace(
        used,
        type=TransactionType.EXTEND,
        effective_at=NOW,
        expires_at=LATER,
        related_id="g",
        allocations=[AllocationMessage(credits=1), AllocationMessage(grant_id="g", credits=2)],
        metadata={"a": "b"},
        note="n",
    )
    added = replace(
        used,
        type=TransactionType.ADD,
        purchase_id="",
        idempotency_key="",
        balance_after=0,
        effect=3,
        report_id="",
        report_name="",
        previous_hash=b"",
        hash=b"",
        created_at=datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC),
    )
    in_debt = replace(added, owed_after=7)
    assert messages == [used, full, added, in_debt, added, used], (
        "a row leaves nothing behind for the next one"
    )


def test_every_field_of_a_purchase_is_its_own() -> None:
    other = PURCHASE_ROW._replace(report_name="S", sequence=6)
    messages = [
        decode(PurchaseMessage, data) for data in convert.purchases_to_wire([PURCHASE_ROW, other])
    ]
    purchase = PurchaseMessage(
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
    assert messages == [purchase, replace(purchase, report_name="S", sequence=6)]


@pytest.mark.parametrize(
    "values",
    [
        {"credits": 2**32},
        {"user_id": -1},
        {"id": "\ud800"},
        {"created_at": 253_402_300_800_000},
        {"created_at": -62_135_596_800_001},
    ],
)
def test_a_row_that_does_not_fit_the_contract_is_unreadable(values: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="does not fit the contract"):
        list(convert.transactions_to_wire([ROW._replace(**values)]))


def test_every_kind_of_transaction_has_a_type() -> None:
    for kind in Kind:
        (data,) = convert.transactions_to_wire([ROW._replace(kind=kind)])
        assert decode(CreditTransaction, data).type.name == kind.name


@pytest.mark.parametrize("kind", Kind)
def test_only_an_entry_that_sets_the_end_of_a_grant_or_hold_shows_it(kind: Kind) -> None:
    setting = {"GRANT", "SCHEDULE", "TRANSFER_IN", "HOLD", "EXTEND"}
    (data,) = convert.transactions_to_wire([FULL_ROW._replace(kind=kind)])
    assert (decode(CreditTransaction, data).expires_at is not None) is (kind.name in setting)
