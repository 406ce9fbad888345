"""Test the sum of the workers' metrics: what is added, and that totals never decrease."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from credit_server.telemetry import workers
from credit_server.telemetry.workers import SummedMetrics, WorkerMetrics, exported
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Process:
    """The metrics of a worker, and the supervisor's view of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ["code"], registry=self.registry)
        self.open = Gauge("credit_connections", "Open.", registry=self.registry)
        self.healthy = Gauge("credit_store_healthy", "Healthy.", registry=self.registry)
        self.lag = Gauge("credit_settle_lag_seconds", "Lag.", registry=self.registry)
        self.lasted = Histogram("lasted", "Durations.", buckets=(1,), registry=self.registry)
        ours, its = socket.socketpair()
        self.view = WorkerMetrics(ours)
        self._running = ExitStack()
        self._running.enter_context(exported(self.registry, its))
        self.end = self._running.close


@pytest.fixture
def summed() -> SummedMetrics:
    return SummedMetrics()


@pytest.fixture
def pair(summed: SummedMetrics) -> Iterator[tuple[Process, Process]]:
    processes = Process(), Process()
    for process in processes:
        summed.add(process.view)
    yield processes
    for process in processes:
        process.end()
        process.view.close()


def _value(summed: SummedMetrics, name: str, **labels: str) -> float | None:
    return summed.registry.get_sample_value(name, labels)


def test_counts_and_histograms_of_all_workers_are_added(
    summed: SummedMetrics, pair: tuple[Process, Process]
) -> None:
    first, second = pair
    first.calls.labels("OK").inc(2)
    second.calls.labels("OK").inc(3)
    second.calls.labels("Aborted").inc()
    first.lasted.observe(0.5)
    second.lasted.observe(2)
    assert _value(summed, "calls_total", code="OK") == 5
    assert _value(summed, "calls_total", code="Aborted") == 1
    assert _value(summed, "lasted_bucket", le="1.0") == 1
    assert _value(summed, "lasted_bucket", le="+Inf") == 2
    assert _value(summed, "lasted_sum") == 2.5


def test_a_gauge_is_the_sum_or_the_worst_value(
    summed: SummedMetrics, pair: tuple[Process, Process]
) -> None:
    first, second = pair
    for process in pair:
        process.open.set(7)
    first.healthy.set(1)
    assert _value(summed, "credit_connections") == 14
    assert _value(summed, "credit_store_healthy") == 0
    second.healthy.set(1)
    assert _value(summed, "credit_store_healthy") == 1
    # While the store is away, the lag grows in each worker.
    first.lag.set(60)
    second.lag.set(70)
    assert _value(summed, "credit_settle_lag_seconds") == 70


def test_a_worker_that_has_ended_still_counts_but_has_nothing_open(
    summed: SummedMetrics, pair: tuple[Process, Process]
) -> None:
    first, second = pair
    first.calls.labels("OK").inc(2)
    first.open.set(7)
    second.open.set(1)
    first.end()  # without a scrape before
    summed.end(first.view)
    assert _value(summed, "calls_total", code="OK") == 2
    assert _value(summed, "credit_connections") == 1


def test_a_worker_that_was_killed_counts_as_at_the_latest_scrape(
    summed: SummedMetrics, pair: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = pair
    first.calls.labels("OK").inc(2)
    assert _value(summed, "calls_total", code="OK") == 2
    first.calls.labels("OK").inc(2)
    monkeypatch.setattr(workers, "encoded", lambda _: b"[]")  # it cannot send its latest counts
    summed.end(first.view)
    assert _value(summed, "calls_total", code="OK") == 2


def test_the_latest_snapshot_stands_in_for_a_worker_that_does_not_answer(
    summed: SummedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_ANSWER_SECONDS_MAX", 0.01)
    ours, its = socket.socketpair()
    view = WorkerMetrics(ours)
    summed.add(view)
    assert _value(summed, "calls_total", code="OK") is None
    registry = CollectorRegistry()
    calls = Counter("calls", "Calls.", ["code"], registry=registry)
    calls.labels("OK").inc()
    monkeypatch.setattr(workers, "_ANSWER_SECONDS_MAX", 60.0)
    with exported(registry, its):  # it answers the late request first
        assert _value(summed, "calls_total", code="OK") == 1
        calls.labels("OK").inc()
        assert _value(summed, "calls_total", code="OK") == 2
    view.close()


async def test_metrics_can_be_read_while_the_event_loop_is_blocked(
    summed: SummedMetrics, pair: tuple[Process, Process]
) -> None:
    pair[0].calls.labels("OK").inc()
    assert b'calls_total{code="OK"} 1.0' in await asyncio.to_thread(
        generate_latest, summed.registry
    )
    assert b'calls_total{code="OK"} 1.0' in generate_latest(summed.registry)  # on the loop


def test_the_supervisor_s_own_process_and_its_workers_are_exported(summed: SummedMetrics) -> None:
    summed.watch_serving(lambda: 3)
    summed.replaced.inc()
    assert _value(summed, "credit_workers") == 3
    assert _value(summed, "credit_workers_replaced_total") == 1
    assert _value(summed, "process_resident_memory_bytes")
