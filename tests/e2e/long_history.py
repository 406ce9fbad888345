"""Write a long history directly to the store, many entries in one transaction."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

from credit_models.ledger import Account, Kind, Transaction
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Changes

APP = 1
PER_TRANSACTION = 1_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def write_history(store: MongoStore, *, user: int, count: int, key_length: int = 0) -> None:
    """Write so many additions for a user that has none, with the amounts of `credits_at`.

    Args:
        store: Where to.
        user: Whose.
        count: How many.
        key_length: The least length of their keys, to make them larger.
    """
    before = Account.empty(user)
    history, writer = _entries(user, count, key_length), store.writer()
    while entries := list(islice(history, PER_TRANSACTION)):
        last = entries[-1]
        account = Account(
            user_id=user,
            balances={APP: last.balance_after},
            revision=last.sequence,
            created_at=NOW,
            updated_at=NOW,
            created_by=1,
            updated_by=1,
        )
        async with writer.begin() as transaction:
            await transaction.write(
                Changes(
                    accounts=[(before, account)],
                    transactions=entries,
                    purchases=[],
                    totals={APP: sum(entry.credits for entry in entries)},
                    counter_shard=0,
                )
            )
            await transaction.commit()
        before = account


def credits_at(sequence: int) -> int:
    """Return how many credits the entry adds."""
    return sequence % 97 + 1


def _entries(user: int, count: int, key_length: int) -> Iterator[Transaction]:
    balance = 0
    for sequence in range(1, count + 1):
        balance += credits_at(sequence)
        yield Transaction(
            id=f"{user:04x}{sequence:020x}",
            user_id=user,
            app_id=APP,
            kind=Kind.ADD,
            credits=credits_at(sequence),
            balance_after=balance,
            sequence=sequence,
            created_at=NOW,
            created_by=1,
            key=f"key-{sequence}".ljust(key_length, "-"),
        )
