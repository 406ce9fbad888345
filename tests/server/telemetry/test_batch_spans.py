"""Batches in traces: a call leads to the batch that committed it, and the batch to its calls."""

import asyncio

from credit_models import CreditRequest
from credit_server.commit import CommitLimits
from credit_server.store.memory import MemoryStore
from credit_server.telemetry import Telemetry
from credit_server.telemetry.batch_spans import BatchSpans
from credit_testing.http2_client import Wire
from credit_testing.stores import HeldStore
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from tests.server.serving import until
from tests.server.telemetry.observed import Sdk, observed

ADD = "credit.v1.CreditService/AddCredits"


def _add(user_id: int) -> CreditRequest:
    return CreditRequest(user_id=user_id, app_id=1, credits=5, created_by=9)


def _linked(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


async def test_a_call_is_linked_to_the_batch_that_committed_it_and_the_batch_to_its_calls(
    sdk: Sdk,
) -> None:
    store = HeldStore()
    one_lane = CommitLimits(lanes=1)
    async with (
        observed(sdk.telemetry(), store, limits=one_lane) as server,
        Wire.connect(server.port) as wire,
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
    async with observed(telemetry, MemoryStore()) as server, Wire.connect(server.port) as wire:
        await wire.call("AddCredits", _add(7))
        assert not sdk.exporter.get_finished_spans()
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await wire.call("AddCredits", _add(7), ("traceparent", traceparent))
        await server.quiet()
    assert {span.name for span in sdk.exporter.get_finished_spans()} == {ADD, "commit batch"}


def test_a_batch_links_to_so_many_calls_as_an_sdk_keeps(sdk: Sdk) -> None:
    tracer = sdk.tracers.get_tracer("test")
    calls = [tracer.start_span("call") for _ in range(200)]
    with BatchSpans(tracer).batch(calls):
        pass
    for call in calls:
        call.end()
    assert len(sdk.span("commit batch").links) == 128
    assert sdk.span("commit batch").dropped_links == 0
    assert all(len(_linked(span)) == 1 for span in sdk.spans("call"))


def test_a_call_that_has_ended_and_one_that_has_no_span_are_left_out(sdk: Sdk) -> None:
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


def test_what_goes_wrong_with_a_batch_is_noted_on_its_span(sdk: Sdk) -> None:
    telemetry = sdk.telemetry()
    call = sdk.tracers.get_tracer("test").start_span("call")
    with telemetry.commits.batch([call]):
        telemetry.commits.conflict()
        telemetry.commits.retried()
        telemetry.commits.commit_unknown()
    events = [event.name for event in sdk.span("commit batch").events]
    assert events == ["conflict", "retry", "commit unknown"]
