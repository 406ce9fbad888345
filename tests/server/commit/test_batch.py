"""Test that a batch is decided as if its commands had arrived one at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from credit_models.ledger import (
    Accepted,
    Account,
    Add,
    BatchAborted,
    BatchTooLarge,
    Command,
    InsufficientCredits,
    KeyReused,
    Replayed,
    Transaction,
    Use,
)
from credit_server.commit import Clock
from credit_server.commit.batch import BatchWriter, DedupIndex, plan
from credit_server.commit.policies import PolicyCache
from credit_server.store.memory import MemoryStore
from credit_server.store.port import AppKey, Conflict, Interrupted, StoreTransaction

from tests.server.clocks import NOON, Clocks
from tests.server.commit.scripted_store import ScriptedStore

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def add(credits_: int, *, user: int = 1, app: int = 1, key: str = "", id_: str = "t") -> Add:
    return Add(
        user_id=user, app_id=app, credits=credits_, created_by=1, key=key, transaction_id=id_
    )


def use(credits_: int, *, user: int = 1, app: int = 1, key: str = "", id_: str = "t") -> Use:
    return Use(
        user_id=user,
        app_id=app,
        report_id="r",
        report_name="n",
        credits=credits_,
        created_by=1,
        key=key,
        transaction_id=id_,
        purchase_id=f"p-{id_}",
    )


def empty(*users: int) -> dict[int, Account]:
    return {user: Account.empty(user) for user in users}


async def committed(command: Command) -> Transaction:
    (outcome,) = (await plan([command], empty(command.user_id), DedupIndex(), NOW)).outcomes
    assert isinstance(outcome, Accepted)
    return outcome.main


async def test_a_later_command_sees_what_an_earlier_one_wrote() -> None:
    batch = await plan(
        [add(5, id_="a"), use(5, id_="b"), use(1, id_="c")], empty(1), DedupIndex(), NOW
    )
    assert [type(outcome) for outcome in batch.outcomes] == [
        Accepted,
        Accepted,
        InsufficientCredits,
    ]
    assert [entry.sequence for entry in batch.transactions] == [1, 2]
    assert batch.accounts[1].balance(1) == 0


async def test_commands_with_the_same_key_share_the_outcome_of_the_first() -> None:
    batch = await plan(
        [add(5, key="k", id_="a"), add(5, key="k", id_="b"), add(6, key="k", id_="c")],
        empty(1),
        DedupIndex(),
        NOW,
    )
    first, second, third = batch.outcomes
    assert isinstance(first, Accepted)
    assert second == Replayed(transaction=first.main)
    assert third == KeyReused(fields=("credits",))
    assert len(batch.transactions) == 1


async def test_a_refused_command_leaves_its_key_free() -> None:
    batch = await plan(
        [use(5, key="k", id_="a"), add(5, id_="b"), use(5, key="k", id_="c")],
        empty(1),
        DedupIndex(),
        NOW,
    )
    assert [type(outcome) for outcome in batch.outcomes] == [
        InsufficientCredits,
        Accepted,
        Accepted,
    ]


async def test_a_key_belongs_to_its_user_in_its_app() -> None:
    batch = await plan(
        [
            add(5, user=1, key="k", id_="a"),
            add(5, user=2, key="k", id_="b"),
            add(5, user=1, app=2, key="k", id_="c"),
            add(5, user=1, app=2, key="k", id_="d"),
        ],
        empty(1, 2),
        DedupIndex(),
        NOW,
    )
    assert [type(outcome) for outcome in batch.outcomes] == [Accepted] * 3 + [Replayed]


async def test_a_command_in_the_history_is_replayed() -> None:
    index = DedupIndex()
    index.add([await committed(add(5, key="k", id_="a"))])
    (outcome,) = (await plan([add(5, key="k", id_="b")], empty(1), index, NOW)).outcomes
    assert isinstance(outcome, Replayed)


async def test_a_command_without_a_key_is_found_by_its_own_id() -> None:
    index = DedupIndex()
    index.add([await committed(add(5, id_="a"))])
    batch = await plan([add(5, id_="a"), add(5, id_="b")], empty(1), index, NOW)
    assert [type(outcome) for outcome in batch.outcomes] == [Replayed, Accepted]


async def test_commands_without_a_key_are_all_new() -> None:
    batch = await plan([add(5, id_="a"), add(5, id_="b")], empty(1), DedupIndex(), NOW)
    assert [type(outcome) for outcome in batch.outcomes] == [Accepted, Accepted]


async def test_the_event_loop_runs_other_calls_while_a_large_batch_is_decided() -> None:
    turns = 0

    async def other_call() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(other_call())
    batch = await plan(
        [add(1, id_=f"t{number}") for number in range(1024)], empty(1), DedupIndex(), NOW
    )
    other.cancel()
    assert len(batch.transactions) == 1024
    assert turns == 3  # after each 256 entries but the last


@pytest.fixture
def of_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a batch write 3 entries."""
    monkeypatch.setattr("credit_models.ledger.batch_size.BATCH_SIZE_MAX", 3)


def additions(count: int) -> list[Add]:
    return [add(1, id_=f"t{number}") for number in range(count)]


@pytest.mark.usefixtures("of_3")
async def test_of_a_batch_that_is_too_large_the_first_commands_are_decided() -> None:
    batch = await plan(additions(5), empty(1), DedupIndex(), NOW)
    assert [type(outcome) for outcome in batch.outcomes] == [Accepted] * 3
    assert len(batch.transactions) == 3


@pytest.mark.usefixtures("of_3")
async def test_an_atomic_batch_that_is_too_large_is_rejected() -> None:
    first, last = additions(5)[:3], additions(5)[3:]
    batch = await plan(first, empty(1), DedupIndex(), NOW, atomic=True)
    assert len(batch.transactions) == 3
    batch = await plan([*first, *last], empty(1), DedupIndex(), NOW, atomic=True)
    assert batch.outcomes == [
        *[BatchAborted(index=3)] * 3,
        BatchTooLarge(size=4, limit=3),
        BatchAborted(index=3),
    ]
    assert (batch.transactions, batch.accounts, batch.totals) == ([], {}, {})
    assert batch.depends_on_reads
    batch = await plan([*first, use(9), *last], empty(1), DedupIndex(), NOW, atomic=True)
    assert batch.outcomes == [
        *[BatchAborted(index=3)] * 3,
        InsufficientCredits(available=3, required=9),
        BatchTooLarge(size=4, limit=3),
        BatchAborted(index=3),
    ]


@pytest.mark.usefixtures("of_3")
async def test_commands_without_effects_have_no_size() -> None:
    known = DedupIndex()
    known.add([await committed(add(1, key="k", id_="a"))])
    only_validated = replace(add(1), validate_only=True)
    without: list[Command] = [add(1, key="k", id_="b"), use(99), only_validated] * 3
    commands = [*without, *additions(3)]
    batch = await plan(commands, empty(1), known, NOW)
    assert len(batch.outcomes) == len(commands)


async def test_totals_are_sums_per_app_over_all_users() -> None:
    batch = await plan(
        [
            add(5, user=1, app=1, id_="a"),
            add(7, user=2, app=1, id_="b"),
            use(2, user=1, app=1, id_="c"),
            add(1, user=1, app=2, id_="d"),
        ],
        empty(1, 2),
        DedupIndex(),
        NOW,
    )
    assert batch.totals == {1: 10, 2: 1}


async def test_only_a_refusal_that_the_key_does_not_decide_depends_on_reads() -> None:
    index = DedupIndex()
    index.add([await committed(add(5, key="k", id_="a"))])
    decided_by_key = [add(5, key="k", id_="b"), add(6, key="k", id_="c")]
    assert not (
        await plan([add(1, id_="d"), *decided_by_key], empty(1), index, NOW)
    ).depends_on_reads
    rejected = await plan([replace(use(9), transaction_id="e")], empty(1), index, NOW)
    assert rejected.depends_on_reads


class CountingStore(MemoryStore):
    """Records the users and keys that are read from it."""

    def __init__(self) -> None:
        super().__init__()
        self.users: list[int] = []
        self.keys: list[str] = []

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        async with super().begin() as transaction:
            yield CountingTransaction(transaction, self)


class CountingTransaction:
    def __init__(self, transaction: StoreTransaction, store: CountingStore) -> None:
        self._transaction = transaction
        self._store = store
        self.policies = transaction.policies
        self.references = transaction.references
        self.write = transaction.write
        self.commit = transaction.commit

    async def accounts(self, user_ids: Collection[int]) -> dict[int, Account]:
        self._store.users.extend(sorted(user_ids))
        return await self._transaction.accounts(user_ids)

    async def transactions(
        self, keys: Collection[AppKey], ids: Collection[str]
    ) -> list[Transaction]:
        self._store.keys.extend(sorted(key for _, _, key in keys))
        return await self._transaction.transactions(keys, ids)


def writer(store: MemoryStore, *, cache_max: int) -> BatchWriter:
    return BatchWriter(
        store.writer(), PolicyCache(), clock=Clock(), random=Random(7), cache_max=cache_max
    )


async def commit(writer: BatchWriter, *commands: Command, verify_first: bool = False) -> None:
    for outcome in await writer.commit(commands, verify_first=verify_first):
        assert isinstance(outcome, Accepted)


async def test_the_least_recently_used_account_is_dropped() -> None:
    store = CountingStore()
    batches = writer(store, cache_max=2)
    await commit(batches, add(1, user=1, id_="a"))
    await commit(batches, add(1, user=2, id_="b"))
    await commit(batches, add(1, user=1, id_="c"))
    await commit(batches, add(1, user=3, id_="d"))  # drops user 2
    assert store.users == [1, 2, 3]
    await commit(batches, add(1, user=1, id_="e"), add(1, user=3, id_="f"))
    assert store.users == [1, 2, 3]
    await commit(batches, add(1, user=2, id_="g"))
    assert store.users == [1, 2, 3, 2]


async def test_the_least_recently_used_key_is_dropped() -> None:
    store = CountingStore()
    batches = writer(store, cache_max=2)
    for number, key in enumerate(["k1", "k2", "k3"]):
        await commit(batches, add(1, key=key, id_=str(number)))
    again = [add(1, key=key, id_=f"again-{key}") for key in ("k1", "k2", "k3")]
    outcomes = await batches.commit(again, verify_first=True)
    assert [type(outcome) for outcome in outcomes] == [Replayed] * 3
    assert store.keys == ["k1"]


async def test_a_cache_of_size_0_remembers_nothing() -> None:
    store = CountingStore()
    batches = writer(store, cache_max=0)
    await commit(batches, add(1, key="k", id_="a"))
    await commit(batches, add(1, id_="b"))
    assert store.users == [1, 1]
    (outcome,) = await batches.commit([add(1, key="k", id_="c")], verify_first=True)
    assert isinstance(outcome, Replayed)
    assert store.keys == ["k"]


async def test_accounts_are_read_for_some_batches_after_another_server_has_written() -> None:
    store = CountingStore()
    ours, other = writer(store, cache_max=10), writer(store, cache_max=0)
    await commit(ours, add(1, user=1, id_="a"))
    await commit(ours, add(1, user=1, id_="b"))
    assert store.users == [1]
    await commit(other, add(1, user=1, id_="c"))
    with pytest.raises(Conflict):
        await commit(ours, add(1, user=1, id_="d"))
    await commit(ours, add(1, user=1, id_="d"))  # read because it is not cached
    for number in range(3):  # none of them fails
        await commit(other, add(1, user=1, id_=f"other-{number}"))
        await commit(ours, add(1, user=1, id_=f"ours-{number}"))
    store.users.clear()
    for number in range(100):  # the other has stopped
        await commit(ours, add(1, user=1, id_=f"alone-{number}"))
    assert 0 < len(store.users) < 100


async def test_a_failed_attempt_drops_the_accounts_of_its_users_remembered_or_not() -> None:
    store = CountingStore()
    batches = writer(store, cache_max=10)
    await commit(batches, add(1, user=1, id_="a"))
    with pytest.raises(Conflict):  # the id is taken
        await batches.commit([add(1, user=1, id_="a"), add(1, user=2, id_="b")], verify_first=False)
    await commit(batches, add(1, user=1, id_="c"), add(1, user=2, id_="d"))
    assert store.users == [1, 2, 1, 2]


async def test_a_replay_whose_key_was_looked_up_needs_the_commit() -> None:
    """An old primary may have the entry, and lose it: see the simulation's seed 483570880."""
    store = ScriptedStore()
    await commit(writer(store, cache_max=0), add(5, id_="a"), use(5, key="k", id_="b"))
    fresh = writer(store, cache_max=10)
    store.script.before = [Interrupted("no")]
    with pytest.raises(Interrupted):
        await fresh.commit([use(5, key="k", id_="c")], verify_first=False)
    outcomes = await fresh.commit([use(5, key="k", id_="c")], verify_first=False)
    assert [type(outcome) for outcome in outcomes] == [Replayed]


class SlowStore(CountingStore):
    """Takes a number of seconds to write."""

    def __init__(self, clocks: Clocks, seconds: float) -> None:
        super().__init__()
        self.clocks = clocks
        self.seconds = seconds

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        async with super().begin() as transaction:
            self.clocks.advance(self.seconds)
            yield transaction


async def test_an_attempt_whose_time_is_too_old_is_not_committed() -> None:
    """Its entry would appear behind the position of a page that was already read."""
    clocks = Clocks()
    store = SlowStore(clocks, 10.1)
    batches = BatchWriter(store, PolicyCache(), clock=clocks.clock(), random=Random(7), cache_max=0)
    with pytest.raises(Interrupted):
        await commit(batches, add(1, id_="a"))
    assert await store.account(1) is None
    store.seconds = 1.0
    await commit(batches, add(1, id_="a"))
    account = await store.account(1)
    assert account is not None
    assert account.updated_at == NOON + timedelta(seconds=10.1)


class ElectingStore(MemoryStore):
    """Lets time pass, and another server write, before an attempt reads."""

    def __init__(self, clocks: Clocks, seconds: float) -> None:
        super().__init__()
        self.clocks = clocks
        self.seconds = seconds
        self.waits = False

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        if self.waits:
            self.waits = False
            self.clocks.advance(self.seconds)
            await commit(_writer(self, self.clocks), add(1, id_="b"))
        async with super().begin() as transaction:
            yield transaction


def _writer(store: MemoryStore, clocks: Clocks) -> BatchWriter:
    """Return the writer of a server without a cache, which has compared its clock."""
    clock = clocks.clock()
    clock.compare(clocks.reading())
    return BatchWriter(store, PolicyCache(), clock=clock, random=Random(7), cache_max=0)


@pytest.mark.parametrize("seconds", [0.5, 2.5, 9.0])
async def test_an_entry_is_not_older_than_one_that_was_written_while_its_attempt_waited(
    seconds: float,
) -> None:
    """Found by the torture test: two servers, and a write that waited for an election."""
    clocks = Clocks()
    store = ElectingStore(clocks, seconds)
    await commit(_writer(store, clocks), add(1, id_="a"))
    store.waits = True
    await commit(_writer(store, clocks), add(1, id_="c"))
    account = await store.account(1)
    assert account is not None
    assert account.revision == 3
    assert account.updated_at == NOON + timedelta(seconds=seconds)


class SuspendedStore(MemoryStore):
    """Lets time pass before it sends the commands of a commit."""

    def __init__(self, clocks: Clocks) -> None:
        super().__init__()
        self.clocks = clocks
        self.seconds = 0.0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        async with super().begin() as transaction:
            yield SuspendedTransaction(transaction, self)


class SuspendedTransaction:
    def __init__(self, transaction: StoreTransaction, store: SuspendedStore) -> None:
        self._transaction = transaction
        self._store = store
        self.accounts = transaction.accounts
        self.transactions = transaction.transactions
        self.policies = transaction.policies
        self.references = transaction.references
        self.write = transaction.write

    async def commit(self, check: Callable[[], None] | None = None) -> None:
        self._store.clocks.advance(self._store.seconds)
        await self._transaction.commit(check)


async def test_a_batch_is_not_committed_if_the_process_was_suspended_before_its_first_command() -> (
    None
):
    clocks = Clocks()
    store = SuspendedStore(clocks)
    batches = BatchWriter(
        store.writer(), PolicyCache(), clock=clocks.clock(), random=Random(7), cache_max=10
    )
    await commit(batches, add(1, id_="a"))
    store.seconds = 10.001
    with pytest.raises(Interrupted):
        await commit(batches, add(1, id_="b"))
    assert await store.app_total(1) == 1
    store.seconds = 10.0
    await commit(batches, add(1, id_="b"))
    assert await store.app_total(1) == 2
