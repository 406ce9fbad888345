"""What the client's tests share: a scripted transport, and servers on loopback sockets."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any

import pytest
from credit_client.grpc_transport import CODEC, STATUS_DETAILS_CODEC
from credit_client.settings import ClientSettings
from credit_client.testing import FakeCreditService
from credit_client.transport import Answer, AttemptFailed, Method
from credit_models import Empty, Receipt
from credit_models.codec import encode
from credit_testing.template import template
from grpclib.const import Status
from grpclib.events import RecvRequest, listen
from grpclib.protocol import H2Protocol
from grpclib.server import Server
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, StreamEnded
from h2.settings import SettingCodes

RECEIPT = Receipt(transaction_id="t1", balance=120, sequence=1)
WRITTEN = Answer(reply=Empty(), receipt=encode(RECEIPT))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ClientSettings.model_fields:
        monkeypatch.delenv(f"CREDIT_{name.upper()}", raising=False)


@dataclass(kw_only=True)
class Sent:
    """One attempt as the transport got it."""

    path: str
    request: object
    request_id: str
    timeout_seconds: float | None
    metadata: Mapping[str, str] = field(default_factory=dict)


class Unsent(AttemptFailed):
    """An attempt that fails before it is sent."""


Outcome = Answer[object] | AttemptFailed | list[object] | asyncio.Event


@dataclass(kw_only=True)
class ScriptedTransport:
    """Returns the outcomes in their order, the last one forever.

    A list is a stream; an `AttemptFailed` in it ends it. An `Event` is set, and then nothing comes.
    """

    outcomes: list[Outcome]
    sent: list[Sent] = field(default_factory=list)
    closed_streams: int = 0
    stream_closed: asyncio.Event = field(default_factory=asyncio.Event)

    def _next(self) -> Outcome:
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]

    # Any: what is sent and answered is of the method's types, which the outcomes do not know.
    async def unary(
        self,
        method: Method[Any, Any],
        request: Any,
        *,
        request_id: str,
        timeout_seconds: float | None,
        metadata: Mapping[str, str],
        sending: Callable[[], None],
    ) -> Any:
        self.sent.append(
            Sent(
                path=method.path,
                request=request,
                request_id=request_id,
                timeout_seconds=timeout_seconds,
                metadata=metadata,
            )
        )
        outcome = self._next()
        if not isinstance(outcome, Unsent):
            sending()
        match outcome:
            case asyncio.Event() as reached:
                reached.set()
                await asyncio.Event().wait()
            case AttemptFailed() as failure:
                raise failure
            case _:
                return outcome
        return None

    async def stream(
        self,
        method: Method[Any, Any],
        request: Any,
        *,
        request_id: str,
        metadata: Mapping[str, str],
    ) -> AsyncGenerator[Any, None]:
        self.sent.append(
            Sent(
                path=method.path,
                request=request,
                request_id=request_id,
                timeout_seconds=None,
                metadata=metadata,
            )
        )
        outcome = self._next()
        try:
            for message in outcome if isinstance(outcome, list) else [outcome]:
                if isinstance(message, AttemptFailed):
                    raise message
                if isinstance(message, asyncio.Event):
                    message.set()
                    await asyncio.Event().wait()
                yield message
        finally:
            self.closed_streams += 1
            self.stream_closed.set()

    async def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def forked_credit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an executable that runs `credit` as a fork, in a fortieth of the CPU time.

    A signal ends the executable, but not the fork.
    """
    folder = tmp_path_factory.mktemp("commands")
    template().write_shell_command(folder, "credit")
    return str(folder / "credit")


@pytest.fixture
def scripted() -> Callable[..., ScriptedTransport]:
    return lambda *outcomes: ScriptedTransport(outcomes=list(outcomes))


@pytest.fixture
def unsent() -> AttemptFailed:
    return Unsent(Status.UNAVAILABLE, "cannot connect")


@pytest.fixture
def written() -> Answer[Empty]:
    return WRITTEN


def _listening_socket(port: int = 0) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


class _GrpcServer(Server):
    """grpclib's server, whose `close` goes on serving the connections that it has."""

    def __init__(self, service: FakeCreditService) -> None:
        super().__init__([service], codec=CODEC, status_details_codec=STATUS_DETAILS_CODEC)
        self._protocols: list[H2Protocol] = []

    def _protocol_factory(self) -> H2Protocol:
        self._protocols.append(super()._protocol_factory())
        return self._protocols[-1]

    def close(self) -> None:
        super().close()
        for protocol in self._protocols:
            # Without a processor is one whose TLS handshake failed.
            if hasattr(protocol, "processor"):
                protocol.processor.close()


@pytest.fixture
def fake_server() -> Callable[..., AbstractAsyncContextManager[int]]:
    """Serves a `FakeCreditService` on a loopback socket; gives the port."""

    @asynccontextmanager
    async def serve(
        service: FakeCreditService,
        port: int = 0,
        ssl: SSLContext | None = None,
        received: Callable[[RecvRequest], Coroutine[Any, Any, None]] | None = None,
    ) -> AsyncIterator[int]:
        server = _GrpcServer(service)
        if received is not None:
            listen(server, RecvRequest, received)
        sock = _listening_socket(port)
        await server.start(sock=sock, ssl=ssl)
        try:
            yield sock.getsockname()[1]
        finally:
            server.close()
            await server.wait_closed()

    return serve


class RawConnection(asyncio.Protocol):
    """The server's end of one HTTP/2 connection, which follows a script."""

    def __init__(self, server: "RawServer") -> None:
        self.server = server
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="ascii"))
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections.append(self)
        if self.server.first_bytes is not None:
            transport.write(self.server.first_bytes)
            return
        self.h2.initiate_connection()
        if self.server.streams_max is not None:
            self.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self.server.streams_max})
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        if self.server.first_bytes is not None:
            return
        for event in self.h2.receive_data(data):
            self.server.events.put_nowait(event)
            if isinstance(event, DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if isinstance(event, StreamEnded):
                script = self.server.scripts
                (script.pop(0) if len(script) > 1 else script[0])(self, event.stream_id)
        if not self.transport.is_closing():
            self.flush()

    def headers(self, stream_id: int, *extra: tuple[str, str], end: bool = False) -> None:
        self.h2.send_headers(
            stream_id,
            [(":status", "200"), ("content-type", "application/grpc"), *extra],
            end_stream=end,
        )

    def message(self, stream_id: int, data: bytes = b"", *, flag: int = 0) -> None:
        self.h2.send_data(stream_id, bytes([flag]) + len(data).to_bytes(4, "big") + data)

    def trailers(self, stream_id: int, *extra: tuple[str, str], status: int = 0) -> None:
        self.h2.send_headers(stream_id, [("grpc-status", str(status)), *extra], end_stream=True)


Script = Callable[[RawConnection, int], None]


@dataclass(kw_only=True)
class RawServer:
    """An HTTP/2 server whose every answer is scripted; the last script serves all later calls."""

    scripts: list[Script]
    port: int = 0
    streams_max: int | None = None
    first_bytes: bytes | None = None
    connections: list[RawConnection] = field(default_factory=list)
    events: "asyncio.Queue[Event]" = field(default_factory=asyncio.Queue)

    async def event(self, kind: type[Event]) -> Event:
        """Wait for the next event of a kind."""
        while True:
            event = await self.events.get()
            if isinstance(event, kind):
                return event


@pytest.fixture
def raw_server() -> Callable[..., AbstractAsyncContextManager[RawServer]]:
    @asynccontextmanager
    async def serve(*scripts: Script, **options: object) -> AsyncIterator[RawServer]:
        # The options are fields of RawServer, each of a type of its own.
        raw = RawServer(scripts=list(scripts), **options)  # type: ignore[arg-type]
        sock = _listening_socket()
        raw.port = sock.getsockname()[1]
        server = await asyncio.get_running_loop().create_server(
            lambda: RawConnection(raw), sock=sock
        )
        try:
            yield raw
        finally:
            server.close()
            for connection in raw.connections:
                connection.transport.abort()
            await asyncio.gather(*(connection.lost for connection in raw.connections))
            await server.wait_closed()

    return serve
