"""The instruments of OpenTelemetry: the conventions' one for calls, and ours for the rest."""

from collections.abc import Callable, Iterable, Mapping

from grpclib.const import Status
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from credit_server.telemetry import conventions
from credit_server.telemetry.method import Method


class CallInstruments:
    """Measures calls."""

    def __init__(self, meter: Meter) -> None:
        self._duration = meter.create_histogram(
            conventions.CALL_DURATION,
            unit="s",
            description="Measures the duration of an incoming Remote Procedure Call (RPC).",
            explicit_bucket_boundaries_advisory=conventions.CALL_DURATION_BUCKETS,
        )
        self._attributes: dict[tuple[Method, Status], Mapping[str, str]] = {}

    def finished(self, method: Method, status: Status, seconds: float) -> None:
        """Measure a call that has ended."""
        attributes = self._attributes.get((method, status))
        if attributes is None:
            attributes = {
                **conventions.begin_attributes(method),
                **conventions.end_attributes(status),
            }
            self._attributes[method, status] = attributes
        self._duration.record(seconds, attributes)


class CommitInstruments:
    """Measures batches."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._size = meter.create_histogram(
            "credit.batch.size", unit="{write}", description="Writes in a batch."
        )
        self._duration = meter.create_histogram(
            "credit.batch.duration",
            unit="s",
            description="How long a batch took until its result was certain.",
            explicit_bucket_boundaries_advisory=conventions.CALL_DURATION_BUCKETS,
        )
        self._conflicts = meter.create_counter(
            "credit.conflicts",
            unit="{attempt}",
            description="Attempts at a batch that lost against another writer.",
        )
        self._retries = meter.create_counter(
            "credit.retries", unit="{attempt}", description="Attempts at a batch after its first."
        )
        self._unknown = meter.create_counter(
            "credit.commit.unknown",
            unit="{commit}",
            description="Commits of which the store did not say whether they had happened.",
        )

    def watch_shed(self, totals: Callable[[], Mapping[str, int]]) -> None:
        """Have the refusals, by cause, asked for at each export."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(count, {"cause": cause}) for cause, count in totals().items()]

        self._meter.create_observable_counter(
            "credit.shed",
            [observe],
            unit="{call}",
            description="Calls that were refused because the server had too much to do.",
        )

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Have the depth of the queue asked for at each export."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(depth())]

        self._meter.create_observable_up_down_counter(
            "credit.queue.depth",
            [observe],
            unit="{write}",
            description="Writes that have no answer yet.",
        )

    def batch_settled(self, size: int, seconds: float) -> None:
        """Measure a batch whose result is certain, or was given up."""
        self._size.record(size)
        self._duration.record(seconds)

    def conflict(self) -> None:
        """Count an attempt that lost against another writer."""
        self._conflicts.add(1)

    def retried(self) -> None:
        """Count an attempt after the first."""
        self._retries.add(1)

    def commit_unknown(self) -> None:
        """Count a commit without a result."""
        self._unknown.add(1)
