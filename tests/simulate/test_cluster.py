"""Test the replica set: what is confirmed stays, and what is not may be lost."""

import asyncio
from collections.abc import Coroutine
from contextlib import closing
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from credit_models.ledger import Account, Transaction
from credit_models.ledger.records import Kind
from credit_server.store.port import Changes, CommitUnknown, Conflict, Interrupted
from credit_simulate.cluster import Cluster, OpenTransaction
from credit_simulate.loop import VirtualLoop
from credit_simulate.trace import Trace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EMPTY = Account.empty(7)


def _simulate(work: Coroutine[Any, Any, None]) -> None:
    loop = VirtualLoop(Random(0), reorders=False)
    with closing(loop):
        loop.run_until_complete(work)


def _cluster(seed: int = 3) -> Cluster:
    loop = asyncio.get_running_loop()
    return Cluster(Random(seed), Trace(loop.time), lambda: NOW.timestamp() + loop.time())


def _writing(cluster: Cluster, writer: int, before: Account = EMPTY) -> OpenTransaction:
    """Begin a transaction that adds one entry of user 7."""
    sequence = before.revision + 1
    entry = Transaction(
        id=f"{writer:08x}{sequence:016x}",
        user_id=7,
        app_id=1,
        credits=1,
        kind=Kind.ADD,
        key="",
        created_at=NOW,
        created_by=1,
        balance_after=sequence,
        sequence=sequence,
    )
    begun = cluster.begin(writer)
    begun.changes.append(
        Changes(
            accounts=[(before, _account(sequence))],
            transactions=[entry],
            purchases=[],
            totals={1: 1},
            counter_shard=0,
        )
    )
    return begun


def _account(revision: int) -> Account:
    return Account(
        user_id=7,
        balances={1: revision},
        revision=revision,
        created_at=NOW,
        updated_at=NOW,
        created_by=1,
        updated_by=1,
    )


async def _committed(cluster: Cluster, transaction: OpenTransaction) -> None:
    answer = asyncio.get_running_loop().create_future()
    cluster.commit(transaction, answer)
    await answer


def test_a_confirmed_write_survives_a_change_of_primary() -> None:
    async def work() -> None:
        cluster = _cluster()
        await _committed(cluster, _writing(cluster, 1))
        cluster.fail_over()
        await asyncio.sleep(10)
        assert await cluster.primary.app_total(1) == await cluster.majority.app_total(1) == 1
        assert cluster.log_end == 1

    _simulate(work())


def test_an_unconfirmed_write_is_unknown_and_may_be_lost() -> None:
    async def work() -> None:
        left = set()
        for seed in range(20):
            cluster = _cluster(seed)
            answer = asyncio.get_running_loop().create_future()
            cluster.commit(_writing(cluster, 1), answer)
            assert await cluster.primary.app_total(1) == 1
            assert await cluster.majority.app_total(1) == 0
            cluster.fail_over()
            with pytest.raises(CommitUnknown):
                await answer
            await asyncio.sleep(10)
            left.add(await cluster.majority.app_total(1))
        assert left == {0, 1}

    _simulate(work())


def test_what_an_isolated_primary_writes_is_lost() -> None:
    async def work() -> None:
        cluster = _cluster()
        cluster.isolate()
        answer = asyncio.get_running_loop().create_future()
        cluster.commit(_writing(cluster, 1), answer)
        await asyncio.sleep(10)
        assert not answer.done()
        assert await cluster.primary.app_total(1) == 1
        cluster.fail_over()
        with pytest.raises(CommitUnknown):
            await answer
        await asyncio.sleep(10)
        assert await cluster.primary.app_total(1) == await cluster.majority.app_total(1) == 0

    _simulate(work())


def test_reads_after_a_failover_reach_either_primary() -> None:
    async def work() -> None:
        totals = set()
        for seed in range(20):
            cluster = _cluster(seed)
            await _committed(cluster, _writing(cluster, 1))
            cluster.fail_over()
            await asyncio.sleep(max(0.0, cluster.stale_until - cluster.time() - 0.001))
            totals.add(tuple([await cluster.readable().app_total(1) for _ in range(10)]))
            await asyncio.sleep(1)
            assert await cluster.readable().app_total(1) == 1
        assert any(0 in read and 1 in read for read in totals)

    _simulate(work())


def test_a_transaction_of_an_earlier_primary_or_session_number_has_ended() -> None:
    async def work() -> None:
        cluster = _cluster()
        before, late = _writing(cluster, 1), _writing(cluster, 2)
        cluster.begin(2)
        with pytest.raises(Interrupted):
            await _committed(cluster, late)
        cluster.fail_over()
        await asyncio.sleep(10)
        with pytest.raises(Interrupted):
            await _committed(cluster, before)

    _simulate(work())


def test_writes_of_one_revision_conflict() -> None:
    async def work() -> None:
        cluster = _cluster()
        first, second = _writing(cluster, 1), _writing(cluster, 2)
        await _committed(cluster, first)
        with pytest.raises(Conflict):
            await _committed(cluster, second)

    _simulate(work())


def test_an_abandoned_transaction_blocks_its_users_until_its_session_goes_on() -> None:
    async def work() -> None:
        cluster = _cluster()
        cluster.leave_open(_writing(cluster, 1))
        with pytest.raises(Conflict, match="another transaction"):
            await _committed(cluster, _writing(cluster, 2))
        cluster.begin(1)
        await _committed(cluster, _writing(cluster, 2))

    _simulate(work())
