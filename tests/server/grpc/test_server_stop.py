"""The graceful stop: every call is answered, and no client keeps the server from stopping."""

import asyncio

import pytest
from credit_models import CreditRequest, Empty, UserId
from credit_models.codec import encode
from credit_server.http2.connection import ServerProtocol
from credit_testing.calls import SERVICE, Answer, call_frames, call_headers, framed
from credit_testing.frames import (
    ACK,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS_FRAME,
    WINDOW_BYTES,
    WINDOW_BYTES_MAX,
    ErrorCode,
    Setting,
    frame,
    window_update,
)
from credit_testing.http2_client import Connection
from credit_testing.stores import EndlessStore, HeldStore
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.server.loops import on_both_loops
from tests.server.serving import Serving, is_served, serving, until

ADD = CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)
USER = framed(encode(UserId(user_id=7)))
LONG_SECONDS = 3600.0
LARGEST_WINDOW = (Setting.INITIAL_WINDOW_SIZE, WINDOW_BYTES_MAX)
STREAM_ID_MAX = 2**31 - 1
REFUSED = ErrorCode.REFUSED_STREAM.to_bytes(4)


def _begin_add(wire: Connection) -> Answer:
    return wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(ADD)))[1]


async def _stopping(served: Serving, grace_seconds: float) -> "asyncio.Task[None]":
    """Begin to stop, and return once every connection drains."""
    task = asyncio.create_task(served.server.stop(grace_seconds=grace_seconds))
    await until(lambda: served.server.connections.draining)
    return task


@on_both_loops
async def test_a_running_call_finishes_and_is_answered() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        running = _begin_add(wire)
        await store.entered.wait()
        stopping = await _stopping(served, LONG_SECONDS)
        await wire.in_order()
        assert not running.ended.is_set()

        store.released.set()
        assert (await wire.ended(running)).message(Empty) == Empty()
        await stopping
        await wire.closed.wait()
        assert wire.goaway is ErrorCode.NO_ERROR


@on_both_loops
async def test_calls_that_cross_the_first_goaway_are_served_and_later_ones_are_rejected() -> None:
    store = HeldStore()
    async with (
        serving(store) as served,
        Connection.connect(served.port, automatic=False) as raw,
    ):
        await raw.in_order()
        stopping = await _stopping(served, LONG_SECONDS)
        assert (await raw.next(GOAWAY)).last_stream_id == STREAM_ID_MAX
        ping = await raw.next(PING)
        raw.write(call_frames(1, "AddCredits", ADD))  # as of a client that has not read the GOAWAY
        await store.entered.wait()
        raw.write(frame(PING, ping.payload, flags=ACK))
        assert (await raw.next(GOAWAY)).last_stream_id == 1
        raw.write(call_frames(3, "AddCredits", ADD))
        assert (await raw.next(RST_STREAM)).payload == REFUSED
        assert not stopping.done()

        store.released.set()
        assert (await raw.next(HEADERS, flags=END_STREAM)).stream == 1
        assert raw.resets == {3: ErrorCode.REFUSED_STREAM}
        assert not await raw.rest()
        raw.disconnect()
        await stopping
        assert not served.server.shed_total


@on_both_loops
async def test_during_the_pause_new_connections_and_calls_are_served() -> None:
    async with serving() as served, Connection.connect(served.port) as wire:
        await is_served(wire)
        server = served.server
        stopping = asyncio.create_task(
            server.stop(grace_seconds=LONG_SECONDS, drain_seconds=LONG_SECONDS)
        )
        await asyncio.sleep(0)
        await is_served(wire)
        async with Connection.connect(served.port) as fresh:
            await is_served(fresh)
            assert not fresh.goaways
        assert not wire.goaways
        stopping.cancel()
        await asyncio.wait([stopping])


@on_both_loops
async def test_a_connection_that_is_accepted_last_has_its_first_call_served() -> None:
    async with serving() as served:
        # The connection was in the kernel's queue when the server stopped listening.
        served.server.connections.draining = True
        async with Connection.connect(
            served.port,
            automatic=False,
            greeting=PREFACE + SETTINGS_FRAME + call_frames(1, "AddCredits", ADD),
        ) as raw:
            assert (await raw.next(GOAWAY)).last_stream_id == STREAM_ID_MAX
            ping = await raw.next(PING)
            raw.write(frame(PING, ping.payload, flags=ACK))
            await raw.next(HEADERS, flags=END_STREAM)
            raw.disconnect()
        served.server.connections.draining = False


@on_both_loops
async def test_a_client_that_does_not_acknowledge_the_ping_does_not_hold_it_up() -> None:
    async with serving() as served, Connection.connect(served.port, automatic=False) as raw:
        await raw.in_order()
        stopping = await _stopping(served, LONG_SECONDS)
        assert (await raw.next(GOAWAY)).last_stream_id == STREAM_ID_MAX
        served.later(5)
        assert (await raw.next(GOAWAY)).last_stream_id == 0
        raw.disconnect()
        await stopping


@on_both_loops
async def test_a_call_that_outlives_the_grace_is_unavailable() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        running = _begin_add(wire)
        await store.entered.wait()
        await served.server.stop(grace_seconds=0.01)
        answer = await wire.ended(running)
        assert answer.status is Status.UNAVAILABLE
        info = answer.details[0]
        assert isinstance(info, ErrorInfo)
        assert info.reason == "STORE_UNAVAILABLE"  # it may have happened
        await wire.closed.wait()
        assert wire.goaway is ErrorCode.NO_ERROR
        store.released.set()


@on_both_loops
async def test_a_health_watch_does_not_delay_the_stop_and_gets_the_status() -> None:
    async with serving() as served, Connection.connect(served.port) as wire:
        _, watch = wire.begin(call_headers("/grpc.health.v1.Health/Watch"), framed(b""))
        await watch.begun()
        await served.server.stop(grace_seconds=LONG_SECONDS)
        assert (await wire.ended(watch)).status is Status.UNAVAILABLE


@on_both_loops
async def test_health_is_answered_during_the_stop() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        running = _begin_add(wire)
        await store.entered.wait()
        served.status.set(False)
        stopping = await _stopping(served, LONG_SECONDS)
        health = await wire.call("/grpc.health.v1.Health/Check", HealthCheckRequest())
        assert health.message(HealthCheckResponse).status == HealthCheckResponse.NOT_SERVING
        store.released.set()
        assert (await wire.ended(running)).message(Empty) == Empty()
        await stopping


@on_both_loops
async def test_an_idle_connection_gets_a_goaway_and_is_closed() -> None:
    async with serving() as served, Connection.connect(served.port) as wire:
        await is_served(wire)
        await served.server.stop(grace_seconds=LONG_SECONDS)
        await wire.closed.wait()
        assert wire.goaway is ErrorCode.NO_ERROR


@on_both_loops
async def test_a_stopped_server_listens_no_more() -> None:
    async with serving() as served:
        port = served.port
        await served.server.stop(grace_seconds=0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


@on_both_loops
async def test_a_closed_window_does_not_hold_it_up() -> None:
    async with serving() as served, Connection.connect(served.port, window=0) as wire:
        _, stalled = wire.begin(call_headers(SERVICE + "GetUserCredits"), USER)
        await wire.in_order()
        await served.server.stop(grace_seconds=0.01)
        assert (await wire.ended(stalled)).status is Status.UNAVAILABLE


@on_both_loops
async def test_a_client_that_reads_nothing_at_all_does_not_hold_it_up() -> None:
    async with serving(EndlessStore()) as served, Connection.connect(served.port) as writer:
        for _ in range(50):
            await writer.call("AddCredits", ADD)
        async with Connection.connect(
            served.port, LARGEST_WINDOW, reads=False, automatic=False
        ) as deaf:
            deaf.write(window_update(WINDOW_BYTES_MAX - WINDOW_BYTES))
            deaf.write(call_frames(1, "ListUserTransactions", UserId(user_id=7)))
            await until(lambda: not all(map(_takes_bytes, _protocols(served))))
            await served.server.stop(grace_seconds=0.01)
            await until(lambda: not _protocols(served))


def _protocols(served: Serving) -> list[ServerProtocol]:
    return list(served.server._protocols)


def _takes_bytes(protocol: ServerProtocol) -> bool:
    return protocol.connection.write_ready.is_set()


@on_both_loops
async def test_a_call_reset_during_the_grace_does_not_break_it() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        stream_id, _ = wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(ADD)))
        await store.entered.wait()
        stopping = await _stopping(served, LONG_SECONDS)
        wire.reset(stream_id)
        await stopping
        store.released.set()


@on_both_loops
async def test_a_call_that_was_reset_before_it_began_does_not_break_it() -> None:
    async with serving() as served, Connection.connect(served.port) as wire:
        stream_id, _ = wire.begin(call_headers(SERVICE + "GetUserCredits"), end=False)
        wire.reset(stream_id)
        await is_served(wire)
        await served.server.stop(grace_seconds=LONG_SECONDS)
