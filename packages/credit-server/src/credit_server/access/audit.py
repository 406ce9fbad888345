"""The audit log: one line for each write and each denial; who, what and what came of it.

It holds no secrets: only the name of an identity is written.
"""

import asyncio
import contextvars
import json
import os
import stat
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

import betterproto2
import structlog
from credit_models.constraints import Constraint, constraints_of
from credit_models.ledger import AlertUnchanged, Receipt
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status

from credit_server.access.identity import Identity
from credit_server.errors import StartError
from credit_server.grpc.call import Call
from credit_server.grpc.ports import Translate
from credit_server.store.port import AppPolicy, DirectoryUser

# What a line shows under one name.
Shown = str | int | bool | Mapping[str, str]
Line = Mapping[str, Shown]
# Writes one line; must not raise.
Sink = Callable[[Line], None]


@dataclass(frozen=True, slots=True)
class Done:
    """A write took effect that makes no transaction and changes no policy."""


class ResolvedUser(NamedTuple):
    """The effect of a call that resolves a user.

    Attributes:
        user: The user.
        created: Whether the call assigned the number.
    """

    user: DirectoryUser
    created: bool


# What a write that succeeded has done.
Effect = Receipt | AppPolicy | AlertUnchanged | Done | ResolvedUser

# The result of a write: its effect, its error, or None if it was dropped without an effect.
WriteResult = Effect | BaseException | None
_ChangeT = TypeVar("_ChangeT")

# Longer than any path that is served; strangers may call any path.
_PATH_CHARACTERS_MAX = 128
# First the fields that the line of each write shows, then those that it shows if they are set. Some
# have another name in the line: a reversed transaction is `reversed_id`, because `transaction_id`
# is the transaction of the receipt.
_ALWAYS = {
    "user_id": "user_id",
    "app_id": "app_id",
    "credits": "credits",
    "created_by": "created_by",
    "idempotency_key": "key",
}
_IF_SET = {
    "external_id": "external_id",
    "delta": "delta",
    "grant_id": "grant_id",
    "hold_id": "hold_id",
    "transaction_id": "reversed_id",
    "to_user_id": "to_user_id",
    "to_app_id": "to_app_id",
    "allow_negative": "allow_negative",
    "direction": "direction",
    "url": "url",
    "dead_letter_id": "dead_letter_id",
    "validate_only": "validate_only",
    "note": "note",
    "metadata": "metadata",
}
_OTHERS = stat.S_IROTH | stat.S_IWOTH

_log = structlog.get_logger("credit_server.audit")


def ordinary_log(line: Line) -> None:
    """Write a line to the server's ordinary log, at level info."""
    _log.info("audit", **line)


class _AboutApp(Protocol):
    """A request about an app, and perhaps a user of it; None: it names none."""

    @property
    def app_id(self) -> int | None: ...


class AuditLog:
    """Writes what was done, and what was denied.

    Attributes:
        enabled: Whether lines are written anywhere. If not, a caller can skip `write`, which then
            has no effect.
        changing: The changes under way: the event loop does not keep its tasks.
    """

    def __init__(self, sink: Sink | None, *, translate: Translate) -> None:
        """Prepare.

        Args:
            sink: Where lines are written; None: nowhere.
            translate: Returns the status that a caller gets for an exception.
        """
        self.enabled = sink is not None
        self.changing: set[asyncio.Task[Any]] = set()
        self._sink = sink
        self._translate = translate

    def write(
        self,
        call: Call[Any, Any],
        identity: Identity | None,
        request: betterproto2.Message | None,
        *,
        operation: str = "",
    ) -> "AuditedWrite":
        """Return a context manager, inside which the caller makes a write.

        The line of the write is written when the context ends. If the caller has left before that,
        it is written as soon as the result is known.

        Args:
            call: The call. Any: a call of any messages.
            identity: The identity of the call; None if there is none.
            request: The write; None: the operation has no request.
            operation: The kind of the operation in a call that has several; empty: the call itself
                is the write.
        """
        if self._sink is None:
            return AuditedWrite(self, {}, call.request.request_id)
        asked: dict[str, Shown] = {"operation": operation} if operation else {}
        if request is not None:
            asked |= _shown(request)
        # Now: a connection that has gone has lost its peer.
        return AuditedWrite(self, {**_who(call, identity), **asked}, call.request.request_id)

    def denied(
        self,
        call: Call[Any, Any],
        identity: Identity | None,
        denial: Exception,
        request: _AboutApp | None = None,
    ) -> None:
        """Write that a call was denied.

        Args:
            call: The call. Any: a call of any messages.
            identity: The identity of the call; None if there is none.
            denial: Why.
            request: Its message, if that has been read and is not a write.
        """
        what: dict[str, Shown] = {}
        if request is not None and request.app_id is not None:
            what["app_id"] = request.app_id
            user_id: int | None = getattr(request, "user_id", None)
            if user_id is not None:
                what["user_id"] = user_id
        self.record({**_who(call, identity), **what}, denial, call.request.request_id)

    def record(
        self, what: Line, ending: WriteResult, request_id: str, *, answered: bool = True
    ) -> None:
        """Write one line.

        Args:
            what: Who asked for what.
            ending: What came of it.
            request_id: The id of the call.
            answered: Whether the caller was still waiting.
        """
        if self._sink is None:
            return
        line = {**what, **self._outcome(ending)}
        if not answered:
            line["answered"] = False
        self._sink({**line, "request_id": request_id})

    def _outcome(self, ending: WriteResult) -> Line:
        if isinstance(ending, Receipt):
            written = {} if ending.validated else {"transaction_id": ending.transaction.id}
            return {"status": Status.OK.name, **written, "replayed": ending.replayed}
        if isinstance(ending, AppPolicy):
            return {"status": Status.OK.name, "revision": ending.revision}
        if isinstance(ending, Done):
            return {"status": Status.OK.name}
        if isinstance(ending, AlertUnchanged):
            return {"status": Status.OK.name, "replayed": True}
        if isinstance(ending, ResolvedUser):
            user_id, created = ending.user.user_id, ending.created
            return {"status": Status.OK.name, "user_id": user_id, "created": created}
        if ending is None:
            return {"status": Status.CANCELLED.name}
        error = self._translate(ending, write=True)
        if error is None:
            return {"status": Status.INTERNAL.name}
        for detail in error.details or ():
            if isinstance(detail, ErrorInfo):
                return {"status": error.status.name, "reason": detail.reason}
        return {"status": error.status.name}


class AuditedWrite:
    """A write under way.

    Attributes:
        receipt: What was accepted; None until then.
    """

    receipt: Effect | None

    def __init__(self, audit: AuditLog, what: Line, request_id: str) -> None:
        self.receipt = None
        self._audit = audit
        self._what = what
        self._request_id = request_id
        self._context = contextvars.copy_context()
        self._recorded = False

    def __enter__(self) -> "AuditedWrite":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Otherwise the caller has left or the deadline has passed, and `outlived` is called.
        if error is None or isinstance(error, Exception):
            self._record(error or self.receipt, answered=True)

    def ended(self, ending: WriteResult) -> None:
        """Write the line of a write whose caller has stayed. Use it instead of the context."""
        self._record(ending, answered=True)

    # Any: what a coroutine yields and is sent.
    async def complete(
        self, change: Coroutine[Any, Any, _ChangeT], effect_of: Callable[[_ChangeT], Effect]
    ) -> _ChangeT:
        """Make a change, and return its result.

        A change whose caller leaves is completed, so that its line is true.

        Args:
            change: The change.
            effect_of: Returns what the line shows of a result.
        """

        def outlived(ended: asyncio.Task[_ChangeT]) -> None:
            if ended.cancelled():  # the server stopped before it
                self.outlived(None)
            else:
                self.outlived(ended.exception() or effect_of(ended.result()))

        changing = asyncio.create_task(change)
        self._audit.changing.add(changing)
        changing.add_done_callback(self._audit.changing.discard)
        try:
            result = await asyncio.shield(changing)
        except asyncio.CancelledError:
            changing.add_done_callback(outlived)
            raise
        self.receipt = effect_of(result)
        return result

    def outlived(self, ending: WriteResult) -> None:
        """Write the line of a write whose caller has left."""
        # In the log context of the call: the batch may be what reports the result.
        self._context.run(self._record, ending, answered=False)

    def _record(self, ending: WriteResult, *, answered: bool) -> None:
        if not self._recorded:
            self._recorded = True
            self._audit.record(self._what, ending, self._request_id, answered=answered)


def _shown(request: betterproto2.Message) -> dict[str, Shown]:
    """Return what the line of a write shows of its request."""
    shown: dict[str, Shown] = {}
    for field, name, constraint in _shown_fields(type(request)):
        value: Shown | None = getattr(request, field)
        if isinstance(value, betterproto2.Enum):
            value = (value.name or str(int(value))).lower()
        if value or (value is not None and field in _ALWAYS):
            shown[name] = _cut(value, constraint)
    return shown


@cache
def _shown_fields(
    request_type: type[betterproto2.Message],
) -> Sequence[tuple[str, str, Constraint]]:
    """Return the fields of a request that its line shows: field, name in the line, constraint."""
    constraints = constraints_of(request_type)
    names = {**_ALWAYS, **_IF_SET}
    empty = request_type()
    return [
        (field, name, constraints.get(field, Constraint()))
        for field, name in names.items()
        if hasattr(empty, field)
    ]


def _cut(value: Shown, constraint: Constraint) -> Shown:
    """Return a value that is no longer than the contract allows.

    A longer one is rejected, and its line need not be longer than others.
    """
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return value[: constraint.length_max]
    keys, values = constraint.keys or Constraint(), constraint.values or Constraint()
    pairs = islice(value.items(), constraint.items_max)
    return {name[: keys.length_max]: text[: values.length_max] for name, text in pairs}


def _who(call: Call[Any, Any], identity: Identity | None) -> Line:
    named = {} if identity is None else {"identity": identity.name}
    return {"peer": call.peer.name, **named, "method": call.request.path[:_PATH_CHARACTERS_MAX]}


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AuditFile:
    """The audit log's own file: JSON lines that only their owner may read.

    A line is written at once and whole, by one system call, so that it survives the process and
    several servers may share a file. It is not synced: what a crash of the machine may lose here,
    the ledger still has. A line takes 14 µs of the processor (2-core machine): handing it to a
    thread would take longer.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = _utc_now) -> None:
        """Open the file, or create it.

        Args:
            path: Where it is. Its folder must exist.
            clock: Returns the time, UTC.

        Raises:
            OSError: It cannot be opened.
        """
        self._path = path
        self._clock = clock
        self._failed = 0  # lines in a row
        self._torn = False
        self._open()

    def __call__(self, line: Line) -> None:
        """Append a line.

        The first line that fails is reported in the ordinary log, and so is the end of the failure
        with the number of lines that were lost. The server continues: what the line is about has
        happened.
        """
        # As the ordinary log writes it.
        timestamp = self._clock().isoformat(timespec="microseconds").replace("+00:00", "Z")
        stamped = {"timestamp": timestamp, **line}
        # A new line starts after half a line.
        data = b"\n" * self._torn + json.dumps(stamped).encode() + b"\n"
        file = str(self._path)
        try:
            self._append(data)
        except OSError as error:
            if not self._failed:
                _log.error("the audit log cannot be written", file=file, reason=str(error))
            self._failed += 1
        else:
            if self._failed:
                _log.warning("the audit log is written again", file=file, lines_failed=self._failed)
            self._failed = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _append(self, data: bytes) -> None:
        try:
            self._reopen_if_rotated()
        finally:
            # If no file can be opened at the path, the line goes to the one that was rotated away.
            self._torn = os.write(self._file, data) != len(data)
        if self._torn:
            raise OSError("only a part of a line was written")

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self._path, flags, mode=0o600)
        status = os.fstat(self._file)
        self._opened = _which(status)
        if stat.S_IMODE(status.st_mode) & _OTHERS:
            _log.warning(
                "the audit log is open to all users of this machine: chmod o= it",
                file=str(self._path),
            )

    def _reopen_if_rotated(self) -> None:
        """Open the file at the path if it is no longer the open one."""
        try:
            unchanged = _which(self._path.stat()) == self._opened
        except FileNotFoundError:
            unchanged = False
        if not unchanged:
            rotated = self._file
            self._open()
            os.close(rotated)


def _which(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


@asynccontextmanager
async def open_audit(
    path: Path | None, *, identities: bool, translate: Translate
) -> AsyncIterator[AuditLog]:
    """Open the audit log for as long as the context lasts.

    Args:
        path: Its file; None: it is written to the ordinary log, and without identities nowhere.
        identities: Whether calls need an identity.
        translate: Returns the status that a caller gets for an exception.

    Raises:
        StartError: The file cannot be opened.
    """
    if path is None:
        yield AuditLog(ordinary_log if identities else None, translate=translate)
        return
    try:
        file = AuditFile(path)
    except OSError as error:
        raise StartError(
            f"The audit log {path} cannot be opened: {error.strerror}. See --audit-log."
        ) from error
    try:
        yield AuditLog(file, translate=translate)
    finally:
        file.close()
