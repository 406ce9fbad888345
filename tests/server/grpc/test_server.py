"""Connections: what a peer may do to its own, without any effect on other clients."""

import asyncio
import gc
import struct
import weakref
from collections.abc import MutableMapping
from typing import Any

import pytest
from credit_models import CreditRequest, CreditTransaction, Empty, UserCredits, UserId
from credit_models.codec import encode
from credit_testing.calls import SERVICE, Headers, call_headers, framed
from credit_testing.frames import ErrorCode
from credit_testing.http2_client import Connection
from credit_testing.stores import HeldStore

from tests.server.loops import on_both_loops
from tests.server.serving import Serving, is_served, serving, until

PATH = SERVICE + "GetUserCredits"
SOUND = framed(encode(UserId(user_id=7)))
ADD = framed(encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)))


def frame(type_: int, payload: bytes, *, flags: int = 0, stream: int = 0) -> bytes:
    """Make an HTTP/2 frame of any type (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", type_, flags, stream) + payload


async def _closes(wire: Connection) -> None:
    """Wait until the server has closed the connection."""
    await wire.closed.wait()


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", id="HTTP/1.1"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50), id="TLS"),
        pytest.param(bytes(1000), id="zeros"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", id="a preface that is almost right"),
    ],
)
async def test_a_connection_that_is_not_http2_is_closed(
    served: Serving, bystander: Connection, garbage: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(garbage)
    await reader.read()
    writer.close()


async def test_a_client_that_connects_and_sends_nothing_does_no_harm(
    served: Serving, bystander: Connection
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    await is_served(bystander)
    writer.close()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(":method", "POST"), (":scheme", "http"), ("te", "trailers")], id="no :path"),
        pytest.param([(":scheme", "http"), (":path", PATH), ("te", "trailers")], id="no :method"),
        pytest.param(call_headers("")[:3], id="an empty :path"),
        pytest.param(call_headers(PATH, ("X-Upper", "1")), id="upper case"),
        pytest.param(call_headers(PATH, ("x y", "1")), id="a space in a name"),
        pytest.param(call_headers(PATH, ("x-zero", b"\x00")), id="a zero byte in a value"),
        pytest.param(call_headers(PATH, (":path", "/again")), id="a second :path"),
        pytest.param(call_headers(PATH, ("connection", "close")), id="a header of HTTP/1.1"),
        pytest.param(call_headers(PATH, ("te", "gzip")), id="another te"),
    ],
)
async def test_malformed_headers_reset_their_call_alone(
    wire: Connection,
    bystander: Connection,
    logged: list[MutableMapping[str, Any]],
    headers: Headers,
) -> None:
    stream_id, other = wire.begin(call_headers(PATH), end=False)
    malformed = await wire.request(headers, SOUND)
    assert malformed.reset is ErrorCode.PROTOCOL_ERROR
    assert not malformed.headers
    wire.send(stream_id, SOUND, end=True)
    assert (await wire.ended(other)).message(UserCredits) == UserCredits(user_id=7)
    (line,) = (line for line in logged if line["event"] == "request reset")
    assert line["peer"].startswith("127.0.0.1:")
    assert "exc_info" not in line


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(0, b"x", stream=0), ErrorCode.PROTOCOL_ERROR, id="DATA on stream 0"),
        pytest.param(frame(1, b"\xff" * 9, flags=4, stream=1), None, id="no HPACK"),
        pytest.param(frame(6, b"short"), None, id="a PING of five bytes"),
        pytest.param(frame(8, bytes(4)), None, id="a WINDOW_UPDATE of nothing"),
        pytest.param(frame(0, bytes(2**20)), None, id="a frame over the limit"),
        pytest.param(frame(9, b"", stream=1), ErrorCode.PROTOCOL_ERROR, id="a lone CONTINUATION"),
    ],
)
async def test_a_broken_frame_ends_the_connection_with_a_goaway(
    wire: Connection, bystander: Connection, data: bytes, code: ErrorCode | None
) -> None:
    await is_served(wire)
    wire.write(data)
    await _closes(wire)
    assert wire.goaway not in (None, ErrorCode.NO_ERROR)
    assert code in (None, wire.goaway)


async def test_a_frame_of_an_unknown_type_is_ignored(
    wire: Connection, bystander: Connection
) -> None:
    stream_id, answer = wire.begin(call_headers(PATH), end=False)
    wire.write(frame(0xFA, b"whatever"))
    wire.write(frame(0xFA, b"whatever", flags=0xFF, stream=stream_id))
    await is_served(wire)
    wire.send(stream_id, SOUND, end=True)
    assert (await wire.ended(answer)).message(UserCredits) == UserCredits(user_id=7)


async def test_an_unknown_setting_is_ignored(wire: Connection, bystander: Connection) -> None:
    wire.write(frame(4, struct.pack(">HI", 0xFABC, 1)))
    await is_served(wire)


async def test_one_call_in_error_leaves_the_connections_other_calls_alone(
    wire: Connection, bystander: Connection
) -> None:
    stream_id, answer = wire.begin(call_headers(PATH), end=False)
    await wire.request(call_headers(PATH), framed(b"\xff"))
    wire.send(stream_id, SOUND, end=True)
    assert (await wire.ended(answer)).message(UserCredits) == UserCredits(user_id=7)


async def test_a_reset_cancels_the_call_and_nothing_of_it_stays() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        stream_id, _ = wire.begin(call_headers(SERVICE + "AddCredits"), ADD)
        await store.entered.wait()
        wire.reset(stream_id)
        await served.wait_quiet()
        assert served.running_calls() == 0
        store.released.set()
        await is_served(wire)


async def test_a_reset_does_not_undo_a_write_that_is_under_way() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        stream_id, _ = wire.begin(call_headers(SERVICE + "AddCredits"), ADD)
        await store.entered.wait()
        wire.reset(stream_id)
        await served.wait_quiet()
        _, next_add = wire.begin(call_headers(SERVICE + "AddCredits"), ADD)
        store.released.set()
        assert (await wire.ended(next_add)).message(Empty) == Empty()
        listed = await wire.call("ListUserTransactions", UserId(user_id=7))
        assert len(listed.messages(CreditTransaction)) == 2


async def test_a_call_that_is_reset_before_it_begins_leaves_nothing_behind(
    wire: Connection, served: Serving, bystander: Connection
) -> None:
    for _ in range(50):
        # One write: the server reads both frames before it runs anything of the call.
        stream_id, _ = wire.begin(call_headers(PATH), end=False)
        wire.reset(stream_id)
    await is_served(wire)
    await served.wait_quiet()
    assert served.running_calls() == 0


async def test_a_reset_while_the_request_is_read_cancels_the_call(
    wire: Connection, served: Serving, bystander: Connection
) -> None:
    stream_id, _ = wire.begin(call_headers(PATH), SOUND[:3], end=False)
    await wire.in_order()
    wire.reset(stream_id)
    await is_served(wire)
    await served.wait_quiet()
    assert served.running_calls() == 0


async def test_data_for_a_call_that_is_over_is_no_harm(
    wire: Connection, bystander: Connection
) -> None:
    stream_id, answer = wire.begin(call_headers("/unknown"), end=False)
    # More than a connection's window, which would be used up without WINDOW_UPDATE.
    for _ in range(8):
        if answer.ended.is_set():
            break
        wire.send(stream_id, bytes(8000))
        await wire.in_order()
    await is_served(wire)


@on_both_loops
async def test_a_disconnected_client_leaves_nothing_behind(
    logged: list[MutableMapping[str, Any]],
) -> None:
    async with serving() as served, Connection.connect(served.port) as bystander:
        async with Connection.connect(served.port) as wire:
            for path in (PATH, "/grpc.health.v1.Health/Watch"):
                wire.begin(call_headers(path), SOUND[:3], end=False)
            await wire.in_order()
        await until(lambda: len(served.server._protocols) == 1)
        await served.wait_quiet()
        await is_served(bystander)
        assert served.running_calls() == 0
    calls = [line["status"] for line in logged if line["event"] == "call"]
    assert calls == ["CANCELLED", "CANCELLED", "OK"]


async def test_a_connection_is_forgotten_when_it_is_closed(served: Serving) -> None:
    for _ in range(25):
        async with Connection.connect(served.port) as wire:
            await is_served(wire)
    await until(lambda: not served.server._protocols)
    served.server.__gc_collect__()
    gc.collect()
    assert not served.server._handlers


@on_both_loops
async def test_a_closed_connection_is_freed_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        async with serving() as served:
            async with Connection.connect(served.port) as wire:
                await is_served(wire)
                wire.begin(call_headers("/grpc.health.v1.Health/Watch"), SOUND[:3], end=False)
                await wire.in_order()
                (protocol,) = map(weakref.ref, served.server._protocols)
            await until(lambda: not served.server._protocols)
            await served.wait_quiet()
            # grpclib's server keeps the handler of a closed connection until it collects these.
            served.server.__gc_collect__()
            for _ in range(100):  # the event loop's last callbacks of the connection
                await asyncio.sleep(0)
            assert protocol() is None
    finally:
        gc.enable()


async def _history(wire: Connection, entries: int) -> None:
    """Give user 7 a history of that many transactions, about 60 bytes each."""
    begun = [wire.begin(call_headers(SERVICE + "AddCredits"), ADD)[1] for _ in range(entries)]
    for answer in begun:
        await wire.ended(answer)


async def test_a_client_that_leaves_in_mid_stream_ends_its_call(
    served: Serving, bystander: Connection
) -> None:
    async with Connection.connect(served.port) as writer:
        await _history(writer, 60)
    async with Connection.connect(served.port, window=1000) as reader:
        _, answer = reader.begin(call_headers(SERVICE + "ListUserTransactions"), SOUND)
        await answer.begun()
    await served.wait_quiet()
    await is_served(bystander)


async def test_a_reader_with_a_closed_window_holds_up_no_other_client(
    served: Serving, bystander: Connection
) -> None:
    async with Connection.connect(served.port) as writer:
        await _history(writer, 60)
    async with Connection.connect(served.port, window=0) as reader:
        stream_id, answer = reader.begin(call_headers(SERVICE + "ListUserTransactions"), SOUND)
        await reader.in_order()
        await is_served(bystander)
        assert answer.headers[":status"] == "200"
        assert not answer.data

        reader.grow(stream_id, 2**20)
        await reader.ended(answer)
        assert len(answer.messages(CreditTransaction)) == 60


async def test_a_single_answer_waits_for_its_window(served: Serving, bystander: Connection) -> None:
    async with Connection.connect(served.port, window=3) as reader:
        stream_id, answer = reader.begin(call_headers(PATH), SOUND)
        await answer.begun()
        assert len(answer.data) == 3
        reader.grow(stream_id, 2**20)
        await reader.ended(answer)
        assert answer.message(UserCredits) == UserCredits(user_id=7)


async def test_a_stalled_answer_ends_with_its_deadline(
    served: Serving, bystander: Connection
) -> None:
    async with Connection.connect(served.port, window=0) as reader:
        headers = call_headers(PATH, ("grpc-timeout", "20m"))
        answer = await reader.request(headers, SOUND)
        assert answer.status is not None
        assert answer.status.name == "DEADLINE_EXCEEDED"
        assert served.running_calls() == 0
