"""Translates between the contract's messages and the ledger's values."""

from typing import assert_never

from credit_models import (
    Balance,
    CreditRequest,
    CreditTransaction,
    PurchaseRequest,
    TransactionType,
    UserCredits,
)
from credit_models import Purchase as PurchaseMessage
from credit_models import Receipt as ReceiptMessage

from credit_server.ledger import Account, Add, Kind, Purchase, Receipt, Transaction, Use


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


def purchase_to_message(purchase: Purchase) -> PurchaseMessage:
    """Return a purchase."""
    return PurchaseMessage(
        id=purchase.id,
        user_id=purchase.user_id,
        app_id=purchase.app_id,
        report_id=purchase.report_id,
        report_name=purchase.report_name,
        credits=purchase.credits,
        created_at=purchase.created_at,
        created_by=purchase.created_by,
        transaction_id=purchase.transaction_id,
        sequence=purchase.sequence,
    )


def transaction_to_message(entry: Transaction) -> CreditTransaction:
    """Return an entry of the history."""
    return CreditTransaction(
        id=entry.id,
        user_id=entry.user_id,
        app_id=entry.app_id,
        credits=entry.credits,
        created_at=entry.created_at,
        created_by=entry.created_by,
        type=_type(entry.kind),
        balance_after=entry.balance_after,
        sequence=entry.sequence,
        purchase_id=entry.purchase_id,
        idempotency_key=entry.key,
    )


def _type(kind: Kind) -> TransactionType:
    match kind:
        case Kind.ADD:
            return TransactionType.ADD
        case Kind.USE:
            return TransactionType.USE
        case _:
            assert_never(kind)
