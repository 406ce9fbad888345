"""What an observer is told of batches."""

import asyncio

import pytest
from credit_server.commit import Committer, Stopping
from credit_server.store.port import CommitUnknown, Conflict

from tests.server.commit.test_committer import LIMITS, ScriptedStore, add
from tests.server.commit.watching import Watching


async def test_each_batch_is_enclosed_and_told_with_its_contexts() -> None:
    store, watching = ScriptedStore(), Watching()
    store.script.hold = asyncio.Event()
    async with Committer(store, LIMITS, observer=watching) as committer:
        tasks = [
            asyncio.create_task(committer.submit(add(store), context))
            for context in ("one", None, "three")
        ]
        await store.script.held.wait()
        assert watching.contexts == [["one", None, "three"]]
        assert (watching.open_batches, committer.waiting) == (1, 3)
        store.script.hold.set()
        await asyncio.gather(*tasks)
    assert watching.settled == [(3, 1)]
    assert (watching.open_batches, committer.waiting) == (0, 0)
    assert watching.told == []


async def test_conflicts_repetitions_and_unknown_commits_are_told() -> None:
    store, watching = ScriptedStore(), Watching()
    store.script.before = [Conflict("busy"), CommitUnknown("no word")]
    async with Committer(store, LIMITS, observer=watching) as committer:
        await committer.submit(add(store))
    assert watching.told == ["conflict", "retried", "commit_unknown", "retried"]
    assert watching.settled == [(1, 3)]


async def test_a_batch_that_fails_is_told_too() -> None:
    store, watching = ScriptedStore(), Watching()
    store.script.write = [ZeroDivisionError()]
    async with Committer(store, LIMITS, observer=watching) as committer:
        with pytest.raises(ZeroDivisionError):
            await committer.submit(add(store))
    assert watching.settled == [(1, 1)]
    assert watching.open_batches == 0


async def test_who_comes_too_late_is_told() -> None:
    store, watching = ScriptedStore(), Watching()
    committer = Committer(store, LIMITS, observer=watching)
    async with committer:
        pass
    with pytest.raises(Stopping):
        await committer.submit(add(store))
    assert watching.sheds == ["stopping"]
