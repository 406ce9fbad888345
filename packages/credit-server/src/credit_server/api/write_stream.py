"""One stream of operations: read them as fast as outcomes are sent, and send each once certain."""

import asyncio
from functools import partial
from typing import Any

from credit_models import WriteRequest, WriteResponse
from credit_models.constraints import Violation
from credit_models.image import message_class

from credit_server.access.authorize import Access
from credit_server.api import errors
from credit_server.api.contract import WithMisfits
from credit_server.api.operations import Operations, PendingOperation
from credit_server.commit import Answer, Committer
from credit_server.grpc.call import Call

# The most operations of one stream whose outcomes the client has not taken: as many as a batch of
# the committer holds. It bounds the memory that a client occupies that reads nothing.
OPERATIONS_MAX = 256

# Any: protobuf makes this class at run time.
_RESPONSE: Any = message_class("credit.v1.WriteResponse")


class _Unsettled:
    """An operation that has no outcome yet."""

    __slots__ = ("answer", "expires_at", "pending")

    def __init__(self, pending: PendingOperation, answer: Answer, expires_at: float) -> None:
        self.pending = pending
        self.answer = answer
        self.expires_at = expires_at


class WriteStream:
    """Serves one stream. One task reads; the task of the call sends; operations have no tasks."""

    def __init__(
        self,
        call: Call[WithMisfits[WriteRequest], WriteResponse],
        committer: Committer,
        operations: Operations,
        access: Access,
        *,
        operation_seconds: float,
    ) -> None:
        """Prepare to serve a stream.

        Args:
            call: The call.
            committer: Settles the operations.
            operations: Begins the operations.
            access: Limits the rate of operations.
            operation_seconds: The deadline of each operation.
        """
        self._call = call
        self._committer = committer
        self._operations = operations
        self._access = access
        self._operation_seconds = operation_seconds
        self._loop = asyncio.get_running_loop()
        # By correlation id, in the order of their deadlines.
        self._unsettled: dict[int, _Unsettled] = {}
        self._outcomes: list[Any] = []  # of `_RESPONSE`
        # The correlation ids of the operations whose outcome has not been sent.
        self._numbers: set[int] = set()
        # The number of operations whose outcome the client has not taken.
        self._open = 0
        self._room = asyncio.Event()
        self._changed = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._drained = False
        self._ended = False

    async def run(self) -> None:
        """Serve the stream until all its operations have their outcomes.

        Raises:
            GRPCError: The stream ends with an error, after the outcomes of all operations that were
                read.
        """
        await self._call.send_initial_metadata()
        reading = asyncio.create_task(self._read())
        reading.add_done_callback(lambda _: self._changed.set())

        def drain() -> None:
            self._drained = not reading.done()
            reading.cancel()

        try:
            with self._call.on_drain(drain):
                await self._send(reading)
        finally:
            self._end()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if self._drained:
            raise errors.drained()
        reading.result()

    async def _read(self) -> None:
        """Read and submit operations until the client has sent its last one."""
        while True:
            while self._open >= OPERATIONS_MAX:
                self._room.clear()
                await self._room.wait()
            received = await self._call.recv_message()
            if received is None:
                return
            self._accept(received)

    def _accept(self, received: WithMisfits[WriteRequest]) -> None:
        number = received.message.correlation_id
        if number in self._numbers:
            what = "must be unique among the operations without an outcome"
            raise errors.invalid([Violation(field="correlation_id", description=what)])
        self._numbers.add(number)
        self._open += 1
        denial = self._access.admit_operation(self._call)
        misfits = received.misfits.get(0, ())
        pending = self._operations.begin(self._call, received.message.operation, misfits, denial)
        if pending.submission is None:
            pending.end(pending.rejection, self._outcome(number))
            return
        seconds_left = self._seconds_left()
        (answer,) = self._committer.submit_all(
            [pending.submission],
            self._call.batch_context,
            request_id=self._call.request.request_id,
            seconds_left=seconds_left,
        )
        self._unsettled[number] = _Unsettled(pending, answer, self._loop.time() + seconds_left)
        answer.add_done_callback(partial(self._on_answer, number, pending))
        self._expire_later()

    def _seconds_left(self) -> float:
        deadline = self._call.deadline
        if deadline is None:
            return self._operation_seconds
        return min(self._operation_seconds, deadline.time_remaining())

    def _on_answer(self, number: int, pending: PendingOperation, answer: Answer) -> None:
        # An operation is cancelled when it expires or the stream ends. Its result is written later.
        if answer.cancelled():
            return
        if self._ended:
            pending.outlived(answer.exception() or answer.result())
            return
        del self._unsettled[number]
        pending.end(answer.exception() or answer.result(), self._outcome(number))

    # Any: see `_RESPONSE`.
    def _outcome(self, number: int) -> Any:
        """Return the empty outcome of an operation, which is sent next."""
        response = _RESPONSE(correlation_id=number)
        self._outcomes.append(response)
        self._changed.set()
        return response.outcome

    def _expire_later(self) -> None:
        if self._expiry is None and self._unsettled:
            first = next(iter(self._unsettled.values()))
            self._expiry = self._loop.call_at(first.expires_at, self._expire)

    def _expire(self) -> None:
        """Answer the operations whose deadline has passed."""
        self._expiry = None
        now = self._loop.time()
        for number, each in list(self._unsettled.items()):
            if each.expires_at > now:
                break
            if each.answer.cancel():
                del self._unsettled[number]
                each.pending.expire(self._outcome(number))
        self._expire_later()

    async def _send(self, reading: "asyncio.Task[None]") -> None:
        """Send outcomes, all that are ready at once, until the last operation has its own."""
        while self._outcomes or self._unsettled or not reading.done():
            await self._changed.wait()
            self._changed.clear()
            outcomes, self._outcomes = self._outcomes, []
            # Before the send, because a client may reuse an id as soon as it has the outcome.
            self._numbers.difference_update(outcome.correlation_id for outcome in outcomes)
            data = self._call.framed(outcome.SerializeToString() for outcome in outcomes)
            await self._call.send_framed(data, count=len(outcomes))
            self._open -= len(outcomes)
            self._room.set()

    def _end(self) -> None:
        """Drop the operations that are left, except those in a batch: they are still committed."""
        self._ended = True
        if self._expiry is not None:
            self._expiry.cancel()
        for each in self._unsettled.values():
            each.answer.cancel()
