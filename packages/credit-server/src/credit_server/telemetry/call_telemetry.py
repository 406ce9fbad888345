"""Observes calls for the transport: counts, measures and traces each."""

from collections.abc import Mapping

from grpclib.const import Status

from credit_server.telemetry.call_metrics import CallMetrics, MethodMetrics
from credit_server.telemetry.call_spans import CallSpan, CallSpans
from credit_server.telemetry.instruments import CallInstruments


class ObservedCall:
    """One call that is observed."""

    __slots__ = ("_instruments", "_metrics", "_span")

    def __init__(
        self, metrics: MethodMetrics, instruments: CallInstruments, span: CallSpan | None
    ) -> None:
        self._metrics = metrics
        self._instruments = instruments
        self._span = span

    @property
    def trace_id(self) -> str | None:
        """The trace that the call is recorded in; None: it is not."""
        return None if self._span is None else self._span.trace_id

    @property
    def context(self) -> object | None:
        """The call's span, which its batch is linked with."""
        return None if self._span is None else self._span.span

    def message_received(self) -> None:
        """Count a message that came in."""
        self._metrics.message_received()

    def message_sent(self, count: int = 1) -> None:
        """Count messages that went out."""
        self._metrics.message_sent(count)

    def finished(self, status: Status, seconds: float) -> None:
        """Note the end."""
        # The measurement first, while the span is current: exemplars take the trace from it.
        self._metrics.finished(status, seconds)
        self._instruments.finished(self._metrics.method, status, seconds)
        if self._span is not None:
            self._span.finished(status)


class CallTelemetry:
    """Observes all calls."""

    def __init__(
        self, metrics: CallMetrics, instruments: CallInstruments, spans: CallSpans | None
    ) -> None:
        """Prepare to observe.

        Args:
            metrics: Where Prometheus looks.
            instruments: Where OpenTelemetry looks.
            spans: Makes spans; None where nobody would see them.
        """
        self._metrics = metrics
        self._instruments = instruments
        self._spans = spans

    def started(
        self, path: str, metadata: Mapping[str, str], peer: tuple[str, int] | None
    ) -> ObservedCall:
        """Note the begin of a call."""
        metrics = self._metrics.of(path)
        metrics.started()
        span = None if self._spans is None else self._spans.begin(metrics.method, metadata, peer)
        return ObservedCall(metrics, self._instruments, span)
