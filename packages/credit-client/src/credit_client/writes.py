"""The writes of `LedgerService`, for single calls and for batches alike.

Each method has the fields of one request as arguments. The subclass sends the request: a
`CreditClient` returns an awaitable of the receipt, and a `Batch` returns an operation.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypedDict, TypeVar

from credit_client.methods import WriteReplyT, WriteT
from credit_client.request import Values
from credit_client.transport import Method

ResultT = TypeVar("ResultT")


class NotedOptions(TypedDict, total=False):
    """The options of a write whose note is an argument of its own.

    Attributes:
        idempotency_key: 1 to 128 characters that name this write among all writes for the user in
            the app, as for `CreditClient.add`. None makes a new key.
        expected_revision: The write is rejected with `RevisionChanged` unless this is the
            `revision` of the user's `UserCredits`.
        min_available_after: The write is rejected with `AvailableTooLow` if it would leave the
            user's balance in the app below this number.
        validate_only: Whether to decide the write, with the same errors, without writing anything.
            The receipt then has `validated` set, and shows `balance_before` and `balance`.
        metadata: Your own data, stored with the transaction: up to 16 names of 1 to 64 characters
            with texts of up to 256.
        timeout_seconds: The time for the whole call; None for the client's. A write of a batch does
            not take it and raises `TypeError`.
    """

    idempotency_key: str | None
    expected_revision: int | None
    min_available_after: int | None
    validate_only: bool
    metadata: Mapping[str, str]
    timeout_seconds: float | None


class WriteOptions(NotedOptions, total=False):
    """The options of a write.

    Attributes are those of `NotedOptions`, and:
        note: Why the write is made, for people to read: 1 to 500 characters.
    """

    note: str


class Writes(ABC, Generic[ResultT]):
    """The writes of `LedgerService`. They need a server of 0.3.0 or later.

    Times are datetimes with a time zone. Durations are timedeltas of whole seconds. All methods
    accept `WriteOptions`. Besides the listed errors, they raise those of `CreditClient.add`.
    """

    @abstractmethod
    def _write(
        self, method: Method[WriteT, WriteReplyT], values: Values, options: NotedOptions
    ) -> ResultT:
        """Send the request of a write."""
