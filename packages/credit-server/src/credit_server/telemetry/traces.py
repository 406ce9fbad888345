"""Make the spans of calls and batches, through OpenTelemetry's API."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from grpclib.const import Status
from grpclib.protocol import Peer
from opentelemetry import context, propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer

from credit_server.telemetry import conventions
from credit_server.telemetry.conventions import Method

# The number of links that the SDK keeps of a span by default.
_LINKS_MAX = 128


class CallSpan:
    """The span of a call. It is the current span in the task that started it.

    Attributes:
        span: The span.
        trace_id: The trace in 32 hexadecimal digits; None if the span is not recorded.
    """

    __slots__ = ("_token", "span", "trace_id")

    def __init__(self, span: Span, parent: context.Context) -> None:
        """Make a span the current one."""
        self.span = span
        self.trace_id = (
            trace.format_trace_id(span.get_span_context().trace_id) if span.is_recording() else None
        )
        self._token = context.attach(trace.set_span_in_context(span, parent))

    def finished(self, status: Status) -> None:
        """End the span, in the task that started it."""
        context.detach(self._token)
        self.span.set_attributes(conventions.end_attributes(status))
        if status in conventions.SERVER_FAULTS:
            self.span.set_status(StatusCode.ERROR)
        self.span.end()


class CallSpans:
    """Start the spans of calls."""

    def __init__(self, tracer: Tracer, *, server_address: str, server_port: int) -> None:
        """Prepare the spans.

        Args:
            tracer: The tracer that makes them.
            server_address: The address on which the server listens.
            server_port: Its port; 0 if it is not known yet, which leaves the attribute out.
        """
        self._tracer = tracer
        self._server: dict[str, str | int] = {conventions.SERVER_ADDRESS: server_address}
        if server_port:
            self._server[conventions.SERVER_PORT] = server_port

    def start(self, method: Method, metadata: Mapping[str, str], peer: Peer) -> CallSpan:
        """Start a call's span, as a child of the span that the metadata name, if any."""
        attributes: dict[str, str | int] = {**self._server, **conventions.start_attributes(method)}
        if (address := peer.addr()) is not None:
            attributes[conventions.PEER_ADDRESS], attributes[conventions.PEER_PORT] = address
        # An empty context: the current one belongs to the task that reads the connection.
        parent = propagate.extract(metadata, context=context.Context())
        span = self._tracer.start_span(
            conventions.span_name(method),
            context=parent,
            kind=SpanKind.SERVER,
            attributes=attributes,
        )
        return CallSpan(span, parent)


class BatchSpans:
    """Make the spans of batches. A batch and the calls that it commits link to each other."""

    def __init__(self, tracer: Tracer) -> None:
        """Prepare the spans."""
        self._tracer = tracer

    @contextlib.contextmanager
    def batch(self, contexts: Sequence[object]) -> Iterator[None]:
        """Record the commit of a batch, if at least one of its calls is recorded.

        The span is a child of the first recorded call, so it is sampled when that call is. It links
        to all recorded calls, and each of them links to it.

        Args:
            contexts: The spans of the batch's calls; None for a call without one.
        """
        # Each call is taken once: it may have a thousand writes.
        calls = [
            span
            for span in dict.fromkeys(contexts)
            if isinstance(span, Span) and span.is_recording()
        ]
        if not calls:
            yield
            return
        span = self._tracer.start_span(
            "commit batch",
            context=trace.set_span_in_context(calls[0], context.Context()),
            links=[Link(call.get_span_context()) for call in calls[:_LINKS_MAX]],
            attributes={"credit.batch.size": len(contexts)},
        )
        for call in calls:
            call.add_link(span.get_span_context())
        with trace.use_span(span, end_on_exit=True, record_exception=False):
            yield


def add_event(name: str) -> None:
    """Add an event to the span of the current batch, if it has one."""
    trace.get_current_span().add_event(name)
