"""One span for each batch, linked with the calls that it commits."""

import contextlib
from collections.abc import Iterator, Sequence

from opentelemetry import context, trace
from opentelemetry.trace import Link, Span, Tracer

_LINKS_MAX = 128
"""What the SDK keeps of a span's links, unless it is told otherwise."""


class BatchSpans:
    """Makes the spans of batches."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextlib.contextmanager
    def batch(self, contexts: Sequence[object]) -> Iterator[None]:
        """Record the settling of a batch, if any of its calls is recorded.

        The span is a child of the first recorded call: so it is sampled when a call of it is. It
        links to all recorded calls, and each of them to it.

        Args:
            contexts: The spans of the batch's calls; None where a call has none.
        """
        calls = [span for span in contexts if isinstance(span, Span) and span.is_recording()]
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


def event(name: str) -> None:
    """Note on the current batch's span that something happened; nothing where it has none."""
    trace.get_current_span().add_event(name)
