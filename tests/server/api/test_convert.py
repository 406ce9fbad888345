"""No field of the contract is forgotten on the way to the wire, nor on the way from it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import betterproto2
import pytest
from credit_models import CreditRequest, CreditTransaction, PurchaseRequest, TransactionType
from credit_models import Purchase as PurchaseMessage
from credit_models.codec import decode
from credit_server.api import convert
from credit_server.ledger import Account, Kind, Receipt, Transaction
from credit_server.store.port import PurchaseRow, TransactionRow

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
MILLISECONDS = round(NOW.timestamp() * 1000)
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
        decode(PurchaseMessage, *convert.purchases_to_wire([PURCHASE_ROW])),
        decode(CreditTransaction, *convert.transactions_to_wire([ROW])),
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


def test_every_field_of_a_transaction_is_its_own() -> None:
    first = ROW._replace(kind=Kind.ADD, purchase_id="", key="", balance_after=0, created_at=1)
    messages = [
        decode(CreditTransaction, data) for data in convert.transactions_to_wire([ROW, first, ROW])
    ]
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
    )
    added = replace(
        used,
        type=TransactionType.ADD,
        purchase_id="",
        idempotency_key="",
        balance_after=0,
        created_at=datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC),
    )
    assert messages == [used, added, used], "a row leaves nothing behind for the next one"


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
    )
    assert messages == [purchase, replace(purchase, report_name="S", sequence=6)]


@pytest.mark.parametrize("values", [{"credits": 2**32}, {"user_id": -1}, {"id": "\ud800"}])
def test_a_row_that_does_not_fit_the_contract_is_an_error(values: dict[str, Any]) -> None:
    with pytest.raises((ValueError, OverflowError)):
        list(convert.transactions_to_wire([ROW._replace(**values)]))


@pytest.mark.parametrize(
    "kind", [Kind[name] for name in TransactionType.__members__ if name in Kind.__members__]
)
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
