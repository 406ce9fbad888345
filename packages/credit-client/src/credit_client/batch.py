"""A batch: writes that are collected first, and sent with few messages."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from credit_models import Receipt

from credit_client.async_only import AsyncOnly
from credit_client.call import Caller
from credit_client.corrections import CorrectionWrites
from credit_client.directory import build_named
from credit_client.errors import (
    AccessDenied,
    BatchAborted,
    CreditError,
    Outcome,
    UserIdsExhausted,
    UserNotFound,
)
from credit_client.grants import GrantWrites
from credit_client.holds import HoldWrites
from credit_client.methods import ADD, USE, WriteReplyT, WriteT
from credit_client.operation import (
    OPERATIONS_MAX,
    Messages,
    PendingWrite,
    checked_key,
    name_key,
)
from credit_client.request import Values
from credit_client.transport import Method
from credit_client.writes import NotedOptions

# How many users of a batch are searched at a time.
_SEARCHES_MAX = 16


class BatchOperation:
    """One write of a batch."""

    def __init__(self, write: PendingWrite) -> None:
        self._write = write

    @property
    def idempotency_key(self) -> str:
        """The key of the write: the given one, or the one that the SDK made."""
        return self._write.request.idempotency_key

    @property
    def error(self) -> CreditError | None:
        """Why the write failed: what the call would have raised. None: it has not failed."""
        return self._write.error

    @property
    def outcome(self) -> Outcome:
        """What the write did to the ledger, as far as the SDK knows."""
        write = self._write
        if write.receipt is not None:
            return Outcome.NO_CHANGE if write.receipt.validated else Outcome.APPLIED
        if write.error is not None:
            return write.error.outcome
        unknown = write.effect.earlier_unknown or write.effect.outcome is Outcome.UNKNOWN
        return Outcome.UNKNOWN if unknown else Outcome.NO_CHANGE

    @property
    def receipt(self) -> Receipt:
        """The receipt of the write.

        Raises:
            CreditError: The write failed: what the call would have raised.
            RuntimeError: The batch has not been sent, or was cancelled before this write's outcome.
        """
        if self._write.receipt is not None:
            return self._write.receipt
        if self._write.error is not None:
            raise self._write.error
        raise RuntimeError("the write has no outcome: the batch was not sent, or was cancelled")


class Batch(
    GrantWrites[BatchOperation],
    HoldWrites[BatchOperation],
    CorrectionWrites[BatchOperation],
    AsyncOnly,
):
    """Collects writes, and sends them together: `async with credits.batch() as batch:`.

    Its methods are those of `CreditClient`, with the same arguments except `timeout_seconds`.

    At the end of the `async with` block the writes are sent, in messages of up to 1,000. If the
    block raises, nothing is sent. If writes fail, the end of the block raises an `ExceptionGroup`
    of their errors; each `BatchOperation` has its own receipt or error. Call `send` yourself, and
    without `async with`, if failed writes are no exception to your app.
    """

    def __init__(
        self,
        open_caller: Callable[[], Caller],
        *,
        atomic: bool,
        timeout_seconds: float | None,
        users_app_id: int | None = None,
    ) -> None:
        """Collect nothing yet; see `CreditClient.batch` for the arguments."""
        self._open_caller = open_caller
        self._atomic = atomic
        self._timeout_seconds = timeout_seconds
        self._users_app_id = users_app_id
        self._operations: list[BatchOperation] = []
        self._writes: list[PendingWrite] = []

    def __len__(self) -> int:
        """Return the number of writes."""
        return len(self._operations)

    def __iter__(self) -> Iterator[BatchOperation]:
        """Iterate over the writes, in the order in which they were added."""
        return iter(self._operations)

    async def __aenter__(self) -> Self:
        """Begin to collect."""
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Send the writes, unless the block has raised.

        Raises:
            ExceptionGroup: Writes failed; it holds their `CreditError`s.
        """
        if error is not None:
            return
        await self.send()
        errors = [each.error for each in self if each.error is not None]
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(self)} writes failed", errors)

    def add(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        idempotency_key: str | None = None,
        expected_revision: int | None = None,
        min_available_after: int | None = None,
    ) -> BatchOperation:
        """Collect an addition; the arguments are those of `CreditClient.add`.

        Raises:
            InvalidField: An argument is out of its range. The write is not part of the batch.
            ValueError: The batch is atomic and has 1,000 writes already.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "credits": credits,
            "created_by": created_by,
            "expected_revision": expected_revision,
            "min_available_after": min_available_after,
        }
        return self._write(ADD, values, {"idempotency_key": idempotency_key})

    def use(
        self,
        *,
        user_id: int | str,
        app_id: int,
        report_id: str,
        report_name: str,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        once: bool = False,
        idempotency_key: str | None = None,
        expected_revision: int | None = None,
        min_available_after: int | None = None,
    ) -> BatchOperation:
        """Collect a purchase; the arguments are those of `CreditClient.use`.

        Raises:
            InvalidField: An argument is out of its range. The write is not part of the batch.
            ValueError: The batch is atomic and has 1,000 writes already.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "report_id": report_id,
            "report_name": report_name,
            "credits": credits,
            "created_by": created_by,
            "once": once,
            "expected_revision": expected_revision,
            "min_available_after": min_available_after,
        }
        return self._write(USE, values, {"idempotency_key": idempotency_key})

    async def send(self) -> Sequence[BatchOperation]:
        """Send the writes that have no receipt yet, and wait until each has its outcome.

        Call it again to send those that failed: with the same keys, so that none counts twice.

        Returns:
            All writes of the batch. A failed write has its `error`; none is raised here.

        Raises:
            ClientClosed: The client is not open.
        """
        caller = self._open_caller()
        writes = [write for write in self._writes if write.receipt is None]
        for write in writes:
            write.error = None
        for start in range(0, len(writes), OPERATIONS_MAX):
            chunk = writes[start : start + OPERATIONS_MAX]
            left, error = await send_writes(
                caller, chunk, atomic=self._atomic, timeout_seconds=self._timeout_seconds
            )
            if left and error is not None:
                # A server that fails now would take the whole time of each further message.
                Messages(writes[start + OPERATIONS_MAX :], atomic=False).abandon(error)
                break
        return self._operations

    def _write(
        self, method: Method[WriteT, WriteReplyT], values: Values, options: NotedOptions
    ) -> BatchOperation:
        if "timeout_seconds" in options:
            raise TypeError("timeout_seconds is an argument of the batch, not of a write in it")
        if self._atomic and len(self) == OPERATIONS_MAX:
            raise ValueError(
                f"an atomic batch has at most {OPERATIONS_MAX} writes, because all of them travel"
                " in one message: make several batches, or pass atomic=False"
            )
        given_key = options.pop("idempotency_key", None)
        write = pending_write(
            method.request_type, {**values, **options}, given_key, self._users_app_id
        )
        self._writes.append(write)
        self._operations.append(BatchOperation(write))
        return self._operations[-1]


def pending_write(
    message_type: type[WriteT], values: Values, given_key: str | None, users_app_id: int | None
) -> PendingWrite:
    """Build the valid request of a write, with its key.

    Args:
        message_type: The request's class.
        values: A value for each field.
        given_key: The key; None makes a new one.
        users_app_id: The app whose directory has all users; None: that of the write's app.

    Raises:
        InvalidField: A value breaks the contract's constraints.
        TypeError: A value has the wrong type.
    """
    key = checked_key(given_key)
    try:
        fields = {**values, "idempotency_key": key}
        return PendingWrite(*build_named(message_type, fields, users_app_id))
    except CreditError as error:
        name_key(error, key)
        raise


async def write_alone(
    caller: Caller, write: PendingWrite, *, timeout_seconds: float | None
) -> Receipt:
    """Send one write as a batch of one, and return its receipt.

    Raises:
        CreditError: The write failed.
    """
    timeout_seconds = await caller.set_numbers(write.request, write.names, timeout_seconds)
    messages = Messages([write], atomic=False)
    try:
        await caller.batch(messages, timeout_seconds=timeout_seconds)
    except CreditError as error:
        messages.abandon(error)
    return BatchOperation(write).receipt


async def send_writes(
    caller: Caller, writes: Sequence[PendingWrite], *, atomic: bool, timeout_seconds: float | None
) -> tuple[Sequence[PendingWrite], CreditError | None]:
    """Send up to 1,000 writes until each has its receipt or its error.

    Returns:
        The writes without a final outcome, and what ended the call before they had one.
    """
    if any(write.names for write in writes):
        time_left = caller.countdown(timeout_seconds)
        unnamed = await _set_numbers(caller, writes, atomic=atomic, time_left=time_left)
        if unnamed is not None:
            return Messages(writes, atomic=False).abandon(unnamed), unnamed
        timeout_seconds = time_left()
    writes = [write for write in writes if write.error is None]
    if not writes:
        return (), None
    messages = Messages(writes, atomic=atomic)
    try:
        await caller.batch(messages, timeout_seconds=timeout_seconds)
    except CreditError as error:
        return messages.abandon(error), error
    except BaseException as error:
        error.add_note(
            "writes of the batch may have taken effect: `BatchOperation.outcome` shows which, and"
            " `send` sends them again with the same keys"
        )
        raise
    return (), None


async def _set_numbers(
    caller: Caller,
    writes: Sequence[PendingWrite],
    *,
    atomic: bool,
    time_left: Callable[[], float],
) -> CreditError | None:
    """Set the numbers of the users that writes name by text.

    A write whose user has no number gets its error. In an atomic batch, the others then fail too.

    Returns:
        What ended the search for all writes; None: nothing did.
    """
    caller.home.check()
    limit = asyncio.Semaphore(_SEARCHES_MAX)
    ended: list[CreditError] = []

    async def search(write: PendingWrite) -> None:
        async with limit:
            try:
                if not ended:
                    await caller.set_numbers(write.request, write.names, time_left())
            except (UserNotFound, UserIdsExhausted, AccessDenied) as error:
                write.fail(error)
            except CreditError as error:
                ended.append(error)

    async with asyncio.TaskGroup() as searches:
        for write in writes:
            if write.names:
                searches.create_task(search(write))
    failed = next((index for index, write in enumerate(writes) if write.error is not None), None)
    if atomic and failed is not None and not ended:
        for write in writes:
            if write.error is None:
                write.fail(BatchAborted("another write of the batch has no user", index=failed))
    return ended[0] if ended else None
