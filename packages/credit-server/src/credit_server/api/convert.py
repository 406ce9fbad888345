"""Translates between the contract's messages and the ledger's values."""

from collections.abc import Iterable, Iterator
from typing import Any

from credit_models import (
    Balance,
    CreditRequest,
    PurchaseRequest,
    TransactionType,
    UserCredits,
)
from credit_models import Receipt as ReceiptMessage
from credit_models.image import message_class
from google.protobuf.timestamp_pb2 import Timestamp

from credit_server.ledger import Account, Add, InvariantViolated, Kind, Receipt, Use
from credit_server.store.port import PurchaseRow, TransactionRow

# Any: protobuf makes these classes at run time.
_TRANSACTION: Any = message_class("credit.v1.CreditTransaction")
_PURCHASE: Any = message_class("credit.v1.Purchase")


def add_from_message(request: CreditRequest, transaction_id: str, credits_max: int) -> Add:
    """Return the command of an `AddCredits` request.

    Args:
        request: The request.
        transaction_id: The id of the transaction if the command is accepted.
        credits_max: The most credits that the caller may add in one call.
    """
    return Add(
        user_id=request.user_id,
        app_id=request.app_id,
        credits=request.credits,
        created_by=request.created_by,
        key=request.idempotency_key,
        transaction_id=transaction_id,
        credits_max=credits_max,
    )


def use_from_message(request: PurchaseRequest, transaction_id: str, purchase_id: str) -> Use:
    """Return the command of a `UseCredits` request."""
    return Use(
        user_id=request.user_id,
        app_id=request.app_id,
        report_id=request.report_id,
        report_name=request.report_name,
        credits=request.credits,
        created_by=request.created_by,
        key=request.idempotency_key,
        transaction_id=transaction_id,
        purchase_id=purchase_id,
    )


def receipt_to_message(receipt: Receipt) -> ReceiptMessage:
    """Return the receipt of an accepted write."""
    entry = receipt.transaction
    return ReceiptMessage(
        transaction_id=entry.id,
        purchase_id=entry.purchase_id,
        balance=entry.balance_after,
        sequence=entry.sequence,
        replayed=receipt.replayed,
    )


def account_to_message(account: Account) -> UserCredits:
    """Return the balances of a user."""
    return UserCredits(
        id=account.id,
        user_id=account.user_id,
        balances=[
            Balance(app_id=app_id, balance=balance)
            for app_id, balance in sorted(account.balances.items())
        ],
        created_at=account.created_at,
        updated_at=account.updated_at,
        created_by=account.created_by,
        updated_by=account.updated_by,
        revision=account.revision,
    )


def transactions_to_wire(rows: Iterable[TransactionRow]) -> Iterator[bytes]:
    """Write rows as `CreditTransaction`s.

    All rows use one message of protobuf's C parser, which is safe because every row sets all
    fields. That takes 1.4 µs a row; a new message for each row takes 2.5 µs (2-core machine).
    """
    message = _TRANSACTION()
    for (
        message.id,
        message.user_id,
        message.app_id,
        message.credits,
        milliseconds,
        message.created_by,
        kind,
        message.balance_after,
        message.sequence,
        message.purchase_id,
        message.idempotency_key,
        message.report_id,
        message.report_name,
        _,
    ) in rows:
        message.type = _type(kind)
        _set_time(message.created_at, milliseconds)
        yield message.SerializeToString()


def purchases_to_wire(rows: Iterable[PurchaseRow]) -> Iterator[bytes]:
    """Write rows as `Purchase`s; see `transactions_to_wire`."""
    message = _PURCHASE()
    for (
        message.id,
        message.user_id,
        message.app_id,
        message.report_id,
        message.report_name,
        message.credits,
        milliseconds,
        message.created_by,
        message.transaction_id,
        message.sequence,
        message.refunded_credits,
    ) in rows:
        _set_time(message.created_at, milliseconds)
        yield message.SerializeToString()


def _set_time(timestamp: Timestamp, milliseconds: int) -> None:
    timestamp.seconds, rest = divmod(milliseconds, 1000)
    timestamp.nanos = rest * 1_000_000


def _type(kind: Kind) -> TransactionType:
    match kind:
        case Kind.ADD:
            return TransactionType.ADD
        case Kind.USE:
            return TransactionType.USE
        case _:
            raise InvariantViolated(f"the contract has no name for the kind {kind.value}")
