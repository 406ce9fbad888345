"""One call on a server: the part of `credit_server.grpc.call.Call` that the services use."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any, ClassVar

import betterproto2
from credit_models import BatchWriteRequest
from credit_models.codec import encode
from credit_server.access.identity import Caller
from credit_server.api.contract import WithMisfits
from credit_server.grpc.call import Call
from grpclib.exceptions import GRPCError

_CALLER = Caller(name="simulated", identity_name=None, identity=None, counted=False)


class Head:
    """The headers of a request."""

    def __init__(self, path: str, request_id: str) -> None:
        """Set the headers that a service reads."""
        self.path = path
        self.request_id = request_id
        self.fields: Mapping[str, str] = {}


class Deadline:
    """When the caller stops waiting, in the time of the simulation."""

    def __init__(self, at: float, time: Callable[[], float]) -> None:
        """Set the time."""
        self._at = at
        self._time = time

    def time_remaining(self) -> float:
        """Return the seconds until the deadline."""
        return max(0.0, self._at - self._time())


class ServedCall:
    """A call without a connection.

    Attributes:
        request: The headers of the request.
        deadline: When the caller stops waiting; None: never.
        trailers: Metadata to be sent with the status.
        incoming: The messages of a stream of requests; the last item is None.
        answers: The messages of the answer; the last item is None, or the error of the call.
        caller: The identity, which is the same for all callers.
        observation, batch_context: Always None, because no call is observed.
    """

    caller: ClassVar[Caller] = _CALLER
    caller_name: ClassVar[str] = _CALLER.name
    observation: ClassVar[None] = None
    batch_context: ClassVar[None] = None
    framed = staticmethod(Call.framed)

    def __init__(
        self, head: Head, message: betterproto2.Message | None, deadline: Deadline | None
    ) -> None:
        """Set the request; None: it is a stream of messages."""
        self.request = head
        self.deadline = deadline
        self.incoming: asyncio.Queue[betterproto2.Message | None] = asyncio.Queue()
        self.trailers: dict[str, str | bytes] = {}
        self.answers: asyncio.Queue[bytes | GRPCError | Exception | None] = asyncio.Queue()
        self._message = message
        self._send_initial_metadata_done = False

    async def recv_request(self) -> Any:
        """Return the request. Any: as the codec of the server decodes it."""
        if isinstance(self._message, BatchWriteRequest):
            return WithMisfits(self._message, {})
        return self._message

    async def recv_message(self) -> Any:
        """Return the next message of a stream; None after the last one. Any: as above."""
        message = await self.incoming.get()
        return None if message is None else WithMisfits(message, {})

    # Any: a message of betterproto2, or of protobuf, whose classes are made at run time.
    async def send_answer(self, message: Any) -> None:
        """Send the only message of the answer."""
        own = isinstance(message, betterproto2.Message)
        await self.send_encoded_answer(encode(message) if own else message.SerializeToString())

    async def send_encoded_answer(self, message: bytes) -> None:
        """Send the only message of the answer, which is serialized."""
        self.answers.put_nowait(message)

    async def send_framed(self, data: bytes, *, count: int) -> None:
        """Send several serialized messages."""
        for message in self.messages(data):
            self.answers.put_nowait(message)

    @staticmethod
    def messages(data: bytes) -> Iterator[bytes]:
        """Yield serialized messages, each of which follows its flag and length."""
        place = 0
        while place < len(data):
            end = place + 5 + int.from_bytes(data[place + 1 : place + 5], "big")
            yield data[place + 5 : end]
            place = end

    async def send_initial_metadata(self) -> None:
        """Do nothing: a simulated answer has no headers."""

    def on_drain(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Never call the function: servers that stop crash, or end their calls."""
        return nullcontext()

    def list_slot(self) -> AbstractAsyncContextManager[None]:
        """Wait for nothing."""
        return nullcontext()
