"""A list of a user's rows while it is read: its open stream, and where it continues."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

from credit_models import CreditTransaction, Purchase, UserId
from grpclib.const import Status

from credit_client.transport import AnswerBroken, Method, Transport

RowT = TypeVar("RowT", Purchase, CreditTransaction)


class Listing(Generic[RowT]):
    """Reads a list in one or more attempts, each of which starts after the last row.

    Rows come by ascending `sequence`. That is checked, so that no row comes twice. Servers before
    0.2.0 do not know `after_sequence` and start every attempt at the first row. They do not number
    purchases either, so that such a list cannot be continued.

    Attributes:
        method: The call.
        rows: The number of new rows of the current attempt.
        can_continue: Whether another attempt can start after the last row.
    """

    def __init__(self, method: Method[UserId, RowT], request: UserId) -> None:
        """Open nothing yet. The user of the request may be set until the first attempt."""
        self.method: Method[UserId, RowT] = method
        self.rows = 0
        self.can_continue = True
        self._request = request
        self._last = request.after_sequence
        self._messages: AsyncGenerator[RowT, None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether an attempt is under way."""
        return self._messages is not None

    def open(self, transport: Transport, *, request_id: str, metadata: Mapping[str, str]) -> None:
        """Begin an attempt after the last row."""
        self.rows = 0
        self._messages = transport.stream(
            self.method,
            replace(self._request, after_sequence=self._last),
            request_id=request_id,
            metadata=metadata,
        )

    async def message(self) -> RowT | None:
        """Receive the next row of the attempt, or None at the end of the list.

        Raises:
            AttemptFailed: The attempt has ended too early.
        """
        if self._messages is None:
            raise RuntimeError("the list is not open")
        try:
            return await anext(self._messages, None)
        except BaseException:
            # An exception ends a generator.
            self._messages = None
            raise

    def accept(self, row: RowT) -> bool:
        """Return whether a row is new, and remember it as the last one.

        Raises:
            AnswerBroken: The row is out of order, or cannot be distinguished from earlier ones.
        """
        if not row.sequence:
            if self._last:
                raise AnswerBroken(
                    Status.UNIMPLEMENTED,
                    "the server is older than 0.2.0 and cannot list purchases after a sequence",
                )
            self.can_continue = False
        elif row.sequence > self._last:
            self._last = row.sequence
        elif self.rows:
            raise AnswerBroken(
                Status.INTERNAL,
                f"the list is out of order: sequence {row.sequence} comes after {self._last}",
            )
        else:
            return False
        self.rows += 1
        return True

    async def close(self) -> None:
        """End the attempt that is under way, if any."""
        messages, self._messages = self._messages, None
        if messages is not None:
            await messages.aclose()
