"""Group commit on a store that fails on demand: nothing is lost, nothing is done twice."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from credit_server.commit import (
    ClockSkewed,
    CommitLimits,
    Committer,
    NoObserver,
    NotCommitted,
    Overloaded,
    ResultUnknown,
    Stopping,
    WriteResult,
)
from credit_server.ledger import (
    Account,
    Add,
    Command,
    InsufficientCredits,
    InvariantViolated,
    KeyReused,
    Receipt,
    Transaction,
    Use,
)
from credit_server.store.memory import MemoryStore
from credit_server.store.port import (
    AppKey,
    Changes,
    CommitUnknown,
    Conflict,
    Interrupted,
    Rejected,
    StoreTransaction,
    StoreUnavailable,
)
from structlog.testing import capture_logs

from tests.server.clocks import LIMIT_SECONDS, NOON, Clocks

LIMITS = CommitLimits(
    shards=2, retry_seconds=5, backoff_initial_seconds=0.0001, backoff_max_seconds=0.001
)


@dataclass
class Script:
    """What goes wrong with which commit: `before` prevents it, `after` hides that it happened."""

    before: list[Exception | None] = field(default_factory=list)
    after: list[Exception | None] = field(default_factory=list)
    write: list[Exception | None] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    looked_up: list[int] = field(default_factory=list)
    commits: int = 0
    looked_up_fails: list[Exception | None] = field(default_factory=list)
    hold: asyncio.Event | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)


class ScriptedStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.script = Script()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        async with super().begin() as unit:
            yield ScriptedUnit(unit, self.script)


class ScriptedUnit:
    def __init__(self, unit: StoreTransaction, script: Script) -> None:
        self._unit = unit
        self._script = script

    async def accounts(self, user_ids: Collection[int]) -> dict[int, Account]:
        return await self._unit.accounts(user_ids)

    async def transactions(
        self, keys: Collection[AppKey], ids: Collection[str]
    ) -> list[Transaction]:
        self._script.looked_up.append(len(keys))
        _raise_next(self._script.looked_up_fails)
        return await self._unit.transactions(keys, ids)

    async def write(self, changes: Changes) -> None:
        self._script.batches.append(len(changes.transactions))
        if self._script.hold is not None:
            self._script.held.set()
            await self._script.hold.wait()
        _raise_next(self._script.write)
        await self._unit.write(changes)

    async def commit(self) -> None:
        _raise_next(self._script.before)
        await self._unit.commit()
        self._script.commits += 1
        _raise_next(self._script.after)


def _raise_next(errors: list[Exception | None]) -> None:
    if errors:
        error = errors.pop(0)
        if error is not None:
            raise error


def add(store: MemoryStore, credits_: int = 1, *, user: int = 1, key: str = "") -> Add:
    return Add(
        user_id=user,
        app_id=1,
        credits=credits_,
        created_by=1,
        key=key,
        transaction_id=store.new_id(),
    )


def use(store: MemoryStore, credits_: int, *, user: int = 1, key: str = "") -> Use:
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


async def history(store: MemoryStore, user: int = 1) -> list[Transaction]:
    return [entry async for page in store.list_transactions(user) for entry in page]


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


async def test_an_accepted_command_is_answered_with_its_receipt(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as committer:
        command = add(store, 5)
        receipt = await committer.submit(command)
    assert isinstance(receipt, Receipt)
    assert receipt.transaction.id == command.transaction_id
    assert not receipt.replayed
    assert await history(store) == [receipt.transaction]


async def test_concurrent_writes_share_a_transaction(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as committer:
        await asyncio.gather(*(committer.submit(add(store)) for _ in range(100)))
    assert store.script.batches == [100]
    assert [entry.sequence for entry in await history(store)] == list(range(1, 101))


async def test_a_batch_is_never_larger_than_allowed(store: ScriptedStore) -> None:
    async with Committer(store, replace(LIMITS, batch_max=40)) as committer:
        await asyncio.gather(*(committer.submit(add(store)) for _ in range(100)))
    assert store.script.batches == [40, 40, 20]


async def test_a_key_that_comes_again_is_answered_from_memory(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as committer:
        first = await committer.submit(add(store, 5, key="k"))
        again = await committer.submit(add(store, 5, key="k"))
        other = await committer.submit(add(store, 6, key="k"))
    assert isinstance(first, Receipt)
    assert again == Receipt(transaction=first.transaction, replayed=True)
    assert other == KeyReused(fields=("credits",))
    assert store.script.commits == 1


async def test_a_key_from_another_process_is_found_in_the_store(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as committer:
        first = await committer.submit(add(store, 5, key="k"))
    async with Committer(store, LIMITS) as another:
        again = await another.submit(add(store, 5, key="k"))
    assert isinstance(first, Receipt)
    assert again == Receipt(transaction=first.transaction, replayed=True)
    assert len(await history(store)) == 1
    assert store.script.commits == 2  # a replayed OK is certain only when a majority has it


async def test_a_replay_is_found_although_the_balance_would_refuse_it(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as committer:
        await committer.submit(add(store, 5))
        first = await committer.submit(use(store, 5, key="k"))
    async with Committer(store, LIMITS) as another:
        again = await another.submit(use(store, 5, key="k"))
    assert isinstance(first, Receipt)
    assert again == Receipt(transaction=first.transaction, replayed=True)


async def test_a_refusal_never_rests_on_a_remembered_balance(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as here, Committer(store, LIMITS) as there:
        await here.submit(add(store, 1))
        await there.submit(add(store, 99))  # `here` remembers a balance of 1
        receipt = await here.submit(use(store, 100))
    assert isinstance(receipt, Receipt)
    assert receipt.transaction.balance_after == 0


async def test_a_success_never_rests_on_a_remembered_balance(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as here, Committer(store, LIMITS) as there:
        await here.submit(add(store, 100))
        await there.submit(use(store, 100))  # `here` remembers a balance of 100
        refusal = await here.submit(use(store, 100))
    assert refusal == InsufficientCredits(available=0, required=100)


async def test_a_conflict_is_tried_again(store: ScriptedStore) -> None:
    store.script.before = [Conflict("busy"), Conflict("busy")]
    async with Committer(store, LIMITS) as committer:
        receipts = await asyncio.gather(
            *(committer.submit(add(store, key=str(n))) for n in range(9))
        )
    assert all(isinstance(receipt, Receipt) and not receipt.replayed for receipt in receipts)
    assert store.script.batches == [9, 9, 9]
    assert len(await history(store)) == 9


async def test_repeated_conflicts_halve_the_batch(store: ScriptedStore) -> None:
    store.script.write = [Conflict("busy")] * 3
    async with Committer(store, LIMITS) as committer:
        await asyncio.gather(*(committer.submit(add(store)) for _ in range(8)))
    assert store.script.batches == [8, 8, 8, 4, 4]
    assert [entry.sequence for entry in await history(store)] == list(range(1, 9))


async def test_an_unknown_commit_that_happened_is_recognised_and_no_replay(
    store: ScriptedStore,
) -> None:
    store.script.after = [CommitUnknown("the connection broke")]
    async with Committer(store, LIMITS) as committer:
        commands: list[Command] = [add(store), add(store, key="k"), use(store, 1)]
        receipts = await asyncio.gather(*map(committer.submit, commands))
    assert [receipt.replayed for receipt in receipts if isinstance(receipt, Receipt)] == [False] * 3
    assert [entry.id for entry in await history(store)] == [
        command.transaction_id for command in commands
    ]


async def test_an_unknown_commit_that_did_not_happen_is_done_again(store: ScriptedStore) -> None:
    store.script.before = [CommitUnknown("the connection broke")]
    async with Committer(store, LIMITS) as committer:
        receipt = await committer.submit(add(store, 5))
    assert isinstance(receipt, Receipt)
    assert await history(store) == [receipt.transaction]


async def test_a_commit_that_stays_unknown_is_not_reported_as_failed(store: ScriptedStore) -> None:
    store.script.after = [CommitUnknown("no word")]
    store.script.before = [None, *([StoreUnavailable("away")] * 10_000)]
    async with Committer(store, replace(LIMITS, retry_seconds=0.05)) as committer:
        with pytest.raises(ResultUnknown):
            await committer.submit(add(store, 5, key="k"))
        store.script.before = []
        again = await committer.submit(add(store, 5, key="k"))
    assert isinstance(again, Receipt)
    assert again.replayed
    assert len(await history(store)) == 1


async def test_a_bug_after_an_unknown_commit_is_not_reported_as_failed(
    store: ScriptedStore,
) -> None:
    store.script.after = [CommitUnknown("no word")]
    store.script.looked_up_fails = [RuntimeError("a bug")]
    async with Committer(store, LIMITS) as committer:
        with pytest.raises(ResultUnknown):
            await committer.submit(add(store, 5))
    assert len(await history(store)) == 1


async def test_an_unreachable_store_is_reported_at_once(store: ScriptedStore) -> None:
    store.script.before = [StoreUnavailable("away")]
    async with Committer(store, LIMITS) as committer:
        with pytest.raises(NotCommitted):
            await committer.submit(add(store))
        assert store.script.batches == [1]
        assert isinstance(await committer.submit(add(store)), Receipt)


async def test_what_is_logged_of_a_batch_names_all_its_requests(store: ScriptedStore) -> None:
    store.script.hold = asyncio.Event()
    async with Committer(store, LIMITS) as committer:
        first = asyncio.create_task(committer.submit(add(store), request_id="first"))
        await store.script.held.wait()
        waiting = [
            asyncio.create_task(committer.submit(add(store), request_id=request_id))
            for request_id in ("second", None, "third")
        ]
        await asyncio.sleep(0)
        store.script.before = [None, StoreUnavailable("away")]
        store.script.hold.set()
        with capture_logs() as logged:
            await asyncio.gather(first, *waiting, return_exceptions=True)
    assert logged == [
        {
            "event": "a batch failed",
            "log_level": "warning",
            "reason": "away",
            "writes": 3,
            "request_ids": ["second", "third"],
        }
    ]


async def test_what_is_logged_of_a_bad_command_names_its_request_alone(
    store: ScriptedStore,
) -> None:
    async with Committer(store, LIMITS) as committer:
        with capture_logs() as logged:
            await asyncio.gather(
                committer.submit(add(store), request_id="good"),
                committer.submit(replace(add(store), credits=0), request_id="bad"),
                return_exceptions=True,
            )
    assert [(line["log_level"], line["request_ids"]) for line in logged] == [
        ("error", ["bad"]),
        ("warning", ["bad"]),
    ]


async def test_one_bad_command_does_not_take_its_batch_with_it(store: ScriptedStore) -> None:
    bad = replace(add(store), credits=0)
    async with Committer(store, LIMITS) as committer:
        results = await asyncio.gather(
            committer.submit(add(store)),
            committer.submit(bad),
            committer.submit(add(store)),
            return_exceptions=True,
        )
        assert isinstance(await committer.submit(add(store)), Receipt)
    assert [type(result) for result in results] == [Receipt, InvariantViolated, Receipt]
    assert [entry.sequence for entry in await history(store)] == [1, 2, 3]


async def test_more_than_may_wait_is_refused_and_nothing_of_it_happens(
    store: ScriptedStore,
) -> None:
    store.script.hold = asyncio.Event()
    async with Committer(store, replace(LIMITS, waiting_max=4, shards=1)) as committer:
        first = asyncio.create_task(committer.submit(add(store)))
        await store.script.held.wait()
        waiting = [asyncio.create_task(committer.submit(add(store))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await committer.submit(add(store))
        store.script.hold.set()
        await asyncio.gather(first, *waiting)
    assert len(await history(store)) == 4


async def test_a_caller_that_leaves_while_waiting_leaves_nothing_behind(
    store: ScriptedStore,
) -> None:
    store.script.hold = asyncio.Event()
    async with Committer(store, LIMITS) as committer:
        first = asyncio.create_task(committer.submit(add(store)))
        await store.script.held.wait()
        waiting = asyncio.create_task(committer.submit(add(store)))
        await asyncio.sleep(0)
        waiting.cancel()
        store.script.hold.set()
        await first
    assert len(await history(store)) == 1


async def test_a_caller_that_leaves_does_not_disturb_its_batch(store: ScriptedStore) -> None:
    store.script.hold = asyncio.Event()
    async with Committer(store, LIMITS) as committer:
        leaving = asyncio.create_task(committer.submit(add(store, 5, key="k")))
        staying = asyncio.create_task(committer.submit(add(store, 7)))
        await store.script.held.wait()
        leaving.cancel()
        store.script.hold.set()
        assert isinstance(await staying, Receipt)
        again = await committer.submit(add(store, 5, key="k"))
    assert isinstance(again, Receipt)
    assert again.replayed
    assert [entry.credits for entry in await history(store)] == [5, 7]


async def test_what_came_of_a_command_is_told_where_its_caller_has_left(
    store: ScriptedStore,
) -> None:
    store.script.hold = asyncio.Event()
    told: list[WriteResult] = []
    dropped: list[WriteResult] = []
    async with Committer(store, replace(LIMITS, shards=1)) as committer:
        leaving = asyncio.create_task(committer.submit(add(store), after=told.append))
        await store.script.held.wait()
        waiting = asyncio.create_task(committer.submit(add(store), after=dropped.append))
        await asyncio.sleep(0)
        leaving.cancel()
        waiting.cancel()
        await asyncio.wait([leaving, waiting])
        assert told == dropped == []
        store.script.hold.set()
    (written,) = await history(store)
    assert told == [Receipt(transaction=written, replayed=False)]
    assert dropped == [None]


async def test_an_answer_that_comes_as_its_caller_leaves_is_told(store: ScriptedStore) -> None:
    class Leaving(NoObserver):
        def batch_settled(self, size: int, seconds: float, attempts: int) -> None:
            caller.cancel()  # it has its answer, and has not run since

    told: list[WriteResult] = []
    async with Committer(store, LIMITS, observer=Leaving()) as committer:
        caller = asyncio.create_task(committer.submit(add(store), after=told.append))
        await asyncio.wait([caller])
    assert caller.cancelled()
    (written,) = await history(store)
    assert told == [Receipt(transaction=written, replayed=False)]


async def test_a_caller_who_stays_is_answered_and_nothing_else_told(store: ScriptedStore) -> None:
    told: list[WriteResult] = []
    async with Committer(store, LIMITS) as committer:
        assert isinstance(await committer.submit(add(store), after=told.append), Receipt)
    assert told == []


@pytest.mark.parametrize(
    ("error", "told_as"),
    [(StoreUnavailable("away"), NotCommitted), (CommitUnknown("unknown"), ResultUnknown)],
    ids=["away", "unknown"],
)
async def test_a_failure_is_told_where_its_caller_has_left(
    store: ScriptedStore, error: Exception, told_as: type[Exception]
) -> None:
    store.script.hold = asyncio.Event()
    store.script.before = [error]
    told: list[WriteResult] = []
    async with Committer(store, replace(LIMITS, retry_seconds=0)) as committer:
        leaving = asyncio.create_task(committer.submit(add(store), after=told.append))
        await store.script.held.wait()
        leaving.cancel()
        store.script.hold.set()
    assert [type(ending) for ending in told] == [told_as]


async def test_what_is_told_and_fails_does_not_end_the_lane(store: ScriptedStore) -> None:
    failures: list[object] = []

    def fails(_: WriteResult) -> None:
        raise OSError("no space left on device")

    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    store.script.hold = asyncio.Event()
    try:
        async with Committer(store, replace(LIMITS, shards=1)) as committer:
            leaving = asyncio.create_task(committer.submit(add(store), after=fails))
            await store.script.held.wait()
            leaving.cancel()
            store.script.hold.set()
            assert isinstance(await committer.submit(add(store)), Receipt)
    finally:
        loop.set_exception_handler(handler)
    assert [type(failure) for failure in failures] == [OSError]


async def test_callers_who_have_left_do_not_count_as_waiting(store: ScriptedStore) -> None:
    store.script.hold = asyncio.Event()
    async with Committer(store, replace(LIMITS, waiting_max=4, shards=1)) as committer:
        first = asyncio.create_task(committer.submit(add(store)))
        await store.script.held.wait()
        for _ in range(20):
            leaving = asyncio.create_task(committer.submit(add(store)))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.wait([leaving])
        staying = asyncio.create_task(committer.submit(add(store)))
        await asyncio.sleep(0)
        store.script.hold.set()
        assert isinstance(await staying, Receipt)
        await first
    assert len(await history(store)) == 2


async def test_a_lane_that_is_held_up_does_not_refuse_the_users_of_another(
    store: ScriptedStore,
) -> None:
    store.script.hold = asyncio.Event()
    async with Committer(store, replace(LIMITS, waiting_max=4, shards=2)) as committer:
        held = [asyncio.create_task(committer.submit(add(store, user=2))) for _ in range(2)]
        await store.script.held.wait()
        with pytest.raises(Overloaded):
            await committer.submit(add(store, user=4))
        other = asyncio.create_task(committer.submit(add(store, user=1)))
        await asyncio.sleep(0)
        store.script.hold.set()
        assert isinstance(await other, Receipt)
        await asyncio.gather(*held)


async def test_a_contended_batch_is_given_up_as_a_whole_in_its_time(store: ScriptedStore) -> None:
    store.script.before = [Conflict("busy")] * 10_000
    limits = replace(LIMITS, retry_seconds=0.02, backoff_max_seconds=0.001)
    async with Committer(store, limits) as committer:
        results = await asyncio.gather(
            *(committer.submit(add(store)) for _ in range(64)), return_exceptions=True
        )
    assert {type(result) for result in results} == {NotCommitted}
    # Each part is tried on its own once at least; none of them gets the whole time again.
    assert len(store.script.batches) < 200


@pytest.mark.parametrize(
    "error", [RuntimeError("a fault"), Rejected("a fault")], ids=["bug", "rejected"]
)
async def test_an_unforeseen_error_of_the_store_is_given_up_after_a_few_attempts(
    store: ScriptedStore, error: Exception
) -> None:
    store.script.write = [error] * 10_000
    with capture_logs():  # it would draw the variables of each traceback
        async with Committer(store, replace(LIMITS, shards=1)) as committer:
            results = await asyncio.gather(
                *(committer.submit(add(store, user=n)) for n in range(1, 257)),
                return_exceptions=True,
            )
            assert len(store.script.batches) <= 12
            store.script.write = []
            assert isinstance(await committer.submit(add(store)), Receipt)
    assert {type(result) for result in results} == {NotCommitted, type(error)}
    assert sum(isinstance(result, NotCommitted) for result in results) == 253


async def test_an_unforeseen_error_out_of_a_commit_is_not_reported_as_failed(
    store: ScriptedStore,
) -> None:
    store.script.after = [RuntimeError("the answer cannot be decoded")]
    async with Committer(store, replace(LIMITS, retry_seconds=0)) as committer:
        with pytest.raises(ResultUnknown):
            await committer.submit(add(store, 5, key="k"))
    async with Committer(store, LIMITS) as committer:
        again = await committer.submit(add(store, 5, key="k"))
    assert isinstance(again, Receipt)
    assert again.replayed
    assert len(await history(store)) == 1


async def test_an_unforeseen_error_out_of_a_commit_is_looked_into(store: ScriptedStore) -> None:
    store.script.after = [RuntimeError("the answer cannot be decoded")]
    async with Committer(store, LIMITS) as committer:
        receipt = await committer.submit(add(store, 5))
    assert isinstance(receipt, Receipt)
    assert not receipt.replayed
    assert await history(store) == [receipt.transaction]


class _Broken(NoObserver):
    """Has a bug in what it is told of batches, or of refusals."""

    def __init__(self, name: str) -> None:
        setattr(self, name, self._fail)

    def _fail(self, *_: object) -> None:
        raise RuntimeError("a bug")


async def test_a_lane_that_ends_by_a_bug_answers_who_waits_and_takes_in_nothing_more(
    store: ScriptedStore,
) -> None:
    store.script.hold = asyncio.Event()
    committer = Committer(store, replace(LIMITS, shards=1), observer=_Broken("batch_settled"))
    await committer.__aenter__()
    settled = asyncio.create_task(committer.submit(add(store)))
    await store.script.held.wait()
    waiting = asyncio.create_task(committer.submit(add(store)))
    await asyncio.sleep(0)
    store.script.hold.set()
    assert isinstance(await settled, Receipt)
    with pytest.raises(Stopping):
        await waiting
    with pytest.raises(Stopping):
        await committer.submit(add(store))
    with pytest.raises(RuntimeError, match="a bug"):
        await committer.__aexit__(None, None, None)
    assert committer.waiting == 0
    assert len(await history(store)) == 1


async def test_a_lane_that_ends_while_it_takes_a_batch_answers_who_waits(
    store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise RuntimeError("a bug")

    monkeypatch.setattr("credit_server.commit.pending.PendingWrite.is_wanted", fail)
    committer = Committer(store, replace(LIMITS, shards=1))
    await committer.__aenter__()
    for result in await asyncio.gather(
        *(committer.submit(add(store)) for _ in range(3)), return_exceptions=True
    ):
        assert isinstance(result, Stopping)
    with pytest.raises(RuntimeError, match="a bug"):
        await committer.__aexit__(None, None, None)
    assert await history(store) == []


async def test_a_lane_that_is_cancelled_while_it_commits_reports_the_result_as_unknown(
    store: ScriptedStore,
) -> None:
    shards: list[asyncio.Task[None]] = []

    def start(part: str, body: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        shards.append(asyncio.create_task(body, name=part))
        return shards[-1]

    store.script.hold = asyncio.Event()
    committer = Committer(store, replace(LIMITS, shards=1), start=start)
    await committer.__aenter__()
    under_way = asyncio.create_task(committer.submit(add(store)))
    await store.script.held.wait()
    waiting = asyncio.create_task(committer.submit(add(store)))
    await asyncio.sleep(0)
    shards[0].cancel()
    with pytest.raises(ResultUnknown):
        await under_way
    with pytest.raises(Stopping):
        await waiting


async def test_a_clock_that_is_skewed_refuses_writes_until_it_agrees_again(
    store: ScriptedStore,
) -> None:
    clocks = Clocks()
    clock = clocks.clock()
    clock.compare(clocks.reading())
    async with Committer(store, LIMITS, clock=clock) as committer:
        clocks.wall += 3600
        with pytest.raises(ClockSkewed):
            await committer.submit(add(store))
        clocks.wall -= 3600
        receipt = await committer.submit(add(store))
    assert isinstance(receipt, Receipt)
    assert receipt.transaction.created_at == NOON
    assert await history(store) == [receipt.transaction]


async def test_a_clock_that_jumps_while_a_write_waits_refuses_it(store: ScriptedStore) -> None:
    clocks = Clocks()
    clock = clocks.clock()
    clock.compare(clocks.reading())
    store.script.hold = asyncio.Event()
    async with Committer(store, replace(LIMITS, shards=1), clock=clock) as committer:
        first = asyncio.create_task(committer.submit(add(store)))
        await store.script.held.wait()
        second = asyncio.create_task(committer.submit(add(store)))
        await asyncio.sleep(0)
        clocks.wall += 3600
        store.script.hold.set()
        assert isinstance(await first, Receipt)
        with pytest.raises(ClockSkewed):
            await second
    assert [entry.created_at for entry in await history(store)] == [NOON]


async def test_one_server_with_a_wrong_clock_does_not_date_the_entries_of_the_others(
    store: ScriptedStore,
) -> None:
    ahead, sound = Clocks(), Clocks()
    ahead.wall += 3600  # and not compared: as a server before this release
    clock = sound.clock()
    clock.compare(sound.reading())
    async with (
        Committer(store, LIMITS, clock=ahead.clock()) as wrong,
        Committer(store, LIMITS, clock=clock) as right,
    ):
        await right.submit(add(store))
        await wrong.submit(add(store))
        await right.submit(add(store))
        sound.go_on(60)
        await right.submit(add(store))
    times = [(entry.created_at - NOON).total_seconds() for entry in await history(store)]
    assert times == [0, 3600, pytest.approx(LIMIT_SECONDS, abs=0.002), 60]


async def test_lost_connections_do_not_take_a_batch_apart(store: ScriptedStore) -> None:
    store.script.before = [Interrupted("the primary has gone")] * 6
    async with Committer(store, LIMITS) as committer:
        await asyncio.gather(*(committer.submit(add(store)) for _ in range(8)))
    assert store.script.batches == [8] * 7


async def test_a_lane_outlives_a_thousand_conflicts(store: ScriptedStore) -> None:
    store.script.before = [Conflict("busy")] * 1100
    limits = replace(LIMITS, retry_seconds=60, backoff_max_seconds=0.000001)
    async with Committer(store, limits) as committer:
        assert isinstance(await committer.submit(add(store)), Receipt)


async def test_stopping_settles_what_waits_and_takes_in_nothing_more(store: ScriptedStore) -> None:
    store.script.hold = asyncio.Event()
    committer = Committer(store, LIMITS)
    async with committer:
        tasks = [asyncio.create_task(committer.submit(add(store, user=n))) for n in range(1, 6)]
        await store.script.held.wait()
        store.script.hold.set()
    assert all(isinstance(result, Receipt) for result in await asyncio.gather(*tasks))
    with pytest.raises(Stopping):
        await committer.submit(add(store))


@pytest.mark.parametrize("seed", range(20))
async def test_nothing_is_lost_or_doubled_by_any_mixture_of_failures(
    store: ScriptedStore, seed: int
) -> None:
    random = Random(seed)
    failures: list[type[Exception]] = [Conflict, CommitUnknown, Interrupted, StoreUnavailable]
    for errors in (store.script.before, store.script.after, store.script.write):
        for _ in range(60):
            kinds = failures if errors is not store.script.after else [CommitUnknown]
            errors.append(random.choice(kinds)("scripted") if random.random() < 0.3 else None)

    async def caller(number: int) -> Receipt:
        key = f"key-{number % 25}"  # each key is sent by two callers at once
        credits_, user = 1 + number % 25, 1 + number % 5
        while True:
            try:
                result = await committer.submit(add(store, credits_, user=user, key=key))
            except (NotCommitted, ResultUnknown):
                continue
            assert isinstance(result, Receipt)
            return result

    async with Committer(store, replace(LIMITS, batch_max=7), random=random) as committer:
        receipts = await asyncio.gather(*map(caller, range(50)))
    first = [receipt.transaction.id for receipt in receipts if not receipt.replayed]
    assert len(first) == len(set(first))  # at most one of the two who sent a key was the first
    for user in range(1, 6):
        entries = await history(store, user)
        assert [entry.sequence for entry in entries] == list(range(1, 6))
        assert len({entry.key for entry in entries}) == 5
        account = await store.account(user)
        assert account is not None
        assert account.balance(1) == sum(entry.credits for entry in entries)
    assert await store.app_total(1) == sum(range(1, 26))
    assert {receipt.transaction.id for receipt in receipts} == {
        entry.id for user in range(1, 6) for entry in await history(store, user)
    }


async def test_a_committer_without_a_cache_reads_each_account_again(store: ScriptedStore) -> None:
    async with Committer(store, replace(LIMITS, cache_max=0)) as committer:
        await committer.submit(add(store, key="one"))
        again = await committer.submit(add(store, key="one"))
        assert isinstance(again, Receipt)
        assert again.replayed
        assert not any(shard._accounts or shard._by_key for shard in committer._shards)
