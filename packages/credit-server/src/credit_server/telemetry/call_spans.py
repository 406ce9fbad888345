"""One span for each call, joined to the trace that its client is in."""

from collections.abc import Mapping

from grpclib.const import Status
from opentelemetry import context, propagate, trace
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from credit_server.telemetry import conventions
from credit_server.telemetry.method import Method


class CallSpan:
    """The span of a running call. It is the current one in the task that has begun it."""

    __slots__ = ("_token", "span", "trace_id")

    def __init__(self, span: trace.Span, parent: context.Context) -> None:
        self.span = span
        self.trace_id = (
            trace.format_trace_id(span.get_span_context().trace_id) if span.is_recording() else None
        )
        self._token = context.attach(trace.set_span_in_context(span, parent))

    def finished(self, status: Status) -> None:
        """End the span, in the task that has begun it."""
        context.detach(self._token)
        self.span.set_attributes(conventions.end_attributes(status))
        if status in conventions.SERVER_FAULTS:
            self.span.set_status(StatusCode.ERROR)
        self.span.end()


class CallSpans:
    """Begins the spans of calls."""

    def __init__(self, tracer: Tracer, *, server_address: str, server_port: int) -> None:
        """Prepare to begin spans.

        Args:
            tracer: Who makes them.
            server_address: Where the server listens, for the spans' attributes.
            server_port: Its port; 0: it is not known yet, and left out.
        """
        self._tracer = tracer
        self._server: dict[str, str | int] = {conventions.SERVER_ADDRESS: server_address}
        if server_port:
            self._server[conventions.SERVER_PORT] = server_port

    def begin(
        self, method: Method, metadata: Mapping[str, str], peer: tuple[str, int] | None
    ) -> CallSpan:
        """Begin a call's span: a child of the span that the metadata name, if they do."""
        attributes: dict[str, str | int] = {**self._server, **conventions.begin_attributes(method)}
        if peer is not None:
            attributes[conventions.PEER_ADDRESS] = peer[0]
            attributes[conventions.PEER_PORT] = peer[1]
        # An empty context: what is current here belongs to whatever the connection is read in.
        parent = propagate.extract(metadata, context=context.Context())
        span = self._tracer.start_span(
            conventions.span_name(method),
            context=parent,
            kind=SpanKind.SERVER,
            attributes=attributes,
        )
        return CallSpan(span, parent)
