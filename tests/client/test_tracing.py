"""Spans and durations of calls, as OpenTelemetry's conventions for gRPC name them."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from credit_client import methods
from credit_client.call import Caller
from credit_client.errors import CreditError, DeadlineExceeded
from credit_client.settings import ClientSettings
from credit_client.target import Target
from credit_client.tracing import Tracing
from credit_client.transport import Answer, AttemptFailed
from credit_models import Purchase
from grpclib.const import Status
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

Scripted = Callable[..., Any]  # Any: the scripted transport of conftest

ADD: dict[str, int | str | None] = {
    "user_id": 70007,
    "app_id": 1,
    "credits": 5,
    "created_by": 1,
    "idempotency_key": "the-key",
}
NAME = "credit.v1.CreditService/AddCredits"


class Collected:
    """An SDK that keeps what it gets, and callers that are observed by it."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    def caller(self, transport: Any, **settings: Any) -> Caller:
        tracing = Tracing(
            Target(host="credit.example", port=443),
            tracer_provider=self.traces,
            meter_provider=self.meters,
        )

        async def no_wait(_seconds: float) -> None:
            pass

        return Caller(transport, ClientSettings(**settings), tracing=tracing, sleep=no_wait)

    def span(self) -> ReadableSpan:
        (span,) = self._exporter.get_finished_spans()
        return span

    def duration(self) -> tuple[Any, HistogramDataPoint]:
        data = self._reader.get_metrics_data()
        assert data is not None
        (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
        (point,) = metric.data.data_points
        assert isinstance(point, HistogramDataPoint)
        return metric, point


@pytest.fixture
def collected() -> Collected:
    return Collected()


async def test_a_call_is_a_client_span_with_the_names_of_the_conventions(
    scripted: Scripted, written: Answer[object], collected: Collected
) -> None:
    await collected.caller(scripted(written)).unary(methods.ADD, ADD)
    span = collected.span()
    assert (span.name, span.kind) == (NAME, SpanKind.CLIENT)
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": NAME,
        "server.address": "credit.example",
        "server.port": 443,
        "rpc.response.status_code": "OK",
    }
    assert span.status.status_code is StatusCode.UNSET


async def test_the_duration_is_measured_in_seconds_with_the_span_s_attributes(
    scripted: Scripted, written: Answer[object], collected: Collected
) -> None:
    await collected.caller(scripted(written)).unary(methods.ADD, ADD)
    metric, point = collected.duration()
    assert (metric.name, metric.unit, point.count) == ("rpc.client.call.duration", "s", 1)
    assert point.attributes == collected.span().attributes
    assert 0 < point.sum < 60


async def test_the_trace_and_the_baggage_are_sent(
    scripted: Scripted, written: Answer[object], collected: Collected
) -> None:
    transport = scripted(AttemptFailed(Status.UNAVAILABLE, "lost"), written)
    token = context.attach(baggage.set_baggage("tenant", "blue green"))
    try:
        with collected.traces.get_tracer("app").start_as_current_span("page") as page:
            await collected.caller(transport).unary(methods.ADD, ADD)
    finally:
        context.detach(token)
    span = collected._exporter.get_finished_spans()[0]
    assert span.parent is not None
    assert span.parent.span_id == page.get_span_context().span_id
    ids = span.get_span_context()
    assert ids is not None
    first, second = (sent.metadata for sent in transport.sent)
    assert first == second
    assert first["traceparent"].startswith(f"00-{ids.trace_id:032x}-{ids.span_id:016x}-")
    assert first["baggage"] == "tenant=blue+green"


async def test_a_trace_that_is_not_sampled_is_sent(
    scripted: Scripted, written: Answer[object]
) -> None:
    transport = scripted(written)
    tracing = Tracing(
        Target(host="credit.example", port=443),
        tracer_provider=TracerProvider(ALWAYS_OFF, shutdown_on_exit=False),
    )
    await Caller(transport, ClientSettings(), tracing=tracing).unary(methods.ADD, ADD)
    flags = int(transport.sent[0].metadata["traceparent"].rpartition("-")[2], 16)
    assert flags & trace.TraceFlags.SAMPLED == 0


async def test_each_repetition_is_an_event_of_the_one_span(
    scripted: Scripted, written: Answer[object], collected: Collected
) -> None:
    lost = AttemptFailed(Status.UNAVAILABLE, "lost")
    await collected.caller(scripted(lost, lost, written)).unary(methods.ADD, ADD)
    first, second = collected.span().events
    assert first.name == "credit.attempt_failed"
    assert first.attributes is not None
    assert first.attributes["rpc.response.status_code"] == "UNAVAILABLE"
    assert second.attributes is not None
    assert second.attributes["credit.attempts"] == 2


async def test_a_span_has_the_status_of_an_error_and_not_its_message(
    scripted: Scripted, collected: Collected
) -> None:
    failure = AttemptFailed(Status.FAILED_PRECONDITION, "user 70007 has 3 credits")
    with pytest.raises(CreditError):
        await collected.caller(scripted(failure)).unary(methods.ADD, ADD)
    span = collected.span()
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == "FAILED_PRECONDITION"
    assert span.attributes["error.type"] == "FAILED_PRECONDITION"
    assert span.status.status_code is StatusCode.ERROR
    recorded = span.to_json()
    assert "70007" not in recorded
    assert "the-key" not in recorded


async def test_a_span_shows_a_call_that_ran_out_of_time(
    scripted: Scripted, collected: Collected
) -> None:
    with pytest.raises(DeadlineExceeded):
        await collected.caller(scripted(asyncio.Event())).unary(
            methods.ADD, ADD, timeout_seconds=0.01
        )
    _, point = collected.duration()
    assert point.attributes is not None
    assert point.attributes["rpc.response.status_code"] == "DEADLINE_EXCEEDED"


async def test_a_span_shows_a_cancelled_call(scripted: Scripted, collected: Collected) -> None:
    reached = asyncio.Event()
    caller = collected.caller(scripted(reached))
    task = asyncio.create_task(caller.unary(methods.ADD, ADD))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    attributes = collected.span().attributes
    assert attributes is not None
    assert attributes["rpc.response.status_code"] == "CANCELLED"
    assert attributes["error.type"] == "CancelledError"


async def test_a_list_is_one_span_until_its_end_and_not_the_current_one(
    scripted: Scripted, collected: Collected
) -> None:
    caller = collected.caller(scripted([Purchase(id="1"), Purchase(id="2")]))
    async for _ in caller.stream(methods.PURCHASES, {"user_id": 7}):
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert collected._exporter.get_finished_spans() == ()
    assert collected.span().name == "credit.v1.CreditService/ListUserPurchases"


async def test_leaving_a_list_early_is_no_error(scripted: Scripted, collected: Collected) -> None:
    caller = collected.caller(scripted([Purchase(id="1"), Purchase(id="2")]))
    messages = caller.stream(methods.PURCHASES, {"user_id": 7})
    await anext(messages)
    await messages.aclose()
    span = collected.span()
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == "CANCELLED"
    assert "error.type" not in span.attributes
    assert span.status.status_code is StatusCode.UNSET


_PROGRAM = """
import asyncio
from opentelemetry import trace
from credit_client.testing import fake_credits
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
async def main():
    async with fake_credits() as credits:
        await credits.balance(app_id=1)
asyncio.run(main())
print([span.name for span in exporter.get_finished_spans()])
"""


def test_the_global_providers_are_used_by_default() -> None:
    # In a process of its own: they can be set only once.
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True
    )
    assert done.stdout == "['credit.v1.CreditService/GetAppBalance']\n"


async def test_without_an_sdk_nothing_is_sent(scripted: Scripted, written: Answer[object]) -> None:
    transport = scripted(written)
    await Caller(transport, ClientSettings()).unary(methods.ADD, ADD)
    assert transport.sent[0].metadata == {}


def test_a_unix_domain_socket_is_named_by_its_path_and_has_no_port() -> None:
    tracing = Tracing(Target.parse("unix:/run/credit.sock"))
    assert tracing._server == {"rpc.system.name": "grpc", "server.address": "/run/credit.sock"}
