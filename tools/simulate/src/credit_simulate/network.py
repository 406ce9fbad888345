"""The SDK's transport to the servers. A message can be lost, late or delivered twice."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from random import Random
from typing import Any

from credit_client.grpc_transport import RECEIPT
from credit_client.transport import (
    Answer,
    AttemptFailed,
    ConnectionLost,
    Method,
    NotConnected,
)
from credit_client.write_stream import WriteStream
from credit_models import Receipt
from credit_models.codec import decode
from credit_models.operations import WRITE_TYPES, AnyWrite
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from credit_simulate.call import Deadline, Head, ServedCall
from credit_simulate.faults import Faults
from credit_simulate.server import Server
from credit_simulate.streams import Streams

_RECONNECT_SECONDS = 0.05
_SILENT_SECONDS = 2.0
"""The time after which a caller detects a lost connection."""


class Network:
    """One caller's connections. It uses one server until that server fails.

    Attributes:
        sent: How many attempts reached a server, or may have reached one.
        doubled: Whether a request was delivered twice, which the caller cannot detect.
        used: The servers that it has sent requests to.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        random: Random,
        faults: Faults,
        streams: Streams | None = None,
    ) -> None:
        """Choose a server.

        Args:
            servers: All servers.
            random: Decides which server is used.
            faults: Decides which messages are lost or slow.
            streams: The streams that carry writes; None: each write is a separate call.
        """
        self._streams = streams
        self._servers = servers
        self._random = random
        self._faults = faults
        self._server = random.choice(servers)
        self.sent = 0
        self.doubled = False
        self.used: set[Server] = set()

    # Any, here and below: the messages have the types of the method.
    async def unary(
        self,
        method: Method[Any, Any],
        request: Any,
        *,
        request_id: str,
        timeout_seconds: float | None,
        metadata: Mapping[str, str],
        sending: Callable[[], None],
    ) -> Answer[Any]:
        """Send one request and return its answer: see the transport."""
        await self._connected()
        if self._streams is not None and type(request) in WRITE_TYPES:
            stream = self._streams.find(self._server)
            receipt = None if stream is None else await self._shared(stream, request, sending)
            if receipt is not None:
                return Answer(method.reply_type(), receipt)
        sending()
        self.sent += 1
        if self._faults.strike("request repeated"):
            self.doubled = True
            self._repeat(method.path, request, request_id)
        async with _Attempt(self, method.path, request, request_id, timeout_seconds) as attempt:
            data = await attempt.answer()
            if data is None:
                raise AttemptFailed(Status.INTERNAL, "the call has no answer")
            return Answer(
                decode(method.reply_type, data),
                attempt.trailers.get(RECEIPT),  # type: ignore[arg-type]  # bytes
            )

    async def stream(
        self,
        method: Method[Any, Any],
        request: Any,
        *,
        request_id: str,
        metadata: Mapping[str, str],
    ) -> AsyncGenerator[Any, None]:
        """Send one request and yield the answers: see the transport."""
        await self._connected()
        async with _Attempt(self, method.path, request, request_id, None) as attempt:
            while (data := await attempt.answer()) is not None:
                yield decode(method.reply_type, data)
                if self._faults.strike("stream broken"):
                    raise _lost()

    async def close(self) -> None:
        """Do nothing: nothing is open."""

    async def _connected(self) -> None:
        """Choose another server if the chosen one does not run.

        Raises:
            NotConnected: None runs.
        """
        if self._server.runs:
            return
        await asyncio.sleep(_RECONNECT_SECONDS)
        running = [server for server in self._servers if server.runs]
        if not running:
            raise NotConnected(Status.UNAVAILABLE, "no server runs")
        self._server = self._random.choice(running)

    async def _shared(
        self, stream: WriteStream, request: AnyWrite, sending: Callable[[], None]
    ) -> Receipt | None:
        """Send a write over a stream, and return its receipt; None: it was not sent."""

        def sent() -> None:
            sending()
            self.sent += 1
            self.used.add(server)

        server = self._server
        return await stream.write(request, sent)

    def _repeat(self, path: str, request: Any, request_id: str) -> None:
        """Deliver a request a second time, later, possibly to another server."""
        server = self._random.choice(self._servers)

        def deliver() -> None:
            if server.runs:
                server.serve(ServedCall(Head(path, request_id), request, None))

        self.used.add(server)
        asyncio.get_running_loop().call_later(10 * self._faults.seconds(), deliver)


class _Attempt:
    """One attempt: a request, and the messages of its answer."""

    def __init__(
        self, network: Network, path: str, request: Any, request_id: str, seconds: float | None
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else Deadline(loop.time() + seconds, loop.time)
        self._call = ServedCall(Head(path, request_id), request, deadline)
        self._server = network._server  # noqa: SLF001 - an attempt is a part of its network
        self._faults = network._faults  # noqa: SLF001
        self._task: asyncio.Task[None] | None = None
        network.used.add(self._server)

    @property
    def trailers(self) -> Mapping[str, str | bytes]:
        return self._call.trailers

    async def __aenter__(self) -> "_Attempt":
        if self._faults.strike("request lost"):
            await asyncio.sleep(_SILENT_SECONDS)
            raise _lost()
        await self._faults.travel()
        if not self._server.runs:
            raise _lost()
        self._task = self._server.serve(self._call)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Reset the stream, unless the call has ended."""
        if self._task is not None and not self._task.done():
            asyncio.get_running_loop().call_later(self._faults.seconds(), self._task.cancel)

    async def answer(self) -> bytes | None:
        """Return the next message; None at the end.

        Raises:
            AttemptFailed: The call has failed, or its answer is lost.
        """
        message = await self._call.answers.get()
        if isinstance(message, GRPCError):
            await self._faults.travel()
            details = message.details or ()
            raise AttemptFailed(message.status, message.message or "", details=details)
        if isinstance(message, Exception) or self._faults.strike("answer lost"):
            await self._faults.travel()
            raise _lost()
        await self._faults.travel()
        return message


def _lost() -> AttemptFailed:
    return ConnectionLost(Status.UNAVAILABLE, "the connection was lost", first=True)
