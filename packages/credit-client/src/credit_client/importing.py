"""Imports: many rows are written with few messages, and can be imported again after a failure."""

import asyncio
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from credit_models import CreditRequest, PurchaseRequest

from credit_client.batch import pending_write, send_writes
from credit_client.call import Caller
from credit_client.errors import (
    AccessDenied,
    BalanceOverflow,
    CapExceeded,
    CreditError,
    CreditsLimitExceeded,
    DataUnreadable,
    DeadlineExceeded,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    RateLimited,
    TooManyApps,
    Unauthenticated,
    Unavailable,
    UnknownRefusal,
    UserNotFound,
)
from credit_client.operation import PendingWrite
from credit_client.request import Values

CONCURRENCY_MAX = 64
_NAME_MAX = 100

# Half of what a message may hold, so that the server works on one message while the next one waits.
_ROWS_PER_MESSAGE = 500

# The errors that concern a row alone. All others concern the server or the whole import.
_REJECTIONS = (
    AccessDenied,
    BalanceOverflow,
    CapExceeded,
    CreditsLimitExceeded,
    DataUnreadable,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    TooManyApps,
    UnknownRefusal,
    UserNotFound,
)
_MAY_PASS = DeadlineExceeded, RateLimited, Unavailable


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportRow:
    """One write of an import: the arguments of `CreditClient.add` or `CreditClient.use`.

    Attributes:
        kind: "add" or "use".
        user_id: The user: the number, or the external id as text. Name a user always in the same
            way: rows with the text and rows with the number are not in order.
        app_id: The app.
        credits: The number of credits.
        created_by: The identity of the acting person or service.
        report_id: The report's id, for "use".
        report_name: The report's name, for "use".
        idempotency_key: The key; None: the import's name and the row's position make one.
    """

    kind: Literal["add", "use"] = "add"
    user_id: int | str
    app_id: int
    credits: int
    created_by: int
    report_id: str | None = None
    report_name: str | None = None
    idempotency_key: str | None = None

    def write(self, users_app_id: int | None = None) -> PendingWrite:
        """Return the valid write of the row, which must have a key.

        Args:
            users_app_id: The app whose directory has all users; None: that of the row's app.

        Raises:
            InvalidField: A value is out of its range.
            TypeError: A value has the wrong type, is missing, or belongs to the other kind.
        """
        values: Values = {
            "user_id": self.user_id,
            "app_id": self.app_id,
            "credits": self.credits,
            "created_by": self.created_by,
        }
        if self.kind == "use":
            values = {
                **values,
                "report_id": self.report_id,
                "report_name": self.report_name,
            }
            for name in ("report_id", "report_name"):
                if values[name] is None:
                    raise TypeError(f"{name} is missing")
            return pending_write(PurchaseRequest, values, self.idempotency_key, users_app_id)
        if self.kind != "add":
            raise TypeError(f"kind must be add or use, not {self.kind!r}")
        if self.report_id is not None or self.report_name is not None:
            raise TypeError("report_id and report_name belong to rows of the kind use")
        return pending_write(CreditRequest, values, self.idempotency_key, users_app_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectedRow:
    """A row that had no effect.

    Attributes:
        number: The position of the row, from 1.
        row: The row, with its key.
        error: Why: a `CreditError`, or a `TypeError` for a value of the wrong type.
    """

    number: int
    row: ImportRow
    error: CreditError | TypeError


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport:
    """What became of the rows of an import.

    Attributes:
        rows: The rows that were read.
        applied: The rows that took effect.
        replayed: The rows that had taken effect before, by their keys.
        rejected: The rows that were rejected.
        rejections: The rejected rows, unless the import passes them to a function.
    """

    rows: int = 0
    applied: int = 0
    replayed: int = 0
    rejected: int = 0
    rejections: Sequence[RejectedRow] = ()


@dataclass(slots=True)
class _Shard:
    """The rows of some users, in their order. Only one message of a shard is in flight."""

    waiting: list[tuple[int, ImportRow, PendingWrite]] = field(default_factory=list)
    sending: asyncio.Task[None] | None = None


class Import:
    """One run of an import."""

    def __init__(
        self,
        caller: Caller,
        *,
        name: str | None,
        concurrency: int,
        progress: Callable[[ImportReport], None] | None,
        rejected: Callable[[RejectedRow], None] | None,
        timeout_seconds: float | None,
        users_app_id: int | None = None,
    ) -> None:
        """Prepare; see `CreditClient.import_` for the arguments.

        Raises:
            ValueError: The name or the concurrency is out of its range.
        """
        if not 1 <= concurrency <= CONCURRENCY_MAX:
            raise ValueError(f"concurrency must be 1 to {CONCURRENCY_MAX}, not {concurrency}")
        if name is not None:
            check_name(name)
        self._caller = caller
        self._name = name
        self._progress = progress
        self._rejected = rejected
        self._timeout_seconds = timeout_seconds
        self._users_app_id = users_app_id
        self._shards = [_Shard() for _ in range(concurrency)]
        self._report = ImportReport()
        self._rejections: list[RejectedRow] = []

    async def run(self, rows: Iterable[ImportRow] | AsyncIterable[ImportRow]) -> ImportReport:
        """Write all rows.

        Raises:
            CreditError: The server cannot be reached, or fails.
            ValueError: A row has no key and the import no name.
        """
        try:
            number = 0
            async for row in _each(rows):
                number += 1
                self._report = replace(self._report, rows=number)
                await self._take(number, row)
            for shard in self._shards:
                await self._send(shard)
            for shard in self._shards:
                await _sent(shard)
        finally:
            tasks = [shard.sending for shard in self._shards if shard.sending is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return replace(self._report, rejections=tuple(self._rejections))

    async def _take(self, number: int, row: ImportRow) -> None:
        if row.idempotency_key is None:
            if self._name is None:
                raise ValueError(
                    f"row {number} has no idempotency key: name the import, so that it can be"
                    " repeated without counting a row twice"
                )
            row = replace(row, idempotency_key=f"{self._name}:{number}")
        try:
            write = row.write(self._users_app_id)
        except (InvalidField, TypeError) as error:
            self._reject(RejectedRow(number=number, row=row, error=error))
            return
        # All rows of a user are in one shard, so that they take effect in their order. If the rows
        # name a user by text and by number, they can be in two shards.
        user = row.user_id
        # Not `hash`, which differs between processes.
        user = zlib.crc32(user.encode()) if isinstance(user, str) else user
        shard = self._shards[user % len(self._shards)]
        shard.waiting.append((number, row, write))
        if len(shard.waiting) >= _ROWS_PER_MESSAGE:
            await self._send(shard)

    async def _send(self, shard: _Shard) -> None:
        """Send the waiting rows of a shard once its previous message is answered."""
        await _sent(shard)
        waiting, shard.waiting = shard.waiting, []
        if waiting:
            shard.sending = asyncio.create_task(self._write(waiting))

    async def _write(self, rows: Sequence[tuple[int, ImportRow, PendingWrite]]) -> None:
        row_of = {write: (number, row) for number, row, write in rows}
        pending: Sequence[PendingWrite] = list(row_of)
        while pending:
            before = len(pending)
            left, error = await send_writes(
                self._caller, pending, atomic=False, timeout_seconds=self._timeout_seconds
            )
            unsettled = set(left)
            settled = [write for write in pending if write not in unsettled]
            failures = self._settle(settled, row_of)
            if failures or left:
                # The error of a row has its key.
                error = failures[0] if failures else left[0].error
            if error is not None and (
                not isinstance(error, _MAY_PASS) or len(left) + len(failures) == before
            ):
                raise error
            pending = [w for w in pending if w in unsettled or _has_failed(w)]
            for write in pending:
                write.error = None

    def _settle(
        self, settled: Sequence[PendingWrite], row_of: dict[PendingWrite, tuple[int, ImportRow]]
    ) -> list[CreditError]:
        """Count the writes that have their outcome; return the errors that are no rejections."""
        failures: list[CreditError] = []
        applied = replayed = 0
        for write in settled:
            number, row = row_of[write]
            if write.receipt is not None:
                replayed += write.receipt.replayed
                applied += not write.receipt.replayed
            elif _has_failed(write) and write.error is not None:
                failures.append(write.error)
            elif write.error is not None:
                self._reject(RejectedRow(number=number, row=row, error=write.error))
        self._report = replace(
            self._report,
            applied=self._report.applied + applied,
            replayed=self._report.replayed + replayed,
        )
        if self._progress is not None:
            self._progress(self._report)
        return failures

    def _reject(self, rejection: RejectedRow) -> None:
        self._report = replace(self._report, rejected=self._report.rejected + 1)
        if self._rejected is None:
            self._rejections.append(rejection)
        else:
            self._rejected(rejection)


def _has_failed(write: PendingWrite) -> bool:
    """Return whether a write failed for a reason that is not its row's."""
    error = write.error
    return error is not None and (
        isinstance(error, Unauthenticated) or not isinstance(error, _REJECTIONS)
    )


async def _sent(shard: _Shard) -> None:
    sending, shard.sending = shard.sending, None
    if sending is not None:
        try:
            await sending
        except asyncio.CancelledError:
            sending.cancel()
            raise


def check_name(name: str) -> None:
    """Check that a name makes valid keys.

    Raises:
        ValueError: It does not.
    """
    probe = ImportRow(user_id=1, app_id=1, credits=1, created_by=1, idempotency_key=f"{name}:1")
    try:
        probe.write()
    except InvalidField as error:
        raise ValueError(f"the name of the import makes no valid keys: {error.message}") from None
    if not 1 <= len(name) <= _NAME_MAX:
        raise ValueError(f"the name of an import has 1 to {_NAME_MAX} characters")


async def _each(
    rows: Iterable[ImportRow] | AsyncIterable[ImportRow],
) -> AsyncIterator[ImportRow]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
        return
    for row in rows:
        yield row
