"""Compute the hash of a transaction from the contract's message."""

import struct

from credit_models._generated.credit.v1 import CreditTransaction
from credit_models.entry_hash import entry_hash


def transaction_hash(transaction: CreditTransaction) -> bytes:
    """Return the hash that a transaction must have, computed from its other fields.

    The result differs from `transaction.hash` if a field was changed. For a transaction without a
    `hash`, the result has no meaning.

    Args:
        transaction: The transaction.

    Raises:
        ValueError: A field is missing or out of its range, so that no server can have hashed it.
    """
    if transaction.created_at is None:
        raise ValueError("the transaction has no created_at")
    try:
        return entry_hash(
            transaction.previous_hash,
            transaction.id,
            transaction.user_id,
            transaction.app_id,
            transaction.credits,
            transaction.created_at,
            transaction.created_by,
            int(transaction.type),
            transaction.balance_after,
            transaction.sequence,
            transaction.purchase_id,
            transaction.idempotency_key,
            transaction.effect,
            transaction.effective_at,
            transaction.related_id,
            [(part.grant_id, part.credits) for part in transaction.allocations],
            transaction.metadata.items(),
            transaction.note,
            transaction.owed_after,
            transaction.report_id,
            transaction.report_name,
            transaction.expires_at,
        )
    except struct.error as error:
        raise ValueError(f"a number of the transaction is out of its range: {error}") from None
