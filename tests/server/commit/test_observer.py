"""Test what a committer reports to its observer."""

import asyncio

import pytest
from credit_server.commit import Committer, Stopping
from credit_server.store.port import CommitUnknown, Conflict

from tests.server.commit.recording_observer import RecordingObserver
from tests.server.commit.scripted_store import LIMITS, ScriptedStore, add


async def test_each_batch_runs_in_the_observers_context_manager() -> None:
    store, observer = ScriptedStore(), RecordingObserver()
    store.script.hold = asyncio.Event()
    async with Committer(store, LIMITS, observer=observer) as committer:
        tasks = [
            asyncio.create_task(committer.submit(add(store), context))
            for context in ("one", None, "three")
        ]
        await store.script.held.wait()
        assert observer.contexts == [["one", None, "three"]]
        assert (observer.open_batches, committer.waiting) == (1, 3)
        store.script.hold.set()
        await asyncio.gather(*tasks)
    assert observer.settled == [(3, 1)]
    assert (observer.open_batches, committer.waiting) == (0, 0)
    assert observer.events == []


async def test_conflicts_retries_and_unknown_commits_are_reported() -> None:
    store, observer = ScriptedStore(), RecordingObserver()
    store.script.before = [Conflict("busy"), CommitUnknown("no answer")]
    async with Committer(store, LIMITS, observer=observer) as committer:
        await committer.submit(add(store))
    assert observer.events == ["conflict", "retried", "commit_unknown", "retried"]
    assert observer.settled == [(1, 3)]


async def test_a_batch_that_fails_is_reported_as_settled() -> None:
    store, observer = ScriptedStore(), RecordingObserver()
    store.script.write = [ZeroDivisionError()]
    async with Committer(store, LIMITS, observer=observer) as committer:
        with pytest.raises(ZeroDivisionError):
            await committer.submit(add(store))
    assert observer.settled == [(1, 1)]
    assert observer.open_batches == 0


async def test_a_write_after_the_stop_is_reported_as_shed() -> None:
    store, observer = ScriptedStore(), RecordingObserver()
    committer = Committer(store, LIMITS, observer=observer)
    async with committer:
        pass
    with pytest.raises(Stopping):
        await committer.submit(add(store))
    assert observer.sheds == ["stopping"]
