"""A server that is down for a while: its calls wait, and it sees no storm when it is back."""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from aiohappyeyeballs import AddrInfoType
from credit_client import (
    ClientClosed,
    ClientSettings,
    CreditClient,
    DeadlineExceeded,
    Receipt,
    Unavailable,
)
from credit_client.addresses import resolve
from credit_client.channel import ClientChannel
from credit_client.grpc_transport import GrpcTransport, connect
from credit_client.retry import Backoff
from credit_client.target import Target
from credit_client.testing import FakeCreditService
from credit_client.transport import NotConnected
from credit_testing.certificates import Authority
from h2.events import RequestReceived
from hyperframe.frame import GoAwayFrame

# Any: the connections and servers are those of conftest, which importlib mode cannot name here.
Raw = Callable[..., AbstractAsyncContextManager[Any]]
Fake = Callable[..., AbstractAsyncContextManager[int]]

AT_ONCE = Backoff(initial_seconds=0.001, max_seconds=0.001)
QUICK: dict[str, Any] = {"retry_backoff_initial_seconds": 0.001, "retry_backoff_max_seconds": 0.001}


class Attempts:
    """The attempts to connect, each of which waits until the test lets it go on."""

    def __init__(self) -> None:
        self.begun = 0
        self.at_once = 0
        self.at_once_max = 0
        self._allowed = asyncio.Semaphore(0)
        self._changed = asyncio.Condition()

    async def __call__(self, host: str, port: int) -> Sequence[AddrInfoType]:
        async with self._changed:
            self.begun += 1
            self.at_once += 1
            self.at_once_max = max(self.at_once_max, self.at_once)
            self._changed.notify_all()
        await self._allowed.acquire()
        self.at_once -= 1
        return await resolve(host, port)

    async def let(self, number: int) -> None:
        """Let so many go on, and wait until the one after them has begun."""
        until = max(1, self.begun) + number  # the first one may not have begun yet
        for _ in range(number):
            self._allowed.release()
        async with self._changed:
            await self._changed.wait_for(lambda: self.begun >= until)

    def let_all(self) -> None:
        for _ in range(1000):
            self._allowed.release()


async def _add(client: CreditClient, **options: Any) -> Receipt:
    return await client.add(user_id=7, app_id=1, credits=1, created_by=1, **options)


def _quick(port: int, **settings: Any) -> CreditClient:
    return CreditClient(settings=ClientSettings(target=f"127.0.0.1:{port}", **QUICK | settings))


async def test_all_calls_wait_for_one_attempt_to_connect_at_a_time_and_succeed_in_the_end(
    fake_server: Fake, unused_tcp_port: int
) -> None:
    service, attempts = FakeCreditService(), Attempts()
    target = Target(host="127.0.0.1", port=unused_tcp_port)
    transport = connect(
        target, channels=1, connect_timeout_seconds=60, backoff=AT_ONCE, resolver=attempts
    )
    settings = ClientSettings(timeout_seconds=60, retry_budget_tokens=2, retry_attempts_max=2)
    async with CreditClient(str(target), settings=settings, transport=transport) as client:
        calls = [asyncio.create_task(_add(client)) for _ in range(300)]
        await attempts.let(20)
        assert not any(call.done() for call in calls)
        down = attempts.begun
        async with fake_server(service, unused_tcp_port):
            attempts.let_all()
            balances = [(await call).balance for call in calls]
            assert await client.balance(app_id=1) == 300
    assert sorted(balances) == list(range(1, 301))
    # Whatever number of calls wait: one attempt after the other, and none besides the last one.
    assert (down, attempts.begun, attempts.at_once_max) == (21, 21, 1)


async def test_two_channels_do_not_connect_side_by_side_while_the_server_is_down(
    fake_server: Fake, unused_tcp_port: int
) -> None:
    service, attempts = FakeCreditService(), Attempts()
    target = Target(host="127.0.0.1", port=unused_tcp_port)
    transport = connect(
        target, channels=2, connect_timeout_seconds=60, backoff=AT_ONCE, resolver=attempts
    )
    settings = ClientSettings(timeout_seconds=60)
    async with CreditClient(str(target), settings=settings, transport=transport) as client:
        calls = [asyncio.create_task(_add(client)) for _ in range(100)]
        await attempts.let(2)  # those of both channels, before it is known that the server is down
        attempts.at_once_max = 0
        await attempts.let(10)
        assert attempts.at_once_max == 1
        async with fake_server(service, unused_tcp_port):
            attempts.let_all()
            await asyncio.gather(*calls)


async def test_a_call_whose_time_runs_out_names_why_there_was_no_connection(
    unused_tcp_port: int,
) -> None:
    async with _quick(unused_tcp_port) as client:
        with pytest.raises(DeadlineExceeded, match=r"no connection within 0\.5 s") as caught:
            await _add(client, timeout_seconds=0.5)
        assert isinstance(caught.value.__cause__, NotConnected)
        assert "the connection was refused (is the server running?)" in str(caught.value.__cause__)
        assert caught.value.idempotency_key is not None
        with pytest.raises(DeadlineExceeded, match="connection was refused"):
            await anext(client.purchases(user_id=7, timeout_seconds=0.5))


async def test_a_call_that_must_not_wait_fails_soon(unused_tcp_port: int) -> None:
    for settings in ({"wait_for_ready": False}, {"retry_attempts_max": 1}):
        async with _quick(unused_tcp_port, **settings) as client:
            with pytest.raises(Unavailable, match=r"refused \(is the server running"):
                await _add(client, timeout_seconds=3600)


async def test_closing_ends_calls_that_wait_for_a_connection(unused_tcp_port: int) -> None:
    async with _quick(unused_tcp_port) as client:
        waiting = asyncio.create_task(_add(client))
        await asyncio.sleep(0.05)
    with pytest.raises(ClientClosed):
        await waiting


async def test_a_lost_connection_takes_one_token_however_many_calls_it_takes_with_it(
    raw_server: Raw,
) -> None:
    def be_silent(_peer: Any, _stream_id: int) -> None:
        pass

    def hang_up(peer: Any, _stream_id: int) -> None:
        peer.transport.abort()

    scripts = [*[be_silent] * 89, hang_up, write_well]
    async with (
        raw_server(*scripts) as server,
        _quick(server.port, channels=1, retry_budget_tokens=4) as client,
    ):
        receipts = await asyncio.gather(*(_add(client) for _ in range(90)))
        assert len(receipts) == 90
        assert len(server.connections) == 2


async def test_a_server_that_shuts_down_keeps_its_running_calls_and_gets_no_more(
    raw_server: Raw,
) -> None:
    silent: list[tuple[Any, int]] = []

    def be_silent(peer: Any, stream_id: int) -> None:
        silent.append((peer, stream_id))

    def ignore(_peer: Any, _stream_id: int) -> None:
        pass

    def go_away(peer: Any, _stream_id: int) -> None:
        peer.transport.write(GoAwayFrame(0, last_stream_id=1, error_code=0).serialize())

    # More calls are sent again than the budget would allow, and each of them once.
    async with (
        raw_server(be_silent, *[ignore] * 49, go_away, write_well) as server,
        _quick(server.port, channels=1, retry_budget_tokens=4) as client,
    ):
        running = asyncio.create_task(_add(client))
        await server.event(RequestReceived)
        await asyncio.gather(*(_add(client) for _ in range(50)))
        assert not running.done()
        assert len(server.connections) == 2
        for peer, stream_id in silent:
            write_well(peer, stream_id)
            peer.flush()
        await running
    for connection in server.connections:
        assert connection.lost.done()


async def test_a_server_that_breaks_every_connection_is_left_alone_longer_and_longer(
    raw_server: Raw,
) -> None:
    failures: list[int] = []

    class Recorded(Backoff):
        def reconnect_seconds(self, *, failures: int, draw: Callable[[], float]) -> float:
            recorded.append(failures)
            return super().reconnect_seconds(failures=failures, draw=draw)

    recorded = failures

    def hang_up(peer: Any, _stream_id: int) -> None:
        peer.transport.abort()

    async with raw_server(hang_up) as server:
        target = Target(host="127.0.0.1", port=server.port)
        backoff = Recorded(initial_seconds=0.001, max_seconds=0.01)
        transport = connect(target, channels=1, connect_timeout_seconds=5, backoff=backoff)
        settings = ClientSettings(**QUICK, retry_attempts_max=4)
        async with CreditClient(str(target), settings=settings, transport=transport) as client:
            outcomes = await asyncio.gather(
                *(_add(client) for _ in range(50)), return_exceptions=True
            )
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        # One connection for all calls at a time, not one for each of 4 * 50 attempts.
        assert len(server.connections) == len(failures) <= 50
    assert failures == list(range(1, len(failures) + 1))


async def test_a_server_that_answers_unavailable_is_protected_by_the_budget(
    raw_server: Raw,
) -> None:
    def refuse(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id, ("grpc-status", "14"), end=True)

    async with (
        raw_server(refuse) as server,
        # A stream would be one more request.
        _quick(server.port, retry_budget_tokens=20, streams="off") as client,
    ):
        outcomes = await asyncio.gather(*(_add(client) for _ in range(200)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        events = Counter(type(server.events.get_nowait()) for _ in range(server.events.qsize()))
    # Half of the tokens are spent on retries: 9 of the 20.
    assert 200 < events[RequestReceived] <= 210


async def test_a_channel_that_cannot_connect_does_not_keep_calls_from_one_that_is_connected(
    raw_server: Raw,
) -> None:
    async with raw_server(write_well) as server:
        target = Target(host="127.0.0.1", port=server.port)
        transport = connect(target, channels=2, connect_timeout_seconds=60, backoff=AT_ONCE)
        async with CreditClient(str(target), transport=transport) as client:
            await _add(client)
            good, bad = transport._pool._owned
            assert (good.connected, bad.connected) == (True, False), "a call opens one connection"
            _fail_always(bad)
            for _ in range(20):
                await _add(client)
            assert len(server.connections) == 1


def _fail_always(channel: ClientChannel) -> None:
    async def connect() -> None:
        raise ConnectionRefusedError(111, "refused")

    channel.connect = connect  # type: ignore[method-assign] # only of this channel


@pytest.mark.parametrize("encrypted", [False, True])
async def test_calls_on_a_broken_socket_leave_no_lines_in_the_log(
    fake_server: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture, encrypted: bool
) -> None:
    """asyncio logs "socket.send() raised exception." from the sixth write to a broken socket on."""
    context = None
    options: dict[str, Any] = {}
    if encrypted:
        authority = Authority(folder=tmp_path)
        issued = authority.issue("127.0.0.1")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(issued.certificate, issued.key)
        context.set_alpn_protocols(["h2"])
        options["tls"] = authority.file
    settings = ClientSettings(**QUICK, channels=1)
    caplog.set_level(logging.WARNING, "asyncio")
    async with (
        fake_server(FakeCreditService(), ssl=context) as port,
        CreditClient(f"127.0.0.1:{port}", settings=settings, **options) as client,
    ):
        await _add(client)
        # Nothing runs between the break and the calls: they meet it when they write.
        assert isinstance(client._transport, GrpcTransport)
        (channel,) = client._transport._pool._owned
        _break(channel)
        receipts = await asyncio.gather(*(_add(client) for _ in range(40)))
        assert max(receipt.balance for receipt in receipts) == 41
    assert caplog.messages == []


def _break(channel: ClientChannel) -> None:
    assert channel._protocol is not None
    sock = channel._protocol.transport.get_extra_info("socket")
    sock.shutdown(socket.SHUT_RDWR)


def write_well(peer: Any, stream_id: int) -> None:
    peer.headers(stream_id)
    peer.message(stream_id)
    peer.trailers(stream_id, ("credit-receipt-bin", ""))
