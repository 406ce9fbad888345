"""Traces and metrics of calls, through OpenTelemetry's API.

Names follow the semantic conventions for gRPC (release candidate of the stable ones):
https://opentelemetry.io/docs/specs/semconv/rpc/grpc/. Without an OpenTelemetry SDK, traces and
metrics cost a call a few microseconds, so that no setting turns them off.

Attributes come from the contract and the settings, never from a request or an answer.
"""

import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from importlib.metadata import version

from grpclib.const import Status
from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Setter
from opentelemetry.trace import Span, SpanKind, StatusCode

from credit_client.errors import CreditError
from credit_client.target import Target
from credit_client.transport import AttemptFailed

_SCOPE = "credit_client"

# The conventions' own advice, in seconds.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

Attributes = dict[str, str | int]

_OK: Attributes = {"rpc.response.status_code": Status.OK.name}


class _Metadata(Setter[MutableMapping[str, str]]):
    def set(self, carrier: MutableMapping[str, str], key: str, value: str) -> None:
        # gRPC's metadata has lower-case names and values of printable ASCII.
        if value.isascii() and value.isprintable():
            carrier[key.lower()] = value


_METADATA = _Metadata()


@dataclass(eq=False, kw_only=True, repr=False, slots=True)
class CallSpan:
    """The span and the duration of one call; `Tracing.begin` begins it.

    Attributes:
        metadata: Names the trace to the server, in the form of the global propagator.
        span: The span, or the current one where there is no SDK.
        context: The context in which the duration is recorded; None: the current context.
        begun: When the call began, in seconds of the clock.
        attributes: The attributes of the duration, without the call's outcome.
        histogram: Receives the duration.
        clock: Counts seconds.
    """

    metadata: Mapping[str, str]
    span: Span
    context: Context | None
    begun: float
    attributes: Attributes
    histogram: metrics.Histogram
    clock: Callable[[], float]

    def retried(self, failure: AttemptFailed, *, attempts: int, wait_seconds: float) -> None:
        """Record that an attempt failed and will be retried.

        Args:
            failure: Why.
            attempts: The attempts so far, 1 or more.
            wait_seconds: The time until the next one.
        """
        if self.span.is_recording():
            self.span.add_event(
                "credit.attempt_failed",
                {
                    "rpc.response.status_code": failure.status.name,
                    "credit.attempts": attempts,
                    "credit.wait_seconds": wait_seconds,
                },
            )

    def end(self, error: BaseException | None) -> None:
        """End the span and record the call's duration.

        Args:
            error: What the caller gets, or None. A reader that leaves a list early is no error.
        """
        outcome = _OK if error is None else _outcome(error)
        if self.span.is_recording():
            self.span.set_attributes(outcome)
            if "error.type" in outcome:
                # Without a description: the server's message may name amounts and ids.
                self.span.set_status(StatusCode.ERROR)
        self.span.end()
        self.histogram.record(self.clock() - self.begun, self.attributes | outcome, self.context)


class Tracing:
    """Traces and measures the calls of one client."""

    def __init__(
        self,
        target: Target,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Record nothing yet.

        Args:
            target: The server.
            tracer_provider: Receives the spans; None for the global one.
            meter_provider: Receives the durations; None for the global one.
            clock: Counts seconds.
        """
        release = version("credit-client")
        self._tracer = trace.get_tracer(_SCOPE, release, tracer_provider)
        self._histogram = metrics.get_meter(_SCOPE, release, meter_provider).create_histogram(
            "rpc.client.call.duration",
            unit="s",
            description="Measures the duration of an outgoing Remote Procedure Call (RPC).",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._server: Attributes = {
            "rpc.system.name": "grpc",
            "server.address": target.path or target.host,
        }
        if target.path is None:
            self._server["server.port"] = target.port
        self._attributes: dict[str, Attributes] = {}  # by path
        self._clock = clock

    def begin(self, path: str) -> CallSpan:
        """Begin a call's span, as a child of the current span. It does not become the current one.

        Args:
            path: The method's path, such as `/credit.v1.CreditService/AddCredits`.
        """
        attributes = self._attributes.get(path)
        if attributes is None:
            attributes = self._server | {"rpc.method": path.removeprefix("/")}
            self._attributes[path] = attributes
        name = str(attributes["rpc.method"])
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        begun = self._clock()
        # Without an OpenTelemetry SDK, `start_span` creates no span, so the current span is sent to
        # the server. A span that is not sampled is sent too; otherwise the server would begin a
        # trace.
        valid = span.get_span_context().is_valid
        context = trace.set_span_in_context(span) if valid else None
        metadata: dict[str, str] = {}
        propagate.inject(metadata, context, _METADATA)
        return CallSpan(
            metadata=metadata,
            span=span,
            context=context,
            begun=begun,
            attributes=attributes,
            histogram=self._histogram,
            clock=self._clock,
        )


def _outcome(error: BaseException) -> Attributes:
    match error:
        case GeneratorExit():
            return {"rpc.response.status_code": Status.CANCELLED.name}
        case CreditError() if error.status is not Status.OK:
            name = error.status.name
            return {"rpc.response.status_code": name, "error.type": name}
        case _:
            # A cancelled task, or an error of this package.
            return {
                "rpc.response.status_code": Status.CANCELLED.name,
                "error.type": type(error).__qualname__,
            }
