"""The metrics of all workers, added up.

A worker answers each request on a socket of its own with a snapshot of its metrics, in a thread, so
that they can be read while its event loop is blocked. The supervisor adds the snapshots up at each
scrape, and keeps the counts of workers that have ended, so that counters never decrease.

The multiprocess mode of prometheus-client is not used. It writes each value of each process to a
memory-mapped file, in a folder that must be emptied by other means. It drops the collectors of
processes and of garbage collection. And it does not support metrics that are read from functions,
such as `credit_shed_total` and `credit_connections`.
"""

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

# The number of the request that a snapshot answers, and its length in bytes.
_HEAD = struct.Struct("!II")
_FINAL = 0
# How long a scrape waits for a worker. Its latest snapshot stands in for one that is late.
_ANSWER_SECONDS_MAX = 1.0
_READ_BYTES = 1 << 18

# The types of metrics in prometheus-client whose values never decrease.
_CUMULATIVE = frozenset({"counter", "histogram", "summary"})
# The gauges whose lowest or highest value describes the server. Other gauges are added up.
_LOWEST = frozenset(
    {
        "credit_store_healthy",
        "credit_certificate_days_left",
        "process_max_fds",
        "process_start_time_seconds",
    }
)
_HIGHEST = frozenset(
    {
        "credit_build",
        "credit_settle_lag_seconds",
        "credit_webhook_dead_letters",
        "credit_webhook_pending_seconds",
    }
)

_Labels = tuple[tuple[str, str], ...]
# The samples of a family by name and labels.
_Samples = dict[tuple[str, _Labels], float]


class Family:
    """One metric with all its samples."""

    __slots__ = ("documentation", "kind", "name", "samples")

    def __init__(self, name: str, documentation: str, kind: str, samples: _Samples) -> None:
        self.name = name
        self.documentation = documentation
        self.kind = kind
        self.samples = samples

    def add(self, other: "Family") -> None:
        """Add the samples of another process."""
        for key, value in other.samples.items():
            if key not in self.samples:
                self.samples[key] = value
            elif self.name in _LOWEST:
                self.samples[key] = min(value, self.samples[key])
            elif self.name in _HIGHEST:
                self.samples[key] = max(value, self.samples[key])
            else:
                self.samples[key] += value

    def copy(self) -> "Family":
        """Return a copy, to which other families can be added."""
        return Family(self.name, self.documentation, self.kind, dict(self.samples))

    def metric(self) -> Metric:
        """Return the family as prometheus-client renders it."""
        metric = Metric(self.name, self.documentation, self.kind)
        for (name, labels), value in self.samples.items():
            metric.add_sample(name, dict(labels), value)
        return metric


Snapshot = dict[str, Family]
"""The metrics of a process at one moment, by name."""


def snapshot(registry: Collector) -> Snapshot:
    """Return the current metrics of a registry, in any thread."""
    found: Snapshot = {}
    for metric in registry.collect():
        samples = {
            (sample.name, tuple(sample.labels.items())): sample.value for sample in metric.samples
        }
        found[metric.name] = Family(metric.name, metric.documentation, metric.type, samples)
    return found


def encoded(metrics: Snapshot) -> bytes:
    """Return a snapshot as JSON."""
    return json.dumps(
        [
            (family.name, family.documentation, family.kind, _rows(family.samples))
            for family in metrics.values()
        ]
    ).encode()


def _rows(samples: _Samples) -> list[tuple[str, _Labels, float]]:
    return [(name, labels, value) for (name, labels), value in samples.items()]


def decoded(data: bytes | bytearray) -> Snapshot:
    """Return the snapshot that was encoded."""
    found: Snapshot = {}
    for name, documentation, kind, rows in json.loads(data):
        samples = {
            (sample, tuple((label, text) for label, text in labels)): float(value)
            for sample, labels, value in rows
        }
        found[name] = Family(name, documentation, kind, samples)
    return found


@contextmanager
def exported(registry: CollectorRegistry, to_supervisor: socket.socket) -> Iterator[None]:
    """Answer the supervisor's requests for a worker's metrics within this context.

    At its end the supervisor gets the final metrics.

    Args:
        registry: The worker's metrics.
        to_supervisor: The worker's end of the socket; it is closed at the end.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call] # see `telemetry.exposition`
    to_supervisor.setblocking(True)
    sending = Lock()

    def send(request: int) -> None:
        data = encoded(snapshot(registry))
        with sending:
            to_supervisor.sendall(_HEAD.pack(request, len(data)) + data)

    def answer() -> None:
        while request := to_supervisor.recv(_HEAD.size, socket.MSG_WAITALL):
            send(_HEAD.unpack(request)[0])

    def run() -> None:
        with contextlib.suppress(OSError):  # the supervisor has ended, or this context has
            answer()

    Thread(target=run, name="metrics", daemon=True).start()
    try:
        yield
    finally:
        to_supervisor.settimeout(_ANSWER_SECONDS_MAX)
        with contextlib.suppress(OSError):
            send(_FINAL)
        with contextlib.suppress(OSError):
            to_supervisor.shutdown(socket.SHUT_RDWR)
        to_supervisor.close()


class WorkerMetrics:
    """The supervisor's view of one worker's metrics. One thread at a time may use it.

    Attributes:
        latest: The latest snapshot that was received.
    """

    def __init__(self, from_worker: socket.socket) -> None:
        """Prepare to read from the supervisor's end of the socket."""
        self.latest: Snapshot = {}
        self._socket = from_worker
        self._requests = _FINAL
        self._received = bytearray()

    def refresh(self) -> None:
        """Request a snapshot. If it does not arrive in time, `latest` does not change."""
        deadline = time.monotonic() + _ANSWER_SECONDS_MAX
        with contextlib.suppress(OSError):
            self._socket.settimeout(_ANSWER_SECONDS_MAX)
            self._requests += 1
            self._socket.sendall(_HEAD.pack(self._requests, 0))
            while (answered := self._read_snapshot()) not in (self._requests, _FINAL):
                left = deadline - time.monotonic()
                if answered is None and (left <= 0 or not self._read(left)):
                    return

    def close(self) -> None:
        """Read the last bytes that the ended worker has sent, and close the socket."""
        with contextlib.suppress(OSError):
            while self._read(_ANSWER_SECONDS_MAX):
                pass
        while self._read_snapshot() is not None:
            pass
        self._socket.close()

    def _read(self, seconds: float) -> bool:
        """Read some bytes; return False if no more will come."""
        self._socket.settimeout(seconds)
        data = self._socket.recv(_READ_BYTES)
        self._received += data
        return bool(data)

    def _read_snapshot(self) -> int | None:
        """Take a snapshot from the bytes read; return the number of its request, or None."""
        if len(self._received) < _HEAD.size:
            return None
        request, length = _HEAD.unpack_from(self._received)
        end = _HEAD.size + length
        if len(self._received) < end:
            return None
        self.latest = decoded(self._received[_HEAD.size : end])
        del self._received[:end]
        return int(request)


class SummedMetrics(Collector):
    """The sum over all workers, and over the supervisor itself.

    Attributes:
        replaced: Counts workers that were replaced because they died.
        registry: Exports the sums.
    """

    def __init__(self) -> None:
        """Start without workers."""
        self._own = CollectorRegistry()
        ProcessCollector(registry=self._own)
        GCCollector(registry=self._own)
        self._serving = Gauge(
            "credit_workers", "Workers that take connections.", registry=self._own
        )
        self.replaced = Counter(
            "credit_workers_replaced_total",
            "Workers that ended by themselves and were replaced.",
            registry=self._own,
        )
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._lock = Lock()
        self._workers: list[WorkerMetrics] = []
        self._ended: Snapshot = {}

    def watch_serving(self, count: Callable[[], int]) -> None:
        """Read the number of workers that take connections at each scrape, in any thread."""
        self._serving.set_function(count)

    def add(self, worker: WorkerMetrics) -> None:
        """Add the metrics of a worker that serves."""
        with self._lock:
            self._workers.append(worker)

    def end(self, worker: WorkerMetrics) -> None:
        """Keep the counts of an ended worker. Call it in a thread, as it may wait for a scrape."""
        with self._lock:
            worker.close()
            if worker in self._workers:
                self._workers.remove(worker)
                _add(self._ended, worker.latest, only=_CUMULATIVE)

    def collect(self) -> Iterator[Metric]:
        """Return the sums, in the thread of the scrape."""
        with self._lock:
            total = {name: family.copy() for name, family in self._ended.items()}
            for worker in self._workers:
                worker.refresh()
                _add(total, worker.latest)
        _add(total, snapshot(self._own))
        for family in total.values():
            yield family.metric()


def _add(total: Snapshot, more: Snapshot, *, only: Iterable[str] | None = None) -> None:
    for name, family in more.items():
        if only is not None and family.kind not in only:
            continue
        if name in total:
            total[name].add(family)
        else:
            total[name] = family.copy()
