"""The span of a call: the conventions' attributes, the client's trace, and no data of users."""

import pytest
from credit_models import AppId, CreditRequest, UserId
from credit_server.store.memory import MemoryStore
from credit_server.store.port import StoreUnavailable
from credit_server.telemetry import Telemetry
from credit_testing.http2_client import Wire, call_headers
from credit_testing.stores import FailingStore
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from tests.server.telemetry.observed import Observed, Sdk, observed

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NAME = "credit.v1.CreditService/"


async def test_a_span_is_named_and_described_by_the_conventions(
    sdk: Sdk, server: Observed, wire: Wire
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


async def test_a_span_goes_on_with_the_trace_of_the_client(
    sdk: Sdk, server: Observed, wire: Wire
) -> None:
    traceparent = f"00-{TRACE_ID}-{PARENT_ID}-01"
    await wire.call("GetUserCredits", UserId(user_id=7), ("traceparent", traceparent))
    await server.quiet()
    span = sdk.span(NAME + "GetUserCredits")
    assert span.parent is not None
    assert span.parent.is_remote
    assert trace.format_span_id(span.parent.span_id) == PARENT_ID
    assert trace.format_trace_id(span.context.trace_id) == TRACE_ID


@pytest.mark.parametrize("value", ["", "00-0-0-00", "\x7f" * 500, "00-" + "0" * 32 + "-1-01"])
async def test_a_trace_that_makes_no_sense_is_a_new_one(
    value: str, sdk: Sdk, server: Observed, wire: Wire
) -> None:
    await wire.call("GetUserCredits", UserId(user_id=7), ("traceparent", value))
    await server.quiet()
    assert sdk.span(NAME + "GetUserCredits").parent is None


async def test_calls_of_one_connection_are_not_each_others_parents(
    sdk: Sdk, server: Observed, wire: Wire
) -> None:
    for _ in range(2):
        await wire.call("GetUserCredits", UserId(user_id=7))
    await server.quiet()
    first, second = sdk.spans(NAME + "GetUserCredits")
    assert first.parent is second.parent is None
    assert first.context.trace_id != second.context.trace_id


async def test_what_is_the_clients_concern_is_no_error(
    sdk: Sdk, server: Observed, wire: Wire
) -> None:
    await wire.call("GetUserCredits", UserId())
    await server.quiet()
    span = sdk.span(NAME + "GetUserCredits")
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert "error.type" not in span.attributes


async def test_what_is_the_servers_fault_is_an_error(sdk: Sdk) -> None:
    away = FailingStore(StoreUnavailable("away"))
    async with observed(sdk.telemetry(), away) as server, Wire.connect(server.port) as wire:
        await wire.call("GetUserCredits", UserId(user_id=7))
        await server.quiet()
    span = sdk.span(NAME + "GetUserCredits")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "UNAVAILABLE"


async def test_a_method_that_is_not_served_is_not_named(
    sdk: Sdk, server: Observed, wire: Wire
) -> None:
    await wire.request(call_headers("/made.up.Service/Call"))
    await server.quiet()
    span = sdk.span("grpc")
    assert span.attributes is not None
    assert span.attributes["rpc.method"] == "_OTHER"
    assert "made.up" not in span.to_json()


async def test_a_span_says_nothing_about_the_user(sdk: Sdk, server: Observed, wire: Wire) -> None:
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
    async with observed(sdk.telemetry(), store) as server, Wire.connect(server.port) as wire:
        await wire.call("GetAppBalance", AppId(app_id=1))
        await server.quiet()
    assert store.current == sdk.span(NAME + "GetAppBalance").context


async def test_the_provider_that_was_set_for_the_process_is_used(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: sdk.tracers)
    async with observed(Telemetry()) as server, Wire.connect(server.port) as wire:
        await wire.call("GetUserCredits", UserId(user_id=7))
        await server.quiet()
    assert sdk.span(NAME + "GetUserCredits")


async def test_without_an_sdk_no_span_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> trace.Span:
        raise AssertionError("a span was made")

    monkeypatch.setattr(trace.ProxyTracer, "start_span", refuse)
    monkeypatch.setattr(trace.NoOpTracer, "start_span", refuse)
    async with observed(Telemetry()) as server, Wire.connect(server.port) as wire:
        await wire.call("GetUserCredits", UserId(user_id=7))
        await server.quiet()
