"""The spans of calls and batches: their names, attributes and links, and no data of users."""

import asyncio

import pytest
from credit_models import AppId, CreditRequest, UserId
from credit_server.commit import CommitLimits
from credit_server.store.memory import MemoryStore
from credit_server.store.port import StoreUnavailable
from credit_server.telemetry import Telemetry
from credit_server.telemetry.traces import BatchSpans
from credit_testing.calls import call_headers
from credit_testing.http2_client import Connection
from credit_testing.stores import FailingStore, HeldStore
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from tests.server.serving import until
from tests.server.telemetry.observed import Observed, Sdk, observed

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NAME = "credit.v1.CreditService/"
ADD = NAME + "AddCredits"


async def test_a_span_is_named_and_described_by_the_conventions(
    sdk: Sdk, server: Observed, wire: Connection
) -> None:
    await wire.call("GetUserCredits", UserId(user_id=7))
    await server.quiet()
    span = sdk.span(NAME + "GetUserCredits")
    assert span.kind is SpanKind.SERVER
    assert span.parent is None
    attributes = dict(span.attributes or {})
    assert isinstance(attributes.pop("network.peer.port"), int)
    assert attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": NAME + "GetUserCredits",
        "rpc.response.status_code": "OK",
        "network.peer.address": "127.0.0.1",
        "server.address": "127.0.0.1",
    }
    assert span.status.status_code is StatusCode.UNSET


async def test_a_span_continues_the_trace_of_the_client(
    sdk: Sdk, server: Observed, wire: Connection
) -> None:
    traceparent = f"00-{TRACE_ID}-{PARENT_ID}-01"
    await wire.call("GetUserCredits", UserId(user_id=7), ("traceparent", traceparent))
    await server.quiet()
    span = sdk.span(NAME + "GetUserCredits")
    assert span.parent is not None
    assert span.parent.is_remote
    assert trace.format_span_id(span.parent.span_id) == PARENT_ID
    assert trace.format_trace_id(span.context.trace_id) == TRACE_ID


@pytest.mark.parametrize("value", ["", "00-0-0-00", "~" * 500, "00-" + "0" * 32 + "-1-01"])
async def test_a_malformed_trace_starts_a_new_one(
    value: str, sdk: Sdk, server: Observed, wire: Connection
) -> None:
    await wire.call("GetUserCredits", UserId(user_id=7), ("traceparent", value))
    await server.quiet()
    assert sdk.span(NAME + "GetUserCredits").parent is None


async def test_calls_of_one_connection_are_not_each_others_parents(
    sdk: Sdk, server: Observed, wire: Connection
) -> None:
    for _ in range(2):
        await wire.call("GetUserCredits", UserId(user_id=7))
    await server.quiet()
    first, second = sdk.spans(NAME + "GetUserCredits")
    assert first.parent is second.parent is None
    assert first.context.trace_id != second.context.trace_id


async def test_a_status_that_the_client_causes_is_not_an_error(
    sdk: Sdk, server: Observed, wire: Connection
) -> None:
    await wire.call("GetUserCredits", UserId())
    await server.quiet()
    span = sdk.span(NAME + "GetUserCredits")
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert "error.type" not in span.attributes


async def test_a_status_that_the_server_causes_is_an_error(sdk: Sdk) -> None:
    away = FailingStore(StoreUnavailable("away"))
    async with observed(sdk.telemetry(), away) as server, Connection.connect(server.port) as wire:
        await wire.call("GetUserCredits", UserId(user_id=7))
        await server.quiet()
    span = sdk.span(NAME + "GetUserCredits")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "UNAVAILABLE"


async def test_a_method_that_is_not_served_is_not_named(
    sdk: Sdk, server: Observed, wire: Connection
) -> None:
    await wire.request(call_headers("/made.up.Service/Call"))
    await server.quiet()
    span = sdk.span("grpc")
    assert span.attributes is not None
    assert span.attributes["rpc.method"] == "_OTHER"
    assert "made.up" not in span.to_json()


async def test_a_span_contains_no_data_of_the_user(
    sdk: Sdk, server: Observed, wire: Connection
) -> None:
    request = CreditRequest(
        user_id=987654321, app_id=1, credits=5, created_by=876543219, idempotency_key="my-own-key"
    )
    token = ("authorization", "Bearer my-own-token")
    await wire.call("AddCredits", request, token, ("x-request-id", "my-own-request"))
    await server.quiet()
    for span in sdk.exporter.get_finished_spans():
        for secret in ("987654321", "876543219", "my-own"):
            assert secret not in span.to_json()


async def test_the_span_is_current_while_the_method_runs(sdk: Sdk) -> None:
    class Curious(MemoryStore):
        current = trace.INVALID_SPAN_CONTEXT

        async def app_total(self, app_id: int) -> int:
            self.current = trace.get_current_span().get_span_context()
            return 0

    store = Curious()
    async with observed(sdk.telemetry(), store) as server, Connection.connect(server.port) as wire:
        await wire.call("GetAppBalance", AppId(app_id=1))
        await server.quiet()
    assert store.current == sdk.span(NAME + "GetAppBalance").context


async def test_the_provider_of_the_process_is_used(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: sdk.tracers)
    async with observed(Telemetry()) as server, Connection.connect(server.port) as wire:
        await wire.call("GetUserCredits", UserId(user_id=7))
        await server.quiet()
    assert sdk.span(NAME + "GetUserCredits")


async def test_without_an_sdk_no_span_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> trace.Span:
        raise AssertionError("a span was made")

    monkeypatch.setattr(trace.ProxyTracer, "start_span", refuse)
    monkeypatch.setattr(trace.NoOpTracer, "start_span", refuse)
    async with observed(Telemetry()) as server, Connection.connect(server.port) as wire:
        await wire.call("GetUserCredits", UserId(user_id=7))
        await server.quiet()


def _add(user_id: int) -> CreditRequest:
    return CreditRequest(user_id=user_id, app_id=1, credits=5, created_by=9)


def _linked(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


async def test_a_call_is_linked_to_the_batch_that_committed_it_and_the_batch_to_its_calls(
    sdk: Sdk,
) -> None:
    store = HeldStore()
    one_shard = CommitLimits(shards=1)
    async with (
        observed(sdk.telemetry(), store, limits=one_shard) as server,
        Connection.connect(server.port) as wire,
    ):
        first = asyncio.create_task(wire.call("AddCredits", _add(1)))
        await store.entered.wait()
        others = [asyncio.create_task(wire.call("AddCredits", _add(user))) for user in range(2, 6)]
        await until(lambda: server.value("credit_queue_depth") == 5)
        store.released.set()
        await asyncio.gather(first, *others)
        await server.quiet()
    calls = {span.context.span_id: span for span in sdk.spans(ADD)}
    alone, together = sdk.spans("commit batch")
    assert [len(_linked(alone)), len(_linked(together))] == [1, 4]
    assert _linked(alone) | _linked(together) == calls.keys()
    for batch in (alone, together):
        for call_id in _linked(batch):
            assert _linked(calls[call_id]) == {batch.context.span_id}
        assert batch.parent is not None
        assert batch.parent.span_id in _linked(batch)
    assert together.attributes == {"credit.batch.size": 4}


async def test_a_batch_without_a_recorded_call_is_not_recorded() -> None:
    sdk = Sdk()
    sampled_by_client = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    for processor in sdk.tracers._active_span_processor._span_processors:
        sampled_by_client.add_span_processor(processor)
    telemetry = Telemetry(tracer_provider=sampled_by_client)
    async with (
        observed(telemetry, MemoryStore()) as server,
        Connection.connect(server.port) as wire,
    ):
        await wire.call("AddCredits", _add(7))
        assert not sdk.exporter.get_finished_spans()
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await wire.call("AddCredits", _add(7), ("traceparent", traceparent))
        await server.quiet()
    assert {span.name for span in sdk.exporter.get_finished_spans()} == {ADD, "commit batch"}


def test_a_batch_links_to_as_many_calls_as_an_sdk_keeps(sdk: Sdk) -> None:
    tracer = sdk.tracers.get_tracer("test")
    calls = [tracer.start_span("call") for _ in range(200)]
    with BatchSpans(tracer).batch(calls):
        pass
    for call in calls:
        call.end()
    assert len(sdk.span("commit batch").links) == 128
    assert sdk.span("commit batch").dropped_links == 0
    assert all(len(_linked(span)) == 1 for span in sdk.spans("call"))


def test_a_call_with_many_writes_is_linked_once(sdk: Sdk) -> None:
    tracer = sdk.tracers.get_tracer("test")
    call = tracer.start_span("call")
    with BatchSpans(tracer).batch([call] * 200):
        pass
    call.end()
    assert len(sdk.span("commit batch").links) == 1
    assert len(_linked(sdk.span("call"))) == 1


def test_a_batch_does_not_link_to_ended_calls_or_calls_without_a_span(sdk: Sdk) -> None:
    tracer = sdk.tracers.get_tracer("test")
    gone, running = tracer.start_span("gone"), tracer.start_span("running")
    gone.end()
    with BatchSpans(tracer).batch([gone, None, running]):
        assert trace.get_current_span().get_span_context().trace_id == (
            running.get_span_context().trace_id
        )
    running.end()
    assert _linked(sdk.span("commit batch")) == {running.get_span_context().span_id}
    assert not sdk.span("gone").links


def test_faults_of_a_batch_are_events_of_its_span(sdk: Sdk) -> None:
    telemetry = sdk.telemetry()
    call = sdk.tracers.get_tracer("test").start_span("call")
    with telemetry.commits.batch([call]):
        telemetry.commits.conflict()
        telemetry.commits.retried()
        telemetry.commits.commit_unknown()
    events = [event.name for event in sdk.span("commit batch").events]
    assert events == ["conflict", "retry", "commit unknown"]
