"""Test which policies of apps a batch is decided with, and for how long they are kept."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from credit_models.ledger import (
    Accepted,
    CapExceeded,
    Caps,
    Command,
    Outcome,
    Policy,
    Replayed,
)
from credit_server.commit import Committer
from credit_server.commit.batch import BatchWriter
from credit_server.commit.policies import PolicyCache
from credit_server.store.memory import MemoryStore
from credit_server.store.port import (
    CommitUnknown,
    Conflict,
    Interrupted,
    StoreUnavailable,
)

from tests.server.clocks import NOON, Clocks
from tests.server.commit.scripted_store import LIMITS, ScriptedStore, add, use

CAPPED = Policy(caps=Caps(hour=4))


async def change(store: MemoryStore, policy: Policy, *, app: int = 1) -> None:
    """Store another policy, as another server does."""
    stored = await store.latest_policy(app)
    changed = replace(
        stored, policy=policy, revision=stored.revision + 1, updated_at=NOON, updated_by=1
    )
    await store.set_policy(changed)


async def applied(
    store: MemoryStore, cache: PolicyCache, commands: Sequence[Command]
) -> Sequence[Command]:
    """Return commands with their policies, in a transaction that is committed."""
    async with store.begin() as transaction:
        policies = await cache.read(transaction, commands)
        await transaction.commit()
    cache.keep(policies)
    return policies.apply(commands) if policies.by_app else commands


async def test_a_policy_applies_within_seconds_of_its_change() -> None:
    store, clocks = MemoryStore(), Clocks()
    cache = PolicyCache(monotonic=lambda: clocks.monotonic)
    commands: Sequence[Command] = [use(store, 5), replace(use(store, 5), app_id=2)]
    assert await applied(store, cache, commands) is commands
    await change(store, CAPPED, app=2)
    clocks.advance(3.9)
    assert await applied(store, cache, commands) is commands
    clocks.advance(0.2)
    for _ in range(2):
        found = await applied(store, cache, commands)
        assert list(found) == [commands[0], replace(commands[1], policy=CAPPED)]


async def test_a_write_is_decided_with_the_policy_of_its_app() -> None:
    store = MemoryStore()
    await change(store, CAPPED)
    async with Committer(store, LIMITS) as committer:
        await committer.submit(add(store, 10))
        await committer.submit(use(store, 4))
        assert isinstance(await committer.submit(use(store, 1)), CapExceeded)


async def test_the_policies_of_a_committer_age_by_its_clock() -> None:
    store, clocks = MemoryStore(), Clocks()
    async with Committer(store, LIMITS, clock=clocks.clock()) as committer:
        await committer.submit(add(store, 10))
        await change(store, CAPPED)
        assert not isinstance(await committer.submit(use(store, 5)), CapExceeded)
        clocks.advance(5)
        assert isinstance(await committer.submit(use(store, 5)), CapExceeded)


def batches(store: MemoryStore, clocks: Clocks) -> BatchWriter:
    return BatchWriter(
        store.writer(),
        PolicyCache(monotonic=lambda: clocks.monotonic),
        clock=clocks.clock(),
        random=Random(7),
        cache_max=10,
    )


async def decide(writer: BatchWriter, command: Command) -> Outcome:
    (outcome,) = await writer.commit([command], verify_first=False)
    return outcome


@pytest.mark.parametrize(
    "error", [Conflict("no"), Interrupted("no"), StoreUnavailable("no"), CommitUnknown("no")]
)
async def test_a_policy_is_not_kept_if_the_commit_fails(error: Exception) -> None:
    """An old primary returns old policies, and cannot commit."""
    store = ScriptedStore()
    await change(store, CAPPED)
    writer = batches(store, Clocks())
    await decide(writer, add(store, 10))
    writer = batches(store, Clocks())  # its caches are empty
    store.script.before = [error]
    with pytest.raises(type(error)):
        await decide(writer, use(store, 5))
    await change(store, Policy())
    assert isinstance(await decide(writer, use(store, 5)), Accepted)


async def test_a_slow_batch_does_not_replace_a_newer_policy() -> None:
    store, clocks = MemoryStore(), Clocks()
    cache = PolicyCache(monotonic=lambda: clocks.monotonic)
    commands = [use(store, 5)]
    async with store.begin() as slow:
        old = await cache.read(slow, commands)
        clocks.advance(0.1)
        await change(store, CAPPED)
        await applied(store, cache, commands)
        await slow.commit()
    cache.keep(old)
    assert await applied(store, cache, commands) == [replace(commands[0], policy=CAPPED)]


async def test_a_replay_reads_no_policy() -> None:
    """A batch of replays commits nothing, so each one would read the policy again."""
    store, clocks = ScriptedStore(), Clocks()
    writer = batches(store, clocks)
    await decide(writer, add(store, 10, key="k"))
    assert store.script.policies_read == 1
    clocks.advance(5)
    for _ in range(3):
        assert isinstance(await decide(writer, add(store, 10, key="k")), Replayed)
    assert store.script.policies_read == 1
