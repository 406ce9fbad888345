"""The streams that concurrent writes of the SDK share, over the simulated network."""

import asyncio
from collections.abc import Callable
from typing import Any, Self

from credit_client.methods import WRITE
from credit_client.transport import AttemptFailed, ConnectionLost, NotConnected
from credit_client.write_stream import WriteStream
from credit_models import WriteRequest, WriteResponse
from credit_models.codec import decode
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from credit_simulate.call import Head, ServedCall
from credit_simulate.faults import Faults
from credit_simulate.server import Server


class Streams:
    """One stream of writes for each server, shared by many callers."""

    def __init__(self, faults: Faults) -> None:
        """Prepare, without opening a stream.

        Args:
            faults: Decides which messages are lost or slow.
        """
        self._faults = faults
        self._streams: dict[Server, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def find(self, server: Server) -> WriteStream | None:
        """Return the stream of a server; None: it is not open yet, or is full."""
        stream = self._streams.get(server)
        if stream is not None and stream.is_open:
            return stream if stream.has_room else None
        if stream is None or stream.answered.is_set():
            self._streams[server] = stream = _Stream(lambda: _StreamCall(server, self._faults))
            task = asyncio.create_task(stream.run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return None


class _Stream(WriteStream):
    """The SDK's stream, over a simulated call."""

    # Any: a simulated call implements only the part of `CallStream` that a stream uses.
    def __init__(self, call: Callable[[], Any]) -> None:
        nothing: Any = None  # the channel and the pool are those of the real call
        super().__init__(nothing, nothing, {}, failed=lambda _: None)
        self._make = call

    def _call(self) -> Any:
        return self._make()


class _StreamCall:
    """The caller's side of one call with a stream of requests and a stream of answers."""

    def __init__(self, server: Server, faults: Faults) -> None:
        self.connection = object()
        self.echoed_request_id = "stream"
        self._server = server
        self._faults = faults
        self._call = ServedCall(Head(WRITE.path, "stream"), None, None)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Reset the stream, unless the call has ended."""
        if self._task is not None and not self._task.done():
            asyncio.get_running_loop().call_later(self._faults.seconds(), self._task.cancel)

    async def send_request(self) -> None:
        await self._faults.travel()
        if not self._server.runs:
            raise NotConnected(Status.UNAVAILABLE, "the server does not run")
        self._task = self._server.serve(self._call)

    async def recv_initial_metadata(self) -> None:
        await self._faults.travel()

    async def send_encoded(self, data: bytes) -> None:
        """Send messages, or drop them and the connection."""
        await self._faults.travel()
        if self._faults.strike("request lost"):
            self._call.answers.put_nowait(ConnectionResetError())
            return
        for message in ServedCall.messages(data):
            self._call.incoming.put_nowait(decode(WriteRequest, message))

    async def end(self) -> None:
        await self._faults.travel()
        self._call.incoming.put_nowait(None)

    async def recv_message(self) -> WriteResponse | None:
        """Return the next answer; None after the last one.

        Raises:
            AttemptFailed: The call has failed, or the connection is lost.
        """
        message = await self._call.answers.get()
        await self._faults.travel()
        if isinstance(message, GRPCError):
            details = message.details or ()
            raise AttemptFailed(message.status, message.message or "", details=details)
        if isinstance(message, Exception) or self._faults.strike("answer lost"):
            raise ConnectionLost(Status.UNAVAILABLE, "the connection was lost", first=True)
        return None if message is None else decode(WriteResponse, message)

    async def recv_status(self) -> None:
        """Do nothing: the status arrived after the last message."""
