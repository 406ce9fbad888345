"""Names with several addresses: their order, and one that does not answer."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
import uvloop
from aiohappyeyeballs import AddrInfoType
from credit_client import CreditClient, DeadlineExceeded
from credit_client.addresses import in_turn, open_socket, resolve
from credit_client.grpc_transport import CODEC, STATUS_DETAILS_CODEC, connect
from credit_client.settings import ClientSettings
from credit_client.target import Target
from credit_client.testing import FakeCreditService
from grpclib.server import Server

SILENT, FIRST, SECOND = "127.0.0.2", "127.0.0.3", "127.0.0.4"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def four(host: str, port: int = 1) -> AddrInfoType:
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)


def six(host: str) -> AddrInfoType:
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, 1, 0, 0)


def order(found: Sequence[AddrInfoType], *, turn: int = 0, failures: int = 0) -> list[str]:
    return [address[4][0] for address in in_turn(found, turn=turn, failures=failures)]


def test_the_families_alternate_and_the_preferred_one_stays_first() -> None:
    found = [six("a"), six("b"), six("c"), four("x"), four("y")]
    assert order(found) == ["a", "x", "b", "y", "c"]
    assert order(found, turn=1) == ["b", "y", "c", "x", "a"]


def test_connections_begin_with_different_addresses() -> None:
    found = [four("x"), four("y"), four("z")]
    assert [order(found, turn=turn)[0] for turn in range(4)] == ["x", "y", "z", "x"]


def test_each_failure_begins_with_another_address_of_whichever_family() -> None:
    found = [six("a"), four("x"), four("y")]
    firsts = {order(found, failures=failures)[0] for failures in range(3)}
    assert firsts == {"a", "x", "y"}


def test_an_address_that_is_given_twice_is_tried_once() -> None:
    assert order([four("x"), four("x"), four("y")]) == ["x", "y"]


async def test_an_ip_address_needs_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert (await resolve("127.0.0.1", 5))[0][4] == ("127.0.0.1", 5)
    assert (await resolve("::1", 5))[0][4][:2] == ("::1", 5)


async def test_a_name_without_addresses_is_an_error_of_the_operating_system() -> None:
    with pytest.raises(OSError, match="no address"):
        await open_socket([])


@contextlib.contextmanager
def silent_address(port: int) -> Iterator[None]:
    """Occupy an address whose kernel drops every SYN, because its queue of connections is full."""
    with contextlib.ExitStack() as sockets:
        listening = sockets.enter_context(socket.socket())
        listening.bind((SILENT, port))
        listening.listen(0)
        while True:
            filling = sockets.enter_context(socket.socket())
            filling.settimeout(0.2)
            try:
                filling.connect((SILENT, port))
            except TimeoutError:
                break
        yield


@contextlib.asynccontextmanager
async def serving(host: str, port: int = 0) -> AsyncIterator[tuple[int, list[str]]]:
    """Serve on an address; gives the port, and the hosts that connections were made to."""
    seen: list[str] = []

    class Counting(Server):
        def _protocol_factory(self) -> Any:
            seen.append(host)
            return super()._protocol_factory()

    server = Counting([FakeCreditService()], codec=CODEC, status_details_codec=STATUS_DETAILS_CODEC)
    await server.start(host, port)
    try:
        assert server._server is not None
        sockets = server._server.sockets  # type: ignore[attr-defined] # both loops' own have it
        yield sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await server.wait_closed()


def client_of(port: int, hosts: list[str], *, channels: int, **settings: Any) -> CreditClient:
    """A client of a name that has these addresses."""

    async def resolver(name: str, _port: int) -> Sequence[AddrInfoType]:
        assert name == "credit.example"
        return [four(host, port) for host in hosts]

    target = f"dns:///credit.example:{port}"
    transport = connect(
        Target.parse(target), channels=channels, connect_timeout_seconds=5, resolver=resolver
    )
    return CreditClient(settings=ClientSettings(target=target, **settings), transport=transport)


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_an_address_that_swallows_syns_does_not_keep_a_call_from_the_other_address(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def call() -> int:
        async with serving(FIRST) as (port, _):
            with silent_address(port):
                async with client_of(port, [SILENT, FIRST], channels=1) as client:
                    await client.add(user_id=7, app_id=1, credits=5, created_by=1)
                    return await client.balance(app_id=1)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(call()) == 5


async def test_an_address_that_accepts_and_stays_silent_costs_one_connect_timeout() -> None:
    """The kernel accepts for a process that hangs; only the greeting shows that it works."""
    async with serving(FIRST) as (port, _):
        with socket.create_server((SILENT, port)):
            target = Target.parse(f"credit.example:{port}")

            async def resolver(_name: str, _port: int) -> Sequence[AddrInfoType]:
                return [four(SILENT, port), four(FIRST, port)]

            transport = connect(target, channels=1, connect_timeout_seconds=0.2, resolver=resolver)
            async with CreditClient(str(target), transport=transport) as client:
                assert await client.balance(app_id=1) == 0


async def test_a_single_address_that_does_not_answer_is_named_as_the_cause() -> None:
    with socket.create_server((SILENT, 0)) as hanging:
        target = f"{SILENT}:{hanging.getsockname()[1]}"
        settings = ClientSettings(target=target, connect_timeout_seconds=0.05, timeout_seconds=0.5)
        async with CreditClient(settings=settings) as client:
            with pytest.raises(DeadlineExceeded, match=r"no connection within 0\.5 s") as caught:
                await client.balance(app_id=1)
    assert "no greeting within 0.05 s" in str(caught.value.__cause__)


async def test_connections_are_spread_over_the_addresses_of_the_name() -> None:
    async with serving(FIRST) as (port, first), serving(SECOND, port) as (_, second):
        async with client_of(port, [FIRST, SECOND], channels=4) as client:
            await asyncio.gather(*(client.balance(app_id=1) for _ in range(8)))
        assert (len(first), len(second)) == (2, 2)


async def test_the_name_is_looked_up_again_for_every_connection() -> None:
    answers = [[four(FIRST)], []]
    async with serving(SECOND) as (port, second):

        async def resolver(_name: str, port: int) -> Sequence[AddrInfoType]:
            return answers.pop(0) if answers else [four(SECOND, port)]

        target = Target.parse(f"credit.example:{port}")
        transport = connect(target, channels=1, connect_timeout_seconds=5, resolver=resolver)
        async with CreditClient(str(target), transport=transport) as client:
            assert await client.balance(app_id=1) == 0
        assert second == [SECOND]


async def test_a_call_in_the_cleanup_of_a_cancelled_task_ends_in_time() -> None:
    ended: list[str] = []

    async def work(client: CreditClient) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await client.balance(app_id=1)
            except DeadlineExceeded as error:
                ended.append(str(error))

    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = ClientSettings(target=target, timeout_seconds=0.1)
        async with CreditClient(settings=settings) as client:
            task = asyncio.create_task(work(client))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert len(ended) == 1
