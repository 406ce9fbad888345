"""No field of the contract is forgotten on the way to the wire, nor on the way from it."""

from datetime import UTC, datetime

import betterproto2
import pytest
from credit_models import CreditRequest, PurchaseRequest, TransactionType
from credit_server.api import convert
from credit_server.ledger import Account, Kind, Purchase, Receipt, Transaction

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
)
ACCOUNT = Account(
    user_id=1,
    id="a",
    balances={9: 90, 2: 20},
    revision=5,
    created_at=NOW,
    updated_at=NOW,
    created_by=6,
    updated_by=7,
)


@pytest.mark.parametrize(
    "message",
    [
        convert.account_to_message(ACCOUNT),
        convert.purchase_to_message(PURCHASE),
        convert.transaction_to_message(ENTRY),
        convert.receipt_to_message(Receipt(transaction=ENTRY, replayed=True)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_every_field_of_an_answer_is_filled(message: betterproto2.Message) -> None:
    empty = vars(type(message)())
    filled = {name for name, value in vars(message).items() if value != empty[name]}
    unfilled = empty.keys() - filled - {"_unknown_fields"}
    assert not unfilled


def test_balances_are_in_the_order_of_their_apps() -> None:
    message = convert.account_to_message(ACCOUNT)
    assert [(balance.app_id, balance.balance) for balance in message.balances] == [(2, 20), (9, 90)]


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_transaction_has_a_type(kind: Kind) -> None:
    assert convert._type(kind) is TransactionType[kind.name]


def test_a_request_for_credits_arrives_whole() -> None:
    request = CreditRequest(user_id=1, app_id=2, credits=3, created_by=4, idempotency_key="k")
    command = convert.add_from_message(request, "t", 1000)
    assert (command.user_id, command.app_id, command.credits) == (1, 2, 3)
    assert (command.created_by, command.key, command.transaction_id) == (4, "k", "t")
    assert command.credits_max == 1000


def test_a_request_for_a_purchase_arrives_whole() -> None:
    request = PurchaseRequest(
        user_id=1,
        app_id=2,
        report_id="r",
        report_name="R",
        credits=3,
        created_by=4,
        idempotency_key="k",
    )
    command = convert.use_from_message(request, "t", "p")
    assert (command.user_id, command.app_id, command.credits) == (1, 2, 3)
    assert (command.report_id, command.report_name) == ("r", "R")
    assert (command.created_by, command.key) == (4, "k")
    assert (command.transaction_id, command.purchase_id) == ("t", "p")
