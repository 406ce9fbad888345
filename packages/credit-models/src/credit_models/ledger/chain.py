"""The place of a new entry after the earlier ones: its time, and its hash in the chain."""

from datetime import datetime

from credit_models.entry_hash import entry_hash
from credit_models.ledger.records import Account, Kind, Transaction

# The `TransactionType` of each kind in the contract.
_TYPES = {
    Kind.ADD: 1,
    Kind.USE: 2,
    Kind.GRANT: 3,
    Kind.SCHEDULE: 4,
    Kind.ACTIVATE: 5,
    Kind.EXPIRE: 6,
    Kind.VOID: 7,
    Kind.HOLD: 8,
    Kind.RELEASE: 9,
    Kind.EXTEND: 10,
    Kind.REFUND: 11,
    Kind.REVOKE: 12,
    Kind.TRANSFER_OUT: 13,
    Kind.TRANSFER_IN: 14,
    Kind.ADJUST: 15,
    Kind.CAP: 16,
    Kind.ALERT: 50,
}


def created_at(account: Account, now: datetime, latest: datetime | None) -> datetime:
    """Return the time of a new entry.

    Clocks of several servers differ and may be set back. So the time of a new entry is not before
    the time of the latest entry, if a correct server can have written that time. A later time is a
    fault and is not used: `sequence` defines the order, and the new entry gets the latest time that
    a correct server can have.
    """
    if account.updated_at is None or account.updated_at <= now:
        return now
    return account.updated_at if latest is None else min(account.updated_at, latest)


def hash_of(entry: Transaction, previous_hash: bytes) -> bytes:
    """Return the hash of an entry; see `entry_hash`. The entry's own hashes are not used."""
    details, balance = entry.details, entry.balance_after
    return entry_hash(
        previous_hash,
        entry.id,
        entry.user_id,
        entry.app_id,
        entry.credits,
        entry.created_at,
        entry.created_by,
        _TYPES[entry.kind],
        max(0, balance),
        entry.sequence,
        entry.purchase_id,
        entry.key,
        entry.effect,
        details.effective_at,
        details.related_id,
        [(part.grant_id, part.credits) for part in details.allocations],
        details.metadata,
        details.note,
        max(0, -balance),
        entry.report_id,
        entry.report_name,
        None if details.ends_at is None or not entry.kind.has_end else details.ends_at,
    )


def chained(entry: Transaction, previous_hash: bytes | None) -> Transaction:
    """Set the hashes of a new entry, and return the entry. With None it gets no hashes.

    The entry is changed in place, before anything else refers to it, because a copy by `replace`
    would take as long as the hash.
    """
    if previous_hash is not None:
        object.__setattr__(entry, "previous_hash", previous_hash)
        object.__setattr__(entry, "hash", hash_of(entry, previous_hash))
    return entry
