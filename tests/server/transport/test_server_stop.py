"""The graceful stop: what runs is answered, what is new is refused, and nobody holds it up."""

import asyncio

import pytest
from credit_models import CreditRequest, Empty, UserId
from credit_models.codec import encode
from credit_server.transport.connection import ServerProtocol
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpclib.const import Status
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from h2.errors import ErrorCodes

from tests.server.transport.loops import OnLoop, on_both_loops
from tests.server.transport.raw import request_for_everything
from tests.server.transport.serving import (
    EndlessStore,
    HeldStore,
    Serving,
    is_served,
    serving,
    until,
)
from tests.server.transport.wire import SERVICE, Answer, Wire, call_headers, framed

ADD = CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)
USER = framed(encode(UserId(user_id=7)))
LONG_SECONDS = 3600.0


def _begin_add(wire: Wire) -> Answer:
    return wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(ADD)))[1]


async def _stopping(served: Serving, grace_seconds: float) -> "asyncio.Task[None]":
    """Begins to stop; returns once the server takes in nothing more."""
    task = asyncio.create_task(served.server.stop(grace_seconds=grace_seconds))
    await until(lambda: served.server._gate.stopping)
    return task


@on_both_loops
async def test_a_running_call_finishes_and_is_answered(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        store = HeldStore()
        async with serving(store) as served, Wire.connect(served.port) as wire:
            running = _begin_add(wire)
            await store.entered.wait()
            stopping = await _stopping(served, LONG_SECONDS)
            await wire.pong()
            assert not running.ended.is_set()

            store.released.set()
            assert (await wire.ended(running)).message(Empty) == Empty()
            await stopping
            await wire.closed.wait()
            assert wire.goaway is ErrorCodes.NO_ERROR

    await on_loop(scenario)


@on_both_loops
async def test_a_new_call_on_an_old_connection_is_unavailable(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        store = HeldStore()
        async with serving(store) as served, Wire.connect(served.port) as wire:
            running = _begin_add(wire)
            await store.entered.wait()
            stopping = await _stopping(served, LONG_SECONDS)
            for method in ("AddCredits", "GetUserCredits"):
                message = ADD if method == "AddCredits" else UserId(user_id=7)
                answer = await wire.call(method, message)
                assert answer.status is Status.UNAVAILABLE
                assert "shutting down" in answer.sentence
                assert (answer.headers | answer.trailers)["credit-going-away"] == "1"
                info, retry = answer.details
                assert isinstance(info, ErrorInfo)
                assert info.reason == "OVERLOADED"
                assert isinstance(retry, RetryInfo)
                assert retry.retry_delay.ToMilliseconds() > 0
            assert served.server._gate.shed_total == {"stopping": 2}
            store.released.set()
            assert (await wire.ended(running)).message(Empty) == Empty()
            await stopping

    await on_loop(scenario)


@on_both_loops
async def test_a_call_that_outlives_the_grace_is_unavailable(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        store = HeldStore()
        async with serving(store) as served, Wire.connect(served.port) as wire:
            running = _begin_add(wire)
            await store.entered.wait()
            await served.server.stop(grace_seconds=0.01)
            answer = await wire.ended(running)
            assert answer.status is Status.UNAVAILABLE
            info = answer.details[0]
            assert isinstance(info, ErrorInfo)
            assert info.reason == "STORE_UNAVAILABLE"  # it may have happened
            await wire.closed.wait()
            assert wire.goaway is ErrorCodes.NO_ERROR
            store.released.set()

    await on_loop(scenario)


@on_both_loops
async def test_a_health_watch_does_not_hold_it_up_and_is_told(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        async with serving() as served, Wire.connect(served.port) as wire:
            _, watch = wire.begin(call_headers("/grpc.health.v1.Health/Watch"), framed(b""))
            await watch.begun()
            await served.server.stop(grace_seconds=LONG_SECONDS)
            assert (await wire.ended(watch)).status is Status.UNAVAILABLE

    await on_loop(scenario)


@on_both_loops
async def test_health_is_told_while_it_stops(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        store = HeldStore()
        async with serving(store) as served, Wire.connect(served.port) as wire:
            running = _begin_add(wire)
            await store.entered.wait()
            served.status.set(False)
            stopping = await _stopping(served, LONG_SECONDS)
            health = await wire.call("/grpc.health.v1.Health/Check", HealthCheckRequest())
            assert health.message(HealthCheckResponse).status == HealthCheckResponse.NOT_SERVING
            store.released.set()
            assert (await wire.ended(running)).message(Empty) == Empty()
            await stopping

    await on_loop(scenario)


@on_both_loops
async def test_an_idle_connection_is_told_and_closed(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        async with serving() as served, Wire.connect(served.port) as wire:
            await is_served(wire)
            await served.server.stop(grace_seconds=LONG_SECONDS)
            await wire.closed.wait()
            assert wire.goaway is ErrorCodes.NO_ERROR

    await on_loop(scenario)


@on_both_loops
async def test_a_stopped_server_listens_no_more(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        async with serving() as served:
            port = served.port
            await served.server.stop(grace_seconds=0)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)

    await on_loop(scenario)


@on_both_loops
async def test_a_closed_window_does_not_hold_it_up(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        async with serving() as served, Wire.connect(served.port, window=0) as wire:
            _, stalled = wire.begin(call_headers(SERVICE + "GetUserCredits"), USER)
            await wire.pong()
            await served.server.stop(grace_seconds=0.01)
            assert (await wire.ended(stalled)).status is Status.UNAVAILABLE

    await on_loop(scenario)


@on_both_loops
async def test_a_client_that_reads_nothing_at_all_does_not_hold_it_up(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        async with serving(EndlessStore()) as served, Wire.connect(served.port) as writer:
            for _ in range(50):
                await writer.call("AddCredits", ADD)
            # With a limit of one byte, the stream stops reading from its socket.
            _, deaf = await asyncio.open_connection("127.0.0.1", served.port, limit=1)
            deaf.write(request_for_everything())
            await until(lambda: not all(map(_takes_bytes, _protocols(served))))
            await served.server.stop(grace_seconds=0.01)
            await until(lambda: not _protocols(served))
            deaf.transport.abort()

    await on_loop(scenario)


def _protocols(served: Serving) -> list[ServerProtocol]:
    return list(served.server._protocols)


def _takes_bytes(protocol: ServerProtocol) -> bool:
    return protocol.connection.write_ready.is_set()


@on_both_loops
async def test_a_call_reset_during_the_grace_does_not_break_it(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        store = HeldStore()
        async with serving(store) as served, Wire.connect(served.port) as wire:
            stream_id, _ = wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(ADD)))
            await store.entered.wait()
            stopping = await _stopping(served, LONG_SECONDS)
            wire.h2.reset_stream(stream_id)
            wire.flush()
            await stopping
            store.released.set()

    await on_loop(scenario)


@on_both_loops
async def test_a_call_that_was_reset_before_it_began_does_not_break_it(on_loop: OnLoop) -> None:
    async def scenario() -> None:
        async with serving() as served, Wire.connect(served.port) as wire:
            stream_id = wire.h2.get_next_available_stream_id()
            wire.h2.send_headers(stream_id, call_headers(SERVICE + "GetUserCredits"))
            wire.h2.reset_stream(stream_id)
            wire.flush()
            await is_served(wire)
            await served.server.stop(grace_seconds=LONG_SECONDS)

    await on_loop(scenario)
