"""A memory store that fails on demand, and commands for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from credit_models.ledger import Account, Add, Policy, ReportKey, Transaction, Use
from credit_server.commit import CommitLimits
from credit_server.store.history import TransactionRow
from credit_server.store.memory import MemoryStore
from credit_server.store.port import (
    AppKey,
    Changes,
    Reference,
    References,
    Store,
    StoreTransaction,
    Unreadable,
)

LIMITS = CommitLimits(
    shards=2, retry_seconds=5, backoff_initial_seconds=0.0001, backoff_max_seconds=0.001
)


@dataclass
class Script:
    """The error of each commit: one in `before` prevents it, one in `after` hides its success."""

    before: list[Exception | None] = field(default_factory=list)
    after: list[Exception | None] = field(default_factory=list)
    write: list[Exception | None] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    looked_up: list[int] = field(default_factory=list)
    policies_read: int = 0
    commits: int = 0
    looked_up_fails: list[Exception | None] = field(default_factory=list)
    hold: asyncio.Event | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    # Users whose documents the store cannot change.
    unreadable: frozenset[int] = frozenset()


class ScriptedStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.script = Script()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        async with super().begin() as transaction:
            yield ScriptedTransaction(transaction, self.script)


class ScriptedTransaction:
    def __init__(self, transaction: StoreTransaction, script: Script) -> None:
        self._transaction = transaction
        self._script = script
        self._users: set[int] = set()

    async def accounts(self, user_ids: Collection[int]) -> dict[int, Account]:
        return await self._transaction.accounts(user_ids)

    async def transactions(
        self, keys: Collection[AppKey], ids: Collection[str]
    ) -> list[Transaction]:
        self._script.looked_up.append(len(keys))
        _raise_next(self._script.looked_up_fails)
        return await self._transaction.transactions(keys, ids)

    async def policies(self, app_ids: Collection[int]) -> dict[int, Policy]:
        self._script.policies_read += 1
        return await self._transaction.policies(app_ids)

    async def references(
        self, references: Collection[Reference], reports: Collection[ReportKey]
    ) -> References:
        return await self._transaction.references(references, reports)

    async def write(self, changes: Changes) -> None:
        self._script.batches.append(len(changes.transactions))
        if self._script.hold is not None:
            self._script.held.set()
            await self._script.hold.wait()
        _raise_next(self._script.write)
        self._users |= {entry.user_id for entry in changes.transactions}
        await self._transaction.write(changes)

    async def commit(self, check: Callable[[], None] | None = None) -> None:
        _raise_next(self._script.before)
        if bad := self._users & self._script.unreadable:
            raise Unreadable("not valid", user_ids=bad)
        await self._transaction.commit(check)
        self._script.commits += 1
        _raise_next(self._script.after)


def _raise_next(errors: list[Exception | None]) -> None:
    if errors:
        error = errors.pop(0)
        if error is not None:
            raise error


def add(store: Store, credits_: int = 1, *, user: int = 1, key: str = "") -> Add:
    return Add(
        user_id=user,
        app_id=1,
        credits=credits_,
        created_by=1,
        key=key,
        transaction_id=store.new_id(),
    )


def use(store: Store, credits_: int, *, user: int = 1, key: str = "") -> Use:
    return Use(
        user_id=user,
        app_id=1,
        report_id="r",
        report_name="n",
        credits=credits_,
        created_by=1,
        key=key,
        transaction_id=store.new_id(),
        purchase_id=store.new_id(),
    )


async def rows(store: Store, user: int = 1) -> list[TransactionRow]:
    return [row async for page in store.list_transactions(user) for row in page]


async def history(store: MemoryStore, user: int = 1) -> list[Transaction]:
    ids = [row.id for row in await rows(store, user)]
    async with MemoryStore.begin(store) as transaction:  # without the faults of a subclass
        found = await transaction.transactions([], ids)
    return sorted(found, key=lambda entry: entry.sequence)
