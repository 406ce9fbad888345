"""Batches as Prometheus sees them."""

import asyncio
from collections import Counter

from credit_models import CreditRequest
from credit_server.commit import CommitLimits
from credit_server.telemetry import Telemetry
from credit_testing.http2_client import Wire
from credit_testing.stores import HeldStore

from tests.server.telemetry.observed import Observed, observed

ADD = CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)


async def test_the_queue_and_what_is_refused_at_its_end_are_seen() -> None:
    store = HeldStore()
    limits = CommitLimits(lanes=1, waiting_max=2)
    async with (
        observed(Telemetry(), store, limits=limits) as server,
        Wire.connect(server.port) as wire,
    ):
        assert server.value("credit_shed_total", cause="queue_full") == 0
        calls = [asyncio.create_task(wire.call("AddCredits", ADD)) for _ in range(3)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert server.value("credit_queue_depth") == 2
        assert server.value("credit_shed_total", cause="queue_full") == 1
        store.released.set()
        await asyncio.gather(*calls)
        await server.quiet()
        assert server.value("credit_queue_depth") == 0


async def test_a_batch_has_a_size_and_a_time(server: Observed, wire: Wire) -> None:
    await wire.call("AddCredits", ADD)
    await server.quiet()
    assert server.value("credit_batch_size_sum") == 1
    assert server.value("credit_batch_seconds_count") == 1


async def test_conflicts_repetitions_and_unknown_commits_are_counted(server: Observed) -> None:
    server.telemetry.commits.conflict()
    server.telemetry.commits.retried()
    server.telemetry.commits.commit_unknown()
    for name in ("conflicts", "retries", "commit_unknown"):
        assert server.value(f"credit_{name}_total") == 1


async def test_what_others_refuse_is_added_to_what_the_queue_refuses(server: Observed) -> None:
    refused = Counter({"queue_full": 2, "calls": 3})
    server.telemetry.commits.watch_shed(lambda: refused)
    server.telemetry.commits.shed("queue_full")
    assert server.value("credit_shed_total", cause="queue_full") == 3
    assert server.value("credit_shed_total", cause="calls") == 3
    refused["calls"] += 1
    assert server.value("credit_shed_total", cause="calls") == 4
    assert server.value("credit_shed_total", cause="stopping") == 0
