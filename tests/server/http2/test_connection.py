"""The time limits and caps of connections. The tests pass the time."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, cast

import pytest
from credit_models import CreditRequest, Empty, UserId
from credit_models.codec import encode
from credit_server.grpc import server as server_module
from credit_server.http2.connection import ServerProtocol, _limit_unsent
from credit_server.http2.connections import Closing
from credit_server.http2.limits import ConnectionLimits
from credit_server.http2.stream import ServerStream
from credit_testing.calls import SERVICE, call_frames, call_headers, framed
from credit_testing.certificates import private_key, private_pem, self_signed
from credit_testing.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    WINDOW_BYTES,
    WINDOW_BYTES_MAX,
    ErrorCode,
    Setting,
    frame,
    header_block,
    window_update,
)
from credit_testing.http2_client import Connection
from credit_testing.stores import EndlessStore, HeldStore
from grpclib.const import Status

from tests.server.loops import on_both_loops
from tests.server.serving import Serving, is_served, serving, until

ADD_REQUEST = CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)
ADD = framed(encode(ADD_REQUEST))
USER = framed(encode(UserId(user_id=7)))
PATH = SERVICE + "GetUserCredits"
LIST = SERVICE + "ListUserTransactions"
LIMITS = ConnectionLimits()
# The size of the answer to AddCredits; a list needs more.
EMPTY_BYTES = len(framed(b""))
STREAM_ID_MAX = 2**31 - 1
LARGEST_WINDOW = (Setting.INITIAL_WINDOW_SIZE, WINDOW_BYTES_MAX)


def open_connections(served: Serving) -> int:
    return len(served.server.connections.members)


def members(served: Serving) -> list[ServerProtocol]:
    return list(served.server.connections.members)


def certified(directory: Path) -> ssl.SSLContext:
    """Create a certificate for the loopback address; return the server's TLS context with it."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    private = private_key()
    key.write_bytes(private_pem(private))
    certificate.write_bytes(self_signed(private, names=("127.0.0.1",)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    return context


def closed(served: Serving) -> dict[Closing, int]:
    return dict(served.server.connections.closed)


@pytest.mark.parametrize("data", [b"", PREFACE[:-1], PREFACE], ids=["none", "most", "no SETTINGS"])
@on_both_loops
async def test_a_client_without_a_preface_is_closed_in_time(data: bytes) -> None:
    async with (
        serving() as served,
        Connection.connect(served.port, automatic=False, greeting=data) as raw,
    ):
        await until(lambda: open_connections(served) == 1)
        served.later(LIMITS.handshake_seconds - 1)
        assert not closed(served)
        served.later(LIMITS.handshake_seconds)
        assert await raw.last_goaway() is ErrorCode.PROTOCOL_ERROR
        assert closed(served) == {Closing.HANDSHAKE: 1}


async def test_a_header_block_without_an_end_is_closed_in_time(
    served: Serving, bystander: Connection
) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        await raw.in_order()
        raw.write(frame(HEADERS, header_block(call_headers(PATH)), stream=1))
        raw.write(frame(CONTINUATION, stream=1))
        await until(lambda: any(each._times.header_block_since for each in members(served)))
        served.later(LIMITS.handshake_seconds)
        assert await raw.last_goaway() is ErrorCode.ENHANCE_YOUR_CALM
        assert closed(served) == {Closing.HEADERS: 1}


async def test_an_idle_connection_is_closed_in_time(
    served: Serving, wire: Connection, logged: list[MutableMapping[str, Any]]
) -> None:
    await is_served(wire)
    served.later(LIMITS.idle_seconds - 1)
    await is_served(wire)
    served.later(LIMITS.idle_seconds)
    await wire.closed.wait()
    assert wire.goaway is ErrorCode.NO_ERROR
    assert closed(served) == {Closing.IDLE: 1}
    (line,) = (line for line in logged if line["event"] == "connection closed")
    assert line["reason"] == Closing.IDLE
    assert line["peer"].startswith("127.0.0.1:")


async def test_a_call_keeps_its_connection_from_being_idle() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        _, adding = wire.begin(call_headers(SERVICE + "AddCredits"), ADD)
        await store.entered.wait()
        served.later(LIMITS.idle_seconds)  # it gets a PING and acknowledges it
        await wire.in_order()
        served.later(LIMITS.idle_seconds)
        store.released.set()
        assert (await wire.ended(adding)).message(Empty) == Empty()


async def test_a_silent_client_with_a_call_gets_a_ping_and_is_closed() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port, automatic=False) as raw:
        raw.write(
            frame(HEADERS, header_block(call_headers(SERVICE + "AddCredits")), flags=4, stream=1)
        )
        raw.write(frame(DATA, ADD, flags=1, stream=1))
        await store.entered.wait()
        served.later(LIMITS.keepalive_seconds)
        assert (await raw.next(PING)).payload == bytes(8)
        served.later(LIMITS.keepalive_seconds + LIMITS.keepalive_timeout_seconds - 1)
        assert not closed(served)
        served.later(LIMITS.keepalive_seconds + LIMITS.keepalive_timeout_seconds)
        await until(lambda: open_connections(served) == 0)
        assert closed(served) == {Closing.KEEPALIVE: 1}
        store.released.set()


async def test_a_call_that_crosses_the_idle_close_is_served(served: Serving) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        await raw.in_order()
        served.later(LIMITS.idle_seconds)
        assert (await raw.next(GOAWAY)).last_stream_id == STREAM_ID_MAX
        ping = await raw.next(PING)
        raw.write(call_frames(1, "AddCredits", ADD_REQUEST))
        await raw.next(HEADERS, flags=END_STREAM)
        raw.write(frame(PING, ping.payload, flags=ACK))
        assert (await raw.next(GOAWAY)).last_stream_id == 1
        assert not await raw.rest()
        assert closed(served) == {Closing.IDLE: 1}


async def test_a_health_check_that_crosses_the_idle_close_is_answered(served: Serving) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        await raw.in_order()
        served.later(LIMITS.idle_seconds)
        ping = await raw.next(PING)
        headers = header_block(call_headers("/grpc.health.v1.Health/Check"))
        raw.write(frame(PING, ping.payload, flags=ACK))  # all in one slice
        raw.write(frame(HEADERS, headers, flags=END_HEADERS, stream=1))
        raw.write(frame(DATA, framed(b""), flags=END_STREAM, stream=1))
        assert (await raw.next(DATA)).payload == framed(b"\x08\x01")  # SERVING
        assert not raw.resets


async def test_a_call_that_comes_with_the_acknowledgement_is_served(served: Serving) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        await raw.in_order()
        served.later(LIMITS.idle_seconds)
        ping = await raw.next(PING)
        raw.write(
            frame(PING, ping.payload, flags=ACK) + call_frames(1, "AddCredits", ADD_REQUEST)
        )  # read in one slice
        assert (await raw.next(GOAWAY)).last_stream_id == 1
        await raw.next(HEADERS, flags=END_STREAM)
        assert not await raw.rest()


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        pytest.param(ConnectionLimits(age_seconds=10), 12, id="of an old connection"),
        pytest.param(ConnectionLimits(), 0, id="of a client that sends GOAWAY"),
    ],
)
async def test_a_call_that_runs_at_the_end_is_answered(
    limits: ConnectionLimits, seconds: float
) -> None:
    store = HeldStore()
    async with (
        serving(store, connections=limits) as served,
        Connection.connect(served.port) as wire,
    ):
        _, adding = wire.begin(call_headers(SERVICE + "AddCredits"), ADD)
        await store.entered.wait()
        if seconds:
            served.later(seconds)
        else:
            wire.write(frame(GOAWAY, bytes(8)))
        await wire.received_goaways(2)
        assert wire.goaways == [STREAM_ID_MAX, 1]
        assert not closed(served)
        store.released.set()
        assert (await wire.ended(adding)).message(Empty) == Empty()
        await wire.closed.wait()
        assert wire.goaway is ErrorCode.NO_ERROR
        assert closed(served) == {Closing.AGE if seconds else Closing.CLIENT: 1}


async def test_a_call_that_outlives_the_grace_of_an_old_connection_is_unavailable() -> None:
    store = HeldStore()
    limits = ConnectionLimits(age_seconds=10, age_grace_seconds=5, keepalive_seconds=1000)
    async with (
        serving(store, connections=limits) as served,
        Connection.connect(served.port) as wire,
    ):
        _, adding = wire.begin(call_headers(SERVICE + "AddCredits"), ADD)
        await store.entered.wait()
        served.later(12)
        await wire.in_order()
        assert not adding.ended.is_set()
        served.later(17)
        answer = await wire.ended(adding)
        assert answer.status is Status.UNAVAILABLE
        assert "a write may or may not have taken effect" in answer.sentence
        await wire.closed.wait()
        assert closed(served) == {Closing.AGE: 1}
        store.released.set()


async def test_a_health_watch_on_an_old_connection_is_ended_so_that_its_client_reconnects() -> None:
    limits = ConnectionLimits(age_seconds=10)
    async with serving(connections=limits) as served, Connection.connect(served.port) as wire:
        _, watch = wire.begin(call_headers("/grpc.health.v1.Health/Watch"), framed(b""))
        await watch.begun()
        served.later(12)
        assert (await wire.ended(watch)).status is Status.UNAVAILABLE
        await wire.closed.wait()
        assert closed(served) == {Closing.AGE: 1}


@pytest.mark.usefixtures("engine")
async def test_data_that_no_call_has_read_returns_to_the_window_of_the_connection() -> None:
    window_bytes = 65_535
    async with (
        serving(connections=ConnectionLimits(connection_window_bytes=window_bytes)) as served,
        Connection.connect(served.port) as wire,
    ):
        data = framed(bytes(10_000))
        for _ in range(3 * window_bytes // len(data)):
            _, answer = wire.begin(call_headers(SERVICE + "NoSuchMethod"), data)
            await wire.ended(answer)


async def test_an_answer_that_its_client_does_not_take_is_dropped(
    served: Serving, bystander: Connection
) -> None:
    async with Connection.connect(served.port, window=3) as reader:
        stream_id, answer = reader.begin(call_headers(PATH), USER)
        await answer.begun()
        served.later(LIMITS.stalled_seconds - 1)
        await reader.in_order()
        assert not answer.ended.is_set()
        served.later(LIMITS.stalled_seconds)
        await reader.ended(answer)
        assert answer.reset is ErrorCode.ENHANCE_YOUR_CALM
        await served.wait_quiet()
        assert stream_id == 1
        assert not closed(served)


async def test_lists_that_wait_for_lists_that_their_client_does_not_take_are_dropped_with_them(
    bystander: Connection,
) -> None:
    limits = ConnectionLimits(lists_max=2)
    async with (
        serving(connections=limits) as served,
        Connection.connect(served.port, window=EMPTY_BYTES) as reader,
    ):
        await reader.call("AddCredits", ADD_REQUEST)
        lists = [reader.begin(call_headers(LIST), USER)[1] for _ in range(5)]
        for begun in lists[:2]:
            await begun.begun()
        served.later(LIMITS.stalled_seconds)
        for each in lists:
            await reader.ended(each)
        assert {each.reset for each in lists} == {ErrorCode.ENHANCE_YOUR_CALM}
        assert [bool(each.data) for each in lists] == [True, True, False, False, False]
        await served.wait_quiet()


async def test_a_list_waits_as_long_as_its_client_takes_another() -> None:
    limits = ConnectionLimits(lists_max=1)
    async with (
        serving(connections=limits) as served,
        Connection.connect(served.port, window=EMPTY_BYTES) as reader,
    ):
        await reader.call("AddCredits", ADD_REQUEST)
        stream_id, first = reader.begin(call_headers(LIST), USER)
        await first.begun()
        second = reader.begin(call_headers(LIST), USER)[1]
        await reader.in_order()
        (member,) = members(served)
        waiting = cast(ServerStream, member.processor.streams[stream_id + 2])
        waiting.waiting_since = member.connection.progressed_at = -limits.stalled_seconds
        reader.grow(stream_id, 1)
        await reader.in_order()
        member.check(0.0)
        assert not second.ended.is_set()
        reader.grow(stream_id, 65_535)
        reader.grow(stream_id + 2, 65_535)
        for each in (first, second):
            await reader.ended(each)
            assert each.trailers["grpc-status"] == "0"


@on_both_loops
async def test_the_kernel_buffers_no_more_for_a_client_than_the_limit() -> None:
    async with serving() as served, Connection.connect(served.port) as wire:
        await is_served(wire)
        (member,) = members(served)
        opened = member._transport.get_extra_info("socket")
        held = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        assert held == LIMITS.write_buffer_bytes


def test_a_closed_socket_takes_no_limit_and_raises_nothing() -> None:
    closed_socket = socket.socket()
    closed_socket.close()
    _limit_unsent(asyncio.Transport({"socket": closed_socket}), 1024)


@pytest.mark.parametrize(
    ("last_bytes", "reason"),
    [
        pytest.param(b"", Closing.STALLED, id="and sends nothing"),
        pytest.param(frame(GOAWAY, bytes(8)), Closing.STALLED, id="and sends GOAWAY"),
        pytest.param(None, Closing.CLIENT, id="and closes its side"),
    ],
)
@on_both_loops
async def test_a_reader_that_never_reads_is_closed_in_time(
    last_bytes: bytes | None, reason: Closing
) -> None:
    async with serving(EndlessStore()) as served, Connection.connect(served.port) as bystander:
        for _ in range(50):
            await bystander.call("AddCredits", ADD_REQUEST)
        async with Connection.connect(
            served.port, LARGEST_WINDOW, reads=False, automatic=False
        ) as stuck:
            stuck.write(window_update(WINDOW_BYTES_MAX - WINDOW_BYTES))
            stuck.write(call_frames(1, "ListUserTransactions", UserId(user_id=7)))
            await until(lambda: any(each._times.write_blocked_since for each in members(served)))
            if last_bytes is None:
                stuck.write_eof()
                await until(lambda: any(each._transport.is_closing() for each in members(served)))
            else:
                stuck.write(last_bytes)
            await is_served(bystander)
            if last_bytes:
                await until(lambda: any(each._drain for each in members(served)))
            served.later(LIMITS.stalled_seconds)
            await until(lambda: open_connections(served) == 1)
            assert closed(served) == {reason: 1}
            await is_served(bystander)


@on_both_loops
async def test_a_tls_handshake_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    limits = ConnectionLimits(handshake_seconds=0.05)
    async with serving(connections=limits, tls=certified(tmp_path)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        with contextlib.suppress(ConnectionError):
            assert not await reader.read()
        writer.close()


@on_both_loops
async def test_a_flood_over_tls_is_answered_with_enhance_your_calm(tmp_path: Path) -> None:
    async with serving(tls=certified(tmp_path)) as served:
        client = ssl.create_default_context(cafile=tmp_path / "certificate.pem")
        client.set_alpn_protocols(["h2"])
        async with Connection.connect(served.port, automatic=False, tls=client) as raw:
            await raw.in_order()
            raw.write(frame(PING, bytes(8)) * 20_000)
            payload = (await raw.next(GOAWAY)).payload
            assert ErrorCode(int.from_bytes(payload[4:8])) is ErrorCode.ENHANCE_YOUR_CALM
            served.later(LIMITS.closing_seconds)
            await until(lambda: open_connections(served) == 0)


async def test_connections_over_the_cap_are_closed_at_once() -> None:
    for limits, reason in (
        (ConnectionLimits(connections_max=2), Closing.TOO_MANY),
        (ConnectionLimits(connections_per_peer_max=2), Closing.TOO_MANY_OF_PEER),
    ):
        async with serving(connections=limits) as served, Connection.connect(served.port) as first:
            async with Connection.connect(served.port) as second:
                await is_served(first)
                await is_served(second)
                async with Connection.connect(served.port, automatic=False) as third:
                    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                        await third.next(PING)
                assert closed(served) == {reason: 1}
                assert open_connections(served) == 2
                await is_served(second)
            await until(lambda: open_connections(served) == 1)
            async with Connection.connect(served.port) as fourth:
                await is_served(fourth)


async def test_many_connections_that_send_nothing_hold_up_no_other() -> None:
    async with serving() as served, Connection.connect(served.port) as bystander:
        opened = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(300)]
        await until(lambda: open_connections(served) == 301)
        await is_served(bystander)
        served.later(LIMITS.handshake_seconds)
        assert closed(served) == {Closing.HANDSHAKE: 300}
        await is_served(bystander)
        for _, writer in opened:
            writer.close()
        await until(lambda: open_connections(served) == 1)


async def test_requests_that_are_never_finished_hold_few_bytes(
    served: Serving, bystander: Connection
) -> None:
    limits = ConnectionLimits(request_bytes_max=5000)
    async with serving(connections=limits) as served, Connection.connect(served.port) as wire:
        # Both messages are as long as they may be, and miss their last byte.
        part = framed(bytes(4095), length=4096)
        kept_id, kept = wire.begin(call_headers(PATH), part, end=False)
        ended = await wire.request(call_headers(PATH), part, end=False)
        assert ended.reset is ErrorCode.ENHANCE_YOUR_CALM
        # The server counts the bytes of a call until its task has ended.
        await served.wait_running(1)
        wire.send(kept_id, b"\xff", end=True)
        await wire.ended(kept)
        assert kept.status is Status.INTERNAL  # the whole message has come, and is malformed
        await is_served(wire)


async def test_the_server_checks_the_time_limits_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SWEEP_SECONDS", 0.01)
    limits = ConnectionLimits(handshake_seconds=0.01)
    async with (
        serving(connections=limits) as served,
        Connection.connect(served.port, automatic=False, greeting=b"") as raw,
    ):
        assert await raw.last_goaway() is ErrorCode.PROTOCOL_ERROR


@on_both_loops
async def test_a_client_that_does_not_close_its_side_is_closed_in_time() -> None:
    async with serving() as served, Connection.connect(served.port, automatic=False) as raw:
        raw.write(frame(PING, b"short"))
        await raw.last_goaway()
        raw.write(bytes(100_000))
        assert open_connections(served) == 1
        served.later(LIMITS.closing_seconds)
        await until(lambda: open_connections(served) == 0)
        assert closed(served) == {Closing.PROTOCOL: 1}


async def test_a_stop_does_not_wait_for_a_client_that_was_sent_goaway(served: Serving) -> None:
    async with Connection.connect(served.port, automatic=False) as raw:
        raw.write(frame(HEADERS, b"", flags=END_HEADERS, stream=2))
        await raw.last_goaway()
        await served.server.stop(grace_seconds=0)
        await until(lambda: open_connections(served) == 0)
