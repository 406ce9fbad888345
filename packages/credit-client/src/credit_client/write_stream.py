"""The stream that concurrent writes of a connection share: the contract's `Write`.

A write over a stream costs client and server less than a call of its own, because HTTP/2 and gRPC
open and close nothing for it. (Measurements: docs/performance.md.) A call that is alone on its
connection stays a call: it would be about as fast, and a client that makes a single call, such as
the `credit` command, would open a stream without using it.

No write depends on a stream that may not work. A stream carries writes only after the server has
accepted it; until then, and where a server or a proxy has no such streams, writes are calls of
their own. When a stream ends without the outcome of a write, the write is sent again as a call,
with the same key.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from functools import partial

from credit_models import ErrorReason, OperationOutcome, Receipt, WriteResponse
from credit_models import WriteRequest as Message
from credit_models.codec import encode
from credit_models.operations import WRITE_TYPES, AnyWrite, operation_of
from credit_models.timeouts import Timeout
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import Connection
from h2.exceptions import ProtocolError

from credit_client.call_stream import CallStream, framed
from credit_client.methods import WRITE
from credit_client.operation import settled
from credit_client.pool import Pool
from credit_client.refusal import reason_of
from credit_client.request import current_request_id, given_request_id
from credit_client.transport import (
    AnswerBroken,
    AttemptFailed,
    ConnectionLost,
    NotConnected,
    StreamBroken,
)

_log = logging.getLogger(__name__)

# The operations of a stream that the server reads before the client takes outcomes (ledger.proto).
OPERATIONS_MAX = 256

# Proxies end streams after a time, many after 15 s (Envoy's default for a route) or 60 s. A stream
# that the client ends first costs no write an attempt. It also lets a load balancer choose again.
LIFE_SECONDS = 10.0

# A proxy that collects a request before it passes it on never answers a stream.
OPEN_SECONDS = 2.0

# How long writes are calls of their own after a stream that did not work.
PAUSE_SECONDS = 30.0

# How long closing the client waits for the server to end its streams.
_CLOSE_SECONDS = 0.25

# Statuses without a reason that concern the identity and not the stream.
_ACCESS = {Status.UNAUTHENTICATED, Status.PERMISSION_DENIED}

# The metadata that all writes of a stream share. Any other belongs to a single call: a trace, say.
_SHARED = {"authorization"}


class WriteStreams:
    """The open streams of a transport, one for each channel."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._streams: dict[Channel, WriteStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused_until = 0.0  # by the event loop's clock

    def find(
        self, channel: Channel, request: object, metadata: Mapping[str, str]
    ) -> Callable[[Callable[[], None]], Awaitable[Receipt | None]] | None:
        """Return what sends a request over a stream; None: it is a call of its own.

        A request id that the app has given, and the context of a trace, are those of one call: the
        server must get them with it.

        Args:
            channel: A channel that was taken for the request.
            request: The request.
            metadata: What is sent with it.

        Returns:
            `WriteStream.write` of the request. Its argument is called before anything is sent.
        """
        if not isinstance(request, WRITE_TYPES) or not request.idempotency_key:
            return None
        if metadata.keys() - _SHARED or given_request_id() is not None:
            return None
        stream = self._streams.get(channel)
        if stream is not None and stream.serves(channel, metadata):
            return partial(stream.write, request) if stream.has_room else None
        if stream is None or stream.answered.is_set():
            self.open(channel, metadata)
        return None

    def open(self, channel: Channel, metadata: Mapping[str, str]) -> None:
        """Open the stream of a channel in the background, unless streams have just failed."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._paused_until:
            return
        before = self._streams.pop(channel, None)
        if before is not None:
            before.leave()
        stream = WriteStream(channel, self._pool, metadata, failed=self._pause)
        self._streams[channel] = stream
        # A context of its own: the stream belongs to no call's trace.
        task = loop.create_task(stream.run(), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all streams, if possible as the contract foresees it."""
        tasks = list(self._tasks)
        for stream in self._streams.values():
            stream.leave()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pause(self, failure: AttemptFailed) -> None:
        _log.debug("writes are calls of their own for %g s: %s", PAUSE_SECONDS, failure.message)
        self._paused_until = asyncio.get_running_loop().time() + PAUSE_SECONDS


class _Riding:
    """One write on a stream, until it has its outcome."""

    __slots__ = ("data", "number", "result", "sending")

    def __init__(self, number: int, data: bytes, sending: Callable[[], None]) -> None:
        self.number = number
        self.data = data
        self.sending = sending
        # None: the write was not sent.
        self.result: asyncio.Future[Receipt | AttemptFailed | None] = (
            asyncio.get_running_loop().create_future()
        )

    def settle(self, result: Receipt | AttemptFailed | None) -> None:
        if not self.result.done():
            self.result.set_result(result)


class WriteStream:
    """One stream of a channel. A task reads outcomes, another one sends operations.

    Attributes:
        answered: Set once the server has answered, or the stream could not be opened.
    """

    def __init__(
        self,
        channel: Channel,
        pool: Pool,
        metadata: Mapping[str, str],
        *,
        failed: Callable[[AttemptFailed], None],
    ) -> None:
        """Prepare a stream.

        Args:
            channel: Its channel.
            pool: The pool of the channel.
            metadata: Sent when it is opened.
            failed: Called when the stream has not worked as it should.
        """
        self.answered = asyncio.Event()
        self._channel = channel
        self._pool = pool
        self._metadata = dict(metadata)
        self._failed = failed
        self._connection: Connection | None = None
        self._request_id: str | None = None
        self._numbers = itertools.count(1)
        self._unsent: list[_Riding] = []
        self._sent: dict[int, _Riding] = {}
        self._outcomes = 0
        self._leaves = False
        self._wake = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether the server has accepted the stream, and the stream accepts writes."""
        return self._connection is not None and not self._leaves

    @property
    def has_room(self) -> bool:
        """Whether the server reads another operation at once."""
        return len(self._sent) + len(self._unsent) < OPERATIONS_MAX

    def serves(self, channel: Channel, metadata: Mapping[str, str]) -> bool:
        """Return whether the stream carries writes with this metadata on the channel now."""
        protocol = channel._protocol  # noqa: SLF001 - grpclib has no other way
        current = None if protocol is None else protocol.connection
        return self.is_open and self._connection is current and metadata == self._metadata

    def leave(self) -> None:
        """End the stream once all its writes have their outcomes."""
        self._leaves = True
        self._wake.set()

    async def write(self, request: AnyWrite, sending: Callable[[], None]) -> Receipt | None:
        """Send a write and wait for its receipt.

        Args:
            request: The request, which has a key.
            sending: Called before it is sent.

        Returns:
            The receipt; None: the stream has ended, and nothing was sent.

        Raises:
            AttemptFailed: The write failed.
        """
        riding = self._ride(request, sending)
        try:
            result = await riding.result
        except asyncio.CancelledError:
            if riding.number in self._sent and not self._outcomes:
                # Something on the way may keep the outcomes back.
                self._break_off("no outcome came in time")
            raise
        if isinstance(result, AttemptFailed):
            raise result
        return result

    async def run(self) -> None:
        """Carry writes until the stream ends."""
        try:
            await self._carry()
        except AttemptFailed as failure:
            self._end(failure)
        except BaseException:  # the client was closed, or a bug, which the event loop reports
            self._end(StreamBroken(Status.UNAVAILABLE, "the stream was ended by the client"))
            raise
        else:
            self._end(StreamBroken(Status.UNAVAILABLE, "the server has ended the stream"))

    def _ride(self, request: AnyWrite, sending: Callable[[], None]) -> _Riding:
        number = next(self._numbers)
        message = Message(correlation_id=number, operation=operation_of(request))
        riding = _Riding(number, framed(encode(message)), sending)
        if self._leaves:
            riding.settle(None)
        else:
            self._unsent.append(riding)
            self._wake.set()
        return riding

    async def _carry(self) -> None:
        async with self._call() as call:
            await self._open(call)
            sender = asyncio.create_task(self._send(call))
            life = asyncio.get_running_loop().call_later(LIFE_SECONDS, self.leave)
            try:
                while (response := await call.recv_message()) is not None:
                    self._settle(response)
            finally:
                life.cancel()
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
            await call.recv_status()

    def _call(self) -> CallStream[Message, WriteResponse]:
        return CallStream(
            self._channel,
            WRITE,
            Cardinality.STREAM_STREAM,
            pool=self._pool,
            request_id=current_request_id(),
            timeout_seconds=None,
            metadata=self._metadata,
            taken=False,
        )

    async def _open(self, call: CallStream[Message, WriteResponse]) -> None:
        try:
            async with Timeout(OPEN_SECONDS):
                await call.send_request()
                await call.recv_initial_metadata()
        except TimeoutError:
            raise StreamBroken(
                Status.UNAVAILABLE, f"no answer to a stream within {OPEN_SECONDS:g} s"
            ) from None
        self._request_id = call.echoed_request_id
        self._connection = call.connection
        self.answered.set()

    async def _send(self, call: CallStream[Message, WriteResponse]) -> None:
        # The reader reports how the connection or the stream has ended.
        with contextlib.suppress(StreamTerminatedError, ProtocolError):
            while self._unsent or not self._leaves:
                await self._wake.wait()
                self._wake.clear()
                data = b"".join(self._begin())
                if data:
                    await call.send_encoded(data)
            await call.end()

    def _begin(self) -> list[bytes]:
        """Return the messages that wait, which are sent now."""
        waiting, self._unsent = self._unsent, []
        data = []
        for riding in waiting:
            if not riding.result.done():  # not cancelled
                riding.sending()
                self._sent[riding.number] = riding
                data.append(riding.data)
        return data

    def _settle(self, response: WriteResponse) -> None:
        riding = self._sent.pop(response.correlation_id, None)
        self._outcomes += 1
        if riding is not None:
            outcome: OperationOutcome | None = response.outcome
            riding.settle(settled(outcome, request_id=self._request_id))

    def _break_off(self, why: str) -> None:
        self.leave()
        self._failed(StreamBroken(Status.UNAVAILABLE, why))

    def _end(self, failure: AttemptFailed) -> None:
        """End the writes that have no outcome."""
        done = self._leaves and not self._sent
        self._leaves = True
        if not done and (self._is_at_fault(failure) or not self._outcomes):
            self._failed(failure)
        self.answered.set()
        for riding in self._unsent:
            riding.settle(None)
        first = True
        for riding in self._sent.values():
            riding.settle(self._share(failure, first=first))
            first = False
        self._unsent, self._sent = [], {}

    def _share(self, failure: AttemptFailed, *, first: bool) -> AttemptFailed:
        """Return what a failure of the stream means for one of its writes."""
        shared: AttemptFailed
        if isinstance(failure, ConnectionLost):
            first = first and failure.budget_tokens > 0
            shared = ConnectionLost(failure.status, failure.message, first=first)
        elif self._is_at_fault(failure) or reason_of(failure) is ErrorReason.OVERLOADED:
            # OVERLOADED: the server drains the connection, and served calls that cross its GOAWAY.
            shared = StreamBroken(failure.status, failure.message, details=failure.details)
        else:
            shared = AttemptFailed(failure.status, failure.message, details=failure.details)
            shared.budget_tokens = failure.budget_tokens if first else 0.0
        shared.request_id = failure.request_id
        return shared

    @staticmethod
    def _is_at_fault(failure: AttemptFailed) -> bool:
        """Return whether the stream has failed, and not the connection or what it carries."""
        if isinstance(failure, ConnectionLost | NotConnected):
            return False
        if isinstance(failure, AnswerBroken | StreamBroken):
            return True
        return reason_of(failure) is None and failure.status not in _ACCESS
