"""The client on real sockets: what connections and servers do wrong, and what the caller sees."""

import asyncio
import base64
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from credit_client import (
    ClientClosed,
    ClientSettings,
    CreditClient,
    DeadlineExceeded,
    InsufficientCredits,
    InternalError,
    Overloaded,
    ProtocolMismatch,
    Unavailable,
)
from credit_client.grpc_transport import MESSAGE_BYTES_MAX
from credit_client.testing import FakeCreditService
from credit_models import ErrorReason, Purchase, Receipt, TransactionType
from credit_models.codec import WireCodec, encode
from h2.errors import ErrorCodes
from h2.events import PingReceived, RequestReceived, StreamEnded, StreamReset
from hyperframe.frame import GoAwayFrame

# Any: the connections and servers are those of conftest, which importlib mode cannot name here.
Raw = Callable[..., AbstractAsyncContextManager[Any]]
Fake = Callable[..., AbstractAsyncContextManager[int]]

SENT = Receipt(transaction_id="t1", balance=120, sequence=1)
RECEIPT_TRAILER = ("credit-receipt-bin", base64.b64encode(encode(SENT)).decode().rstrip("="))
# The receipt of an addition, with what follows from the request.
RECEIPT = replace(SENT, type=TransactionType.ADD, credits=120, effect=120, revision=1)

IMPATIENT = {"keepalive_seconds": 0.01, "keepalive_timeout_seconds": 0.05}


def _client(port: int, **settings: Any) -> CreditClient:
    quick: dict[str, Any] = {
        "streams": "off",  # the scripts answer calls
        "retry_backoff_initial_seconds": 0.001,
        "retry_backoff_max_seconds": 0.001,
    }
    return CreditClient(
        settings=ClientSettings(target=f"127.0.0.1:{port}", **(quick | {"channels": 1} | settings))
    )


async def _add(client: CreditClient, **options: Any) -> Receipt:
    return await client.add(user_id=7, app_id=1, credits=120, created_by=1, **options)


def write_well(peer: Any, stream_id: int) -> None:
    peer.headers(stream_id)
    peer.message(stream_id)
    peer.trailers(stream_id, RECEIPT_TRAILER)


def be_silent(_peer: Any, _stream_id: int) -> None:
    pass


def vanish(peer: Any, _stream_id: int) -> None:
    peer.transport.pause_reading()


def send_goaway(peer: Any, _stream_id: int) -> None:
    peer.h2.close_connection(last_stream_id=0)


def send_broken_goaway(peer: Any, _stream_id: int) -> None:
    peer.h2.close_connection(ErrorCodes.INTERNAL_ERROR)


def send_goaway_gracefully(peer: Any, stream_id: int) -> None:
    """Send GOAWAY as a server that stops; after h2's own it could not answer any more."""
    goaway = GoAwayFrame(0)
    goaway.last_stream_id = stream_id
    peer.transport.write(goaway.serialize())


def reset_stream(peer: Any, stream_id: int) -> None:
    peer.h2.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)


def hang_up(peer: Any, _stream_id: int) -> None:
    peer.transport.abort()


def send_rubbish(peer: Any, _stream_id: int) -> None:
    peer.transport.write(bytes(9))  # DATA on stream 0: RFC 9113 section 6.1


def answer_503(peer: Any, stream_id: int) -> None:
    peer.h2.send_headers(stream_id, [(":status", "503"), ("content-type", "text/html")], True)


FAILING = [send_goaway, send_broken_goaway, reset_stream, hang_up, send_rubbish, answer_503]


@pytest.mark.parametrize("failing", FAILING)
async def test_a_write_whose_connection_fails_is_retried(
    raw_server: Raw, failing: Callable[..., None]
) -> None:
    async with raw_server(failing, failing, write_well) as server, _client(server.port) as client:
        assert await _add(client) == RECEIPT


@pytest.mark.parametrize("failing", FAILING)
async def test_a_connection_that_always_fails_is_unavailable(
    raw_server: Raw, failing: Callable[..., None]
) -> None:
    async with (
        raw_server(failing) as server,
        _client(server.port, retry_attempts_max=3) as client,
    ):
        with pytest.raises(Unavailable):
            await _add(client)


async def test_all_calls_on_a_connection_that_is_lost_are_retried(raw_server: Raw) -> None:
    scripts = [be_silent, be_silent, send_goaway, write_well]
    async with raw_server(*scripts) as server, _client(server.port) as client:
        receipts = await asyncio.gather(*(_add(client) for _ in range(3)))
        assert receipts == [RECEIPT] * 3
        assert len(server.connections) == 2


async def test_a_call_under_way_at_a_goaway_is_answered_and_the_next_opens_a_connection(
    raw_server: Raw,
) -> None:
    peers: list[tuple[Any, int]] = []

    def wait(peer: Any, stream_id: int) -> None:
        peers.append((peer, stream_id))

    def answer_after_goaway(peer: Any, stream_id: int) -> None:
        first, running = peers[0]
        assert peer is not first
        write_well(peer, stream_id)
        write_well(first, running)
        first.flush()

    def goaway(peer: Any, stream_id: int) -> None:
        send_goaway_gracefully(peer, stream_id)
        write_well(peer, stream_id)

    async with (
        raw_server(wait, goaway, answer_after_goaway) as server,
        _client(server.port, retry_attempts_max=1) as client,
    ):
        running = asyncio.create_task(_add(client))
        while not peers:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0)
        assert await _add(client) == RECEIPT
        assert await _add(client) == RECEIPT
        assert await running == RECEIPT
        assert len(server.connections) == 2


async def test_calls_that_a_goaway_does_not_accept_are_retried_at_once(raw_server: Raw) -> None:
    def goaway(peer: Any, stream_id: int) -> None:
        send_goaway_gracefully(peer, stream_id - 2)
        write_well(peer, stream_id - 2)

    async with (
        raw_server(be_silent, goaway, write_well) as server,
        _client(server.port) as client,
    ):
        receipts = await asyncio.gather(_add(client), _add(client))
        assert list(receipts) == [RECEIPT] * 2
        assert len(server.connections) == 2


async def test_a_call_that_waits_for_a_stream_at_a_goaway_uses_another_connection(
    raw_server: Raw,
) -> None:
    def goaway(peer: Any, stream_id: int) -> None:
        send_goaway_gracefully(peer, stream_id)
        write_well(peer, stream_id)

    async with (
        raw_server(goaway, write_well, streams_max=1) as server,
        _client(server.port) as client,
    ):
        await asyncio.gather(_add(client), _add(client))
        assert len(server.connections) == 2


async def test_a_refused_connection_is_unavailable(unused_tcp_port: int) -> None:
    async with _client(unused_tcp_port, wait_for_ready=False, retry_attempts_max=2) as client:
        with pytest.raises(Unavailable, match=f"cannot connect to 127.0.0.1:{unused_tcp_port}"):
            await _add(client)


async def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    async with CreditClient(
        settings=ClientSettings(target="nowhere.invalid:1", retry_attempts_max=1)
    ) as client:
        with pytest.raises(Unavailable, match=r"cannot connect to nowhere\.invalid:1"):
            await _add(client)


async def test_something_that_is_not_http2_is_unavailable(raw_server: Raw) -> None:
    async with (
        raw_server(write_well, first_bytes=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server,
        _client(server.port, wait_for_ready=False, retry_attempts_max=2) as client,
    ):
        with pytest.raises(Unavailable, match="does not speak HTTP/2"):
            await _add(client)


def _broken(*steps: Callable[[Any, int], None]) -> Callable[[Any, int], None]:
    def script(peer: Any, stream_id: int) -> None:
        for step in steps:
            step(peer, stream_id)

    return script


def start(peer: Any, stream_id: int) -> None:
    peer.headers(stream_id)


def finish(peer: Any, stream_id: int) -> None:
    peer.trailers(stream_id, RECEIPT_TRAILER)


BROKEN = {
    "no message": _broken(start, finish),
    "no receipt": _broken(
        start, lambda peer, stream: peer.message(stream), lambda peer, stream: peer.trailers(stream)
    ),
    "receipt that is no message": _broken(
        start,
        lambda peer, stream: peer.message(stream),
        lambda peer, stream: peer.trailers(stream, ("credit-receipt-bin", "/////w")),
    ),
    "receipt that is no base64": _broken(
        start,
        lambda peer, stream: peer.message(stream),
        lambda peer, stream: peer.trailers(stream, ("credit-receipt-bin", "A")),
    ),
    "message that is no protobuf": _broken(
        start, lambda peer, stream: peer.message(stream, b"\xff\xff"), finish
    ),
    "receipt with a number that does not fit": _broken(
        start,
        lambda peer, stream: peer.message(stream),
        # balance = 2**32 + 5
        lambda peer, stream: peer.trailers(stream, ("credit-receipt-bin", "CgF0GIWAgIAQIAE=")),
    ),
    "compressed message": _broken(start, lambda peer, stream: peer.message(stream, flag=1), finish),
    "message that is too large": _broken(
        start,
        lambda peer, stream: peer.h2.send_data(
            stream, b"\0" + (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big")
        ),
    ),
    "message that is cut": _broken(
        start, lambda peer, stream: peer.h2.send_data(stream, b"\0\0\0\0\x09abc"), finish
    ),
    "no method": lambda peer, stream: peer.headers(stream, ("grpc-status", "12"), end=True),
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
async def test_an_answer_that_breaks_the_contract_is_a_protocol_mismatch(
    raw_server: Raw, script: Callable[..., None]
) -> None:
    async with raw_server(script) as server, _client(server.port) as client:
        with pytest.raises(ProtocolMismatch) as caught:
            await _add(client)
        assert caught.value.request_id is not None
        assert len(server.connections) == 1


@pytest.mark.parametrize(
    "headers",
    [
        [(":status", "200"), ("content-type", "text/html")],
        [(":status", "200")],
        [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "none")],
        [(":status", "500"), ("content-type", "text/html")],
    ],
)
async def test_headers_that_are_not_grpc_s_are_an_internal_error(
    raw_server: Raw, headers: list[tuple[str, str]]
) -> None:
    def script(peer: Any, stream_id: int) -> None:
        peer.h2.send_headers(stream_id, headers, end_stream=True)

    async with raw_server(script) as server, _client(server.port) as client:
        with pytest.raises(InternalError):
            await _add(client)


async def test_a_refusal_in_trailers_only_brings_its_details_and_the_server_s_request_id(
    raw_server: Raw, fake_server: Fake
) -> None:
    async with fake_server(FakeCreditService()) as port, _client(port) as client:
        with pytest.raises(InsufficientCredits) as caught:
            await client.use(
                user_id=7, app_id=1, report_id="r", report_name="n", credits=5, created_by=1
            )
    assert (caught.value.available, caught.value.required, caught.value.shortfall) == (0, 5, 5)

    def script(peer: Any, stream_id: int) -> None:
        extra = [("grpc-status", "14"), ("grpc-message", "away%21"), ("x-request-id", "theirs")]
        peer.headers(stream_id, *extra, end=True)

    async with (
        raw_server(script) as server,
        _client(server.port, retry_attempts_max=1) as client,
    ):
        with pytest.raises(Unavailable, match="away!") as caught_too:
            await _add(client)
    assert caught_too.value.request_id == "theirs"


async def test_the_request_id_and_the_time_are_sent(raw_server: Raw) -> None:
    async with raw_server(write_well) as server, _client(server.port) as client:
        await _add(client, timeout_seconds=5)
        request = await server.event(RequestReceived)
    headers = dict(request.headers)
    assert len(headers["x-request-id"]) == 32
    assert headers["grpc-timeout"].endswith("m")
    assert 1000 < int(headers["grpc-timeout"][:-1]) <= 5000


async def test_a_cancelled_call_is_reset_and_leaves_no_task(raw_server: Raw) -> None:
    async with raw_server(be_silent, write_well) as server, _client(server.port) as client:
        before = asyncio.all_tasks()
        task = asyncio.create_task(_add(client))
        await server.event(RequestReceived)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        reset = await server.event(StreamReset)
        assert reset.error_code is ErrorCodes.CANCEL
        assert asyncio.all_tasks() == before
        assert await _add(client) == RECEIPT
        assert len(server.connections) == 1


async def test_a_call_that_runs_out_of_time_is_reset(raw_server: Raw) -> None:
    async with raw_server(write_well, be_silent) as server, _client(server.port) as client:
        await _add(client)  # opens the connection, which may take longer than the next call has
        with pytest.raises(DeadlineExceeded):
            await _add(client, timeout_seconds=0.05)
        assert (await server.event(StreamReset)).error_code is ErrorCodes.CANCEL


async def test_leaving_a_list_early_resets_its_stream(raw_server: Raw) -> None:
    def script(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        peer.message(stream_id, encode(Purchase(id="1")))
        peer.message(stream_id, encode(Purchase(id="2")))

    async with raw_server(script) as server, _client(server.port) as client:
        async for purchase in client.purchases(user_id=7):
            assert purchase.id == "1"
            break
        assert (await server.event(StreamReset)).error_code is ErrorCodes.CANCEL


async def test_a_list_whose_connection_is_lost_midway_is_unavailable(raw_server: Raw) -> None:
    def script(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        peer.message(stream_id, encode(Purchase(id="1")))
        peer.flush()
        peer.transport.close()

    async with raw_server(script) as server, _client(server.port) as client:
        purchases = client.purchases(user_id=7)
        with pytest.raises(Unavailable):
            [purchase async for purchase in purchases]
        assert len(server.connections) == 1


async def test_an_answer_with_a_number_that_does_not_fit_is_a_protocol_mismatch(
    raw_server: Raw,
) -> None:
    def script(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        peer.message(stream_id, bytes.fromhex("0805 108580808010"))  # balance = 2**32 + 5
        peer.trailers(stream_id)

    async with raw_server(script) as server, _client(server.port) as client:
        with pytest.raises(ProtocolMismatch, match="balance must be 0 to 4294967295"):
            await client.balance(app_id=5)


async def test_an_unknown_frame_and_an_empty_one_are_ignored(raw_server: Raw) -> None:
    def script(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        peer.flush()
        peer.transport.write(b"\0\0\x01\xfa\0\0\0\0\0?")
        peer.h2.send_data(stream_id, b"")
        peer.flush()
        peer.message(stream_id)
        peer.trailers(stream_id, RECEIPT_TRAILER)

    async with raw_server(script) as server, _client(server.port) as client:
        assert await _add(client) == RECEIPT


async def test_calls_above_the_server_s_limit_of_streams_wait_for_their_turn(
    raw_server: Raw,
) -> None:
    async with raw_server(write_well, streams_max=1) as server, _client(server.port) as client:
        await _add(client)
        assert await asyncio.gather(*(_add(client) for _ in range(5))) == [RECEIPT] * 5


async def test_calls_that_wait_for_a_stream_survive_the_loss_of_the_connection(
    raw_server: Raw,
) -> None:
    async with (
        raw_server(write_well, send_goaway, write_well, streams_max=1) as server,
        _client(server.port) as client,
    ):
        await _add(client)
        assert await asyncio.gather(*(_add(client) for _ in range(5))) == [RECEIPT] * 5


async def test_a_paused_list_does_not_keep_others_waiting_once_the_connection_is_lost(
    raw_server: Raw,
) -> None:
    def begin(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        peer.message(stream_id, encode(Purchase(id="1")))

    async with (
        raw_server(write_well, begin, write_well, streams_max=1) as server,
        _client(server.port) as client,
    ):
        await _add(client)
        paused = client.purchases(user_id=7)
        await anext(paused)
        waiting = asyncio.create_task(_add(client))
        await asyncio.sleep(0)
        server.connections[0].transport.abort()
        assert await waiting == RECEIPT
        with pytest.raises(Unavailable):
            await anext(paused)


async def test_a_server_that_goes_away_and_returns_is_found_again(fake_server: Fake) -> None:
    service = FakeCreditService()
    async with fake_server(service) as port:
        client = _client(port, channels=2, wait_for_ready=False, retry_attempts_max=2)
        await client.__aenter__()
        for _ in range(3):
            await _add(client)
    with pytest.raises(Unavailable):
        await _add(client)
    async with fake_server(service, port):
        for _ in range(3):
            await _add(client)
        assert await client.balance(app_id=1, user_id=7) == 6 * 120
        await client.__aexit__(None, None, None)


async def test_calls_are_spread_over_the_channels(raw_server: Raw) -> None:
    async with raw_server(write_well) as server, _client(server.port, channels=3) as client:
        await asyncio.gather(*(_add(client) for _ in range(6)))
        assert len(server.connections) == 3


async def test_closing_ends_calls_that_are_under_way_and_resets_their_streams(
    raw_server: Raw,
) -> None:
    def begin(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        peer.message(stream_id, encode(Purchase(id="1")))

    async with raw_server(begin, be_silent) as server:
        async with _client(server.port) as client:
            history = client.purchases(user_id=7)
            await anext(history)
            await server.event(RequestReceived)
            task = asyncio.create_task(_add(client))
            await server.event(RequestReceived)
        with pytest.raises(ClientClosed):
            await task
        with pytest.raises(ClientClosed):
            await anext(history)
        await server.event(StreamReset)
        await server.connections[0].lost


async def test_a_slow_server_does_not_lose_its_other_calls_when_one_gives_up(
    raw_server: Raw,
) -> None:
    async with (
        raw_server(be_silent) as server,
        # The server answers each PING; how fast is not what is tested.
        _client(server.port, keepalive_seconds=0.01, keepalive_timeout_seconds=5) as client,
    ):
        others = [asyncio.create_task(_add(client)) for _ in range(3)]
        streams = [(await server.event(StreamEnded)).stream_id for _ in others]
        with pytest.raises(DeadlineExceeded):
            await _add(client, timeout_seconds=0.05)
        for _ in range(2):
            await server.event(PingReceived)
        assert not any(other.done() for other in others)
        (peer,) = server.connections
        for stream_id in streams:
            write_well(peer, stream_id)
        peer.flush()
        assert await asyncio.gather(*others) == [RECEIPT] * 3
        assert len(server.connections) == 1
        assert peer.h2.highest_inbound_stream_id == 2 * 4 - 1, "something was sent twice"


async def test_calls_to_a_server_that_vanished_are_retried_on_a_new_connection(
    raw_server: Raw,
) -> None:
    scripts = [be_silent, be_silent, vanish, write_well]
    async with raw_server(*scripts) as server, _client(server.port, **IMPATIENT) as client:
        assert await asyncio.gather(*(_add(client) for _ in range(3))) == [RECEIPT] * 3


async def test_a_server_that_vanishes_each_time_is_unavailable(raw_server: Raw) -> None:
    async with (
        raw_server(vanish) as server,
        _client(server.port, **IMPATIENT, retry_attempts_max=2) as client,
    ):
        with pytest.raises(Unavailable, match="the server does not answer"):
            await _add(client)
        assert len(server.connections) == 2


async def test_a_list_whose_server_vanishes_midway_is_unavailable(raw_server: Raw) -> None:
    def script(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        peer.message(stream_id, encode(Purchase(id="1")))
        vanish(peer, stream_id)

    async with raw_server(script) as server, _client(server.port, **IMPATIENT) as client:
        with pytest.raises(Unavailable, match="the server does not answer"):
            [purchase async for purchase in client.purchases(user_id=7)]
        assert len(server.connections) == 1


async def test_a_call_that_is_given_up_soon_does_not_cost_the_connection(raw_server: Raw) -> None:
    scripts = [write_well, be_silent, write_well]
    async with raw_server(*scripts) as server, _client(server.port) as client:
        await _add(client)  # opens the connection, which may take longer than the next call has
        with pytest.raises(DeadlineExceeded):
            await _add(client, timeout_seconds=0.05)
        assert await _add(client) == RECEIPT
        assert len(server.connections) == 1


async def test_a_call_to_an_overloaded_server_is_retried(fake_server: Fake) -> None:
    service = FakeCreditService()
    async with fake_server(service) as port, _client(port, retry_attempts_max=3) as client:
        service.fail_next(ErrorReason.OVERLOADED, times=2)
        assert (await _add(client)).balance == 120
        service.fail_next(ErrorReason.OVERLOADED, times=3)
        with pytest.raises(Overloaded):
            await _add(client)


async def test_a_lost_connection_leaves_the_task_s_cancellation_count_alone(
    raw_server: Raw,
) -> None:
    async with raw_server(hang_up, write_well) as server, _client(server.port) as client:
        await _add(client)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


class Bug(Exception):
    """An unforeseen error."""


@pytest.mark.parametrize("error", [Bug("!"), RuntimeError("!"), TimeoutError("!"), OSError("!")])
@pytest.mark.parametrize("place", ["encode", "decode"])
async def test_an_unforeseen_error_of_this_process_is_not_called_a_bad_answer(
    raw_server: Raw, monkeypatch: pytest.MonkeyPatch, error: Exception, place: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    async with raw_server(write_well) as server, _client(server.port) as client:
        with monkeypatch.context() as patch:
            patch.setattr(WireCodec, place, fail)
            with pytest.raises(type(error)) as caught:
                await _add(client)
            assert caught.value is error
        assert await _add(client) == RECEIPT
        assert len(server.connections) == 1


async def test_an_unforeseen_error_inside_a_list_is_not_called_a_bad_answer(
    raw_server: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        peer.message(stream_id, encode(Purchase(id="1")))
        peer.trailers(stream_id)

    def fail(*_: object) -> None:
        raise Bug("!")

    async with raw_server(script) as server, _client(server.port) as client:
        monkeypatch.setattr(WireCodec, "decode", fail)
        with pytest.raises(Bug):
            await anext(client.purchases(user_id=7))


async def test_an_error_while_an_event_is_handled_reaches_the_event_loop(
    raw_server: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fail(*_: object) -> None:
        raise Bug("!")

    monkeypatch.setattr("credit_client.connection._Processor.process_data_received", fail)
    async with (
        raw_server(write_well) as server,
        _client(server.port, retry_attempts_max=1) as client,
    ):
        with pytest.raises(Unavailable):
            await _add(client)
    assert isinstance(reported[0]["exception"], Bug)
