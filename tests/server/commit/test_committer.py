"""Test group commit on a store that fails on demand: no write is lost or applied twice."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from credit_models.ledger import (
    GENESIS,
    Command,
    CreditsLimitExceeded,
    InsufficientCredits,
    InvariantViolated,
    KeyReused,
    Receipt,
)
from credit_server.commit import (
    ClockSkewed,
    Committer,
    NotCommitted,
    Overloaded,
    ResultUnknown,
    Stopping,
    WriteResult,
)
from credit_server.store.port import (
    CommitUnknown,
    Conflict,
    Interrupted,
    Rejected,
    StoreUnavailable,
    Unreadable,
)
from structlog.testing import capture_logs

from tests.server.clocks import LIMIT_SECONDS, NOON, Clocks
from tests.server.commit.recording_observer import RecordingObserver
from tests.server.commit.scripted_store import LIMITS, ScriptedStore, add, history, use


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


async def test_a_chain_of_hashes_begins_only_if_it_may_and_then_continues(
    store: ScriptedStore,
) -> None:
    for genesis in (None, GENESIS, None):
        async with Committer(store, LIMITS, genesis=genesis) as committer:
            await asyncio.gather(*(committer.submit(add(store)) for _ in range(2)))
    entries = await history(store)
    assert [bool(entry.hash) for entry in entries] == [False, False, True, True, True, True]
    assert [entry.previous_hash for entry in entries[2:]] == [
        GENESIS,
        *(entry.hash for entry in entries[2:-1]),
    ]


async def test_concurrent_writes_share_a_transaction(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as committer:
        await asyncio.gather(*(committer.submit(add(store)) for _ in range(100)))
    assert store.script.batches == [100]
    assert [entry.sequence for entry in await history(store)] == list(range(1, 101))


async def test_a_batch_is_never_larger_than_allowed(store: ScriptedStore) -> None:
    async with Committer(store, replace(LIMITS, batch_max=40)) as committer:
        await asyncio.gather(*(committer.submit(add(store)) for _ in range(100)))
    assert store.script.batches == [40, 40, 20]


async def test_a_repeated_key_is_answered_from_memory(store: ScriptedStore) -> None:
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


async def test_a_replay_is_found_even_if_the_limit_is_now_lower(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as committer:
        first = await committer.submit(add(store, 5, key="k"))
    async with Committer(store, LIMITS) as another:
        again = await another.submit(replace(add(store, 5, key="k"), credits_max=4))
        new = await another.submit(replace(add(store, 5, key="l"), credits_max=4))
    assert isinstance(first, Receipt)
    assert again == Receipt(transaction=first.transaction, replayed=True)
    assert new == CreditsLimitExceeded(credits=5, limit=4)


async def test_a_replay_is_found_even_if_the_balance_is_now_too_low(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as committer:
        await committer.submit(add(store, 5))
        first = await committer.submit(use(store, 5, key="k"))
    async with Committer(store, LIMITS) as another:
        again = await another.submit(use(store, 5, key="k"))
    assert isinstance(first, Receipt)
    assert again == Receipt(transaction=first.transaction, replayed=True)


async def test_a_refusal_never_rests_on_a_cached_balance(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as here, Committer(store, LIMITS) as there:
        await here.submit(add(store, 1))
        await there.submit(add(store, 99))  # `here` has cached a balance of 1
        receipt = await here.submit(use(store, 100))
    assert isinstance(receipt, Receipt)
    assert receipt.transaction.balance_after == 0


async def test_a_success_never_rests_on_a_cached_balance(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as here, Committer(store, LIMITS) as there:
        await here.submit(add(store, 100))
        await there.submit(use(store, 100))  # `here` has cached a balance of 100
        refusal = await here.submit(use(store, 100))
    assert refusal == InsufficientCredits(available=0, required=100)


async def test_a_conflict_is_retried(store: ScriptedStore) -> None:
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


async def test_an_unknown_commit_that_succeeded_is_recognised_and_is_not_a_replay(
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


async def test_an_unknown_commit_that_failed_is_retried(store: ScriptedStore) -> None:
    store.script.before = [CommitUnknown("the connection broke")]
    async with Committer(store, LIMITS) as committer:
        receipt = await committer.submit(add(store, 5))
    assert isinstance(receipt, Receipt)
    assert await history(store) == [receipt.transaction]


async def test_a_commit_that_stays_unknown_is_not_reported_as_failed(store: ScriptedStore) -> None:
    store.script.after = [CommitUnknown("no answer")]
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
    store.script.after = [CommitUnknown("no answer")]
    store.script.looked_up_fails = [RuntimeError("a bug")]
    async with Committer(store, LIMITS) as committer:
        with pytest.raises(ResultUnknown):
            await committer.submit(add(store, 5))
    assert len(await history(store)) == 1


async def test_an_unreachable_store_is_reported_without_a_retry(store: ScriptedStore) -> None:
    store.script.before = [StoreUnavailable("away")]
    async with Committer(store, LIMITS) as committer:
        with pytest.raises(NotCommitted):
            await committer.submit(add(store))
        assert store.script.batches == [1]
        assert isinstance(await committer.submit(add(store)), Receipt)


async def test_the_log_line_of_a_batch_names_all_its_requests(store: ScriptedStore) -> None:
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


async def test_the_log_lines_of_a_bad_command_name_only_its_request(
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


async def test_one_bad_command_does_not_fail_its_batch(store: ScriptedStore) -> None:
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


async def test_a_write_over_the_queue_limit_is_rejected_without_effect(
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


async def test_a_write_cancelled_in_the_queue_has_no_effect(
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


async def test_a_cancelled_caller_does_not_disturb_its_batch(store: ScriptedStore) -> None:
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


async def test_the_outcome_of_a_cancelled_call_goes_to_its_callback(
    store: ScriptedStore,
) -> None:
    store.script.hold = asyncio.Event()
    outcomes: list[WriteResult] = []
    dropped: list[WriteResult] = []
    async with Committer(store, replace(LIMITS, shards=1)) as committer:
        leaving = asyncio.create_task(committer.submit(add(store), after=outcomes.append))
        await store.script.held.wait()
        waiting = asyncio.create_task(committer.submit(add(store), after=dropped.append))
        await asyncio.sleep(0)
        leaving.cancel()
        waiting.cancel()
        await asyncio.wait([leaving, waiting])
        assert outcomes == dropped == []
        store.script.hold.set()
    (written,) = await history(store)
    assert outcomes == [Receipt(transaction=written, replayed=False)]
    assert dropped == [None]


async def test_an_answer_that_arrives_as_the_call_is_cancelled_goes_to_the_callback(
    store: ScriptedStore,
) -> None:
    class Leaving(RecordingObserver):
        def batch_settled(self, size: int, seconds: float, attempts: int) -> None:
            caller.cancel()  # the caller has its answer, but has not run yet

    outcomes: list[WriteResult] = []
    async with Committer(store, LIMITS, observer=Leaving()) as committer:
        caller = asyncio.create_task(committer.submit(add(store), after=outcomes.append))
        await asyncio.wait([caller])
    assert caller.cancelled()
    (written,) = await history(store)
    assert outcomes == [Receipt(transaction=written, replayed=False)]


async def test_the_callback_of_a_call_that_was_not_cancelled_is_not_called(
    store: ScriptedStore,
) -> None:
    outcomes: list[WriteResult] = []
    async with Committer(store, LIMITS) as committer:
        assert isinstance(await committer.submit(add(store), after=outcomes.append), Receipt)
    assert outcomes == []


@pytest.mark.parametrize(
    ("error", "reported_as"),
    [(StoreUnavailable("away"), NotCommitted), (CommitUnknown("unknown"), ResultUnknown)],
    ids=["away", "unknown"],
)
async def test_the_failure_of_a_cancelled_call_goes_to_its_callback(
    store: ScriptedStore, error: Exception, reported_as: type[Exception]
) -> None:
    store.script.hold = asyncio.Event()
    store.script.before = [error]
    outcomes: list[WriteResult] = []
    async with Committer(store, replace(LIMITS, retry_seconds=0)) as committer:
        leaving = asyncio.create_task(committer.submit(add(store), after=outcomes.append))
        await store.script.held.wait()
        leaving.cancel()
        store.script.hold.set()
    assert [type(outcome) for outcome in outcomes] == [reported_as]


async def test_a_callback_that_fails_does_not_end_the_shard(store: ScriptedStore) -> None:
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


async def test_cancelled_calls_do_not_count_as_waiting(store: ScriptedStore) -> None:
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


async def test_a_full_shard_does_not_reject_the_users_of_another(
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


async def test_a_contended_batch_fails_as_a_whole_within_its_time_limit(
    store: ScriptedStore,
) -> None:
    store.script.before = [Conflict("busy")] * 10_000
    limits = replace(LIMITS, retry_seconds=0.02, backoff_max_seconds=0.001)
    async with Committer(store, limits) as committer:
        results = await asyncio.gather(
            *(committer.submit(add(store)) for _ in range(64)), return_exceptions=True
        )
    assert {type(result) for result in results} == {NotCommitted}
    # Each part is tried at least once by itself; no part gets the whole time limit again.
    assert len(store.script.batches) < 200


@pytest.mark.parametrize(
    "error", [RuntimeError("a fault"), Rejected("a fault")], ids=["bug", "rejected"]
)
async def test_an_unexpected_error_of_the_store_fails_the_batch_after_a_few_attempts(
    store: ScriptedStore, error: Exception
) -> None:
    store.script.write = [error] * 10_000
    with capture_logs():  # instead of rendering the variables of each traceback
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


async def test_a_document_that_cannot_be_changed_fails_the_calls_that_need_it_and_no_others(
    store: ScriptedStore,
) -> None:
    """The store reports it when the transaction is committed, because its commands wait until then.

    It was taken for a commit whose result is unknown, and held up the whole batch.
    """
    store.script.unreadable = frozenset({7})
    with capture_logs():
        async with Committer(store, replace(LIMITS, shards=1)) as committer:
            results = await asyncio.gather(
                *(committer.submit(add(store, user=n)) for n in range(1, 65)),
                return_exceptions=True,
            )
    failed = {n for n, result in enumerate(results, 1) if isinstance(result, Exception)}
    assert failed == {7}
    assert isinstance(results[6], Unreadable)


async def test_an_unexpected_error_of_a_commit_is_not_reported_as_failed(
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


async def test_an_unexpected_error_of_a_commit_is_resolved_by_a_retry(store: ScriptedStore) -> None:
    store.script.after = [RuntimeError("the answer cannot be decoded")]
    async with Committer(store, LIMITS) as committer:
        receipt = await committer.submit(add(store, 5))
    assert isinstance(receipt, Receipt)
    assert not receipt.replayed
    assert await history(store) == [receipt.transaction]


class _Broken(RecordingObserver):
    """An observer in which one method raises."""

    def __init__(self, name: str) -> None:
        super().__init__()
        setattr(self, name, self._fail)

    def _fail(self, *_: object) -> None:
        raise RuntimeError("a bug")


async def test_a_shard_that_ends_with_a_bug_answers_waiting_calls_and_accepts_no_more(
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


async def test_a_shard_that_fails_as_it_takes_a_batch_answers_waiting_calls(
    store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise RuntimeError("a bug")

    estimate = "credit_server.admission.load.LatencyEstimate.seconds_until_settled"
    monkeypatch.setattr(estimate, fail)
    committer = Committer(store, replace(LIMITS, shards=1))
    await committer.__aenter__()
    for result in await asyncio.gather(
        *(committer.submit(add(store), seconds_left=9) for _ in range(3)), return_exceptions=True
    ):
        assert isinstance(result, Stopping)
    with pytest.raises(RuntimeError, match="a bug"):
        await committer.__aexit__(None, None, None)
    assert await history(store) == []


async def test_a_shard_that_is_cancelled_during_a_commit_reports_the_result_as_unknown(
    store: ScriptedStore,
) -> None:
    shards: list[asyncio.Task[None]] = []

    def start(part: str, body: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        shards.append(asyncio.create_task(body, name=part))
        return shards[-1]

    store.script.hold = asyncio.Event()
    committer = Committer(store, replace(LIMITS, shards=1), start=start)
    await committer.__aenter__()
    running = asyncio.create_task(committer.submit(add(store)))
    await store.script.held.wait()
    waiting = asyncio.create_task(committer.submit(add(store)))
    await asyncio.sleep(0)
    shards[0].cancel()
    with pytest.raises(ResultUnknown):
        await running
    with pytest.raises(Stopping):
        await waiting


async def test_a_skewed_clock_rejects_writes_until_it_agrees_again(
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


async def test_a_clock_that_jumps_while_a_write_waits_rejects_it(store: ScriptedStore) -> None:
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
    ahead, correct = Clocks(), Clocks()
    ahead.wall += 3600  # not compared with the store, as by a server of an older release
    clock = correct.clock()
    clock.compare(correct.reading())
    async with (
        Committer(store, LIMITS, clock=ahead.clock()) as wrong,
        Committer(store, LIMITS, clock=clock) as right,
    ):
        await right.submit(add(store))
        await wrong.submit(add(store))
        await right.submit(add(store))
        correct.advance(60)
        await right.submit(add(store))
    times = [(entry.created_at - NOON).total_seconds() for entry in await history(store)]
    assert times == [0, 3600, pytest.approx(LIMIT_SECONDS, abs=0.002), 60]


async def test_lost_connections_do_not_split_a_batch(store: ScriptedStore) -> None:
    store.script.before = [Interrupted("the primary is gone")] * 6
    async with Committer(store, LIMITS) as committer:
        await asyncio.gather(*(committer.submit(add(store)) for _ in range(8)))
    assert store.script.batches == [8] * 7


async def test_a_shard_survives_a_thousand_conflicts(store: ScriptedStore) -> None:
    store.script.before = [Conflict("busy")] * 1100
    limits = replace(LIMITS, retry_seconds=60, backoff_max_seconds=0.000001)
    async with Committer(store, limits) as committer:
        assert isinstance(await committer.submit(add(store)), Receipt)


async def test_stopping_settles_waiting_writes_and_accepts_no_more(store: ScriptedStore) -> None:
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
async def test_no_mixture_of_failures_loses_or_doubles_a_write(
    store: ScriptedStore, seed: int
) -> None:
    random = Random(seed)
    failures: list[type[Exception]] = [Conflict, CommitUnknown, Interrupted, StoreUnavailable]
    for errors in (store.script.before, store.script.after, store.script.write):
        for _ in range(60):
            kinds = failures if errors is not store.script.after else [CommitUnknown]
            errors.append(random.choice(kinds)("scripted") if random.random() < 0.3 else None)

    async def caller(number: int) -> Receipt:
        key = f"key-{number % 25}"  # two callers send each key at the same time
        credits_, user = 1 + number % 25, 1 + number % 5
        while True:
            try:
                result = await committer.submit(add(store, credits_, user=user, key=key))
            except (NotCommitted, ResultUnknown):
                continue
            assert isinstance(result, Receipt)
            return result

    async with Committer(
        store, replace(LIMITS, batch_max=7, wait_seconds_max=60), random=random
    ) as committer:
        receipts = await asyncio.gather(*map(caller, range(50)))
    first = [receipt.transaction.id for receipt in receipts if not receipt.replayed]
    assert len(first) == len(set(first))  # at most one of the two callers of a key got a new entry
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
        writers = [shard._writer for shard in committer._shards]
        assert not any(writer._accounts or writer._by_key for writer in writers)
