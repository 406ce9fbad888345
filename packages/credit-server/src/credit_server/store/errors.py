"""The errors of the driver, translated into the port's errors and into plain words."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import structlog
from pydantic import ValidationError
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)
from pymongo.server_description import ServerDescription
from pymongo.server_type import SERVER_TYPE
from pymongo.topology_description import TopologyDescription

from credit_server.store.port import (
    CommitUnknown,
    Conflict,
    IndexMissing,
    Interrupted,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
    Unreadable,
)

log = structlog.get_logger("credit_server.store")

_DocumentT = TypeVar("_DocumentT")
_ValueT = TypeVar("_ValueT")

# DuplicateKey, WriteConflict.
_CONFLICTS = frozenset({11000, 112})

# Unauthorized, AuthenticationFailed. Treat them as an unavailable store: the same request may
# succeed after an operator has corrected the user.
_USER_REJECTED = frozenset({13, 18})

# QueryPlanKilled (a node has rolled back its writes),
# SnapshotTooOld, SnapshotUnavailable, OutOfDiskSpace: faults of the store, after which the same
# request may succeed. Numbers: MongoDB's error_codes.yml.
_STORE_FAULTS = frozenset({175, 239, 246, 14031})

# DocumentValidationFailure: the document would not be valid after the write.
INVALID_DOCUMENT = 121

# BadValue: mongod returns it, with this text, for a query by an index that does not exist.
_BAD_VALUE = 2
_NO_INDEX = "hint provided does not correspond to an existing index"

# InvalidOptions: a node returns it, with this text, for a time of the cluster that it does not have
# yet.
_INVALID_OPTIONS = 72
_LATER_TIME = "must not be greater than the current clusterTime"

# The driver's own text is a page about its view of the cluster, for debugging the driver.
_UNREACHABLE = (
    "MongoDB has no primary that can be reached: see whether it runs, whether its replica set was"
    " initiated (rs.initiate(), once), whether CREDIT_MONGODB_URI names its hosts and the set's"
    " name, and whether the network lets this machine through"
)

# The driver appends this to the operating system's text.
_DRIVERS_SETTINGS = " (configured timeouts"

# asyncio replaces the operating system's text for the reason.
_ASYNCIOS_TEXT = re.compile(r"\[Errno (\d+)\] Connect call failed \(.*\)")

_NOT_PRIMARY = (SERVER_TYPE.RSSecondary, SERVER_TYPE.RSArbiter, SERVER_TYPE.RSOther)


class UserRejected(StoreUnavailable):
    """MongoDB rejects the user of the connection string, or does not permit a command to it."""


@contextmanager
def translated() -> Iterator[None]:
    """Translate the driver's errors into the port's; other errors are bugs and pass unchanged.

    A document that its model rejects is unreadable. Create models of new documents outside of this
    context.
    """
    try:
        yield
    except PyMongoError as error:
        known = translate(error)
        if known is None:
            raise
        if isinstance(known, IndexMissing):
            log.error("a read of the store failed", reason=str(known))
        raise known from error
    except ValidationError as error:
        fault = unreadable(error)
        report(fault)
        raise fault from error


def readable(
    documents: Iterable[_DocumentT], convert: Callable[[_DocumentT], _ValueT]
) -> list[_ValueT]:
    """Convert documents, and leave out those that cannot be read: they must not stop the others."""
    values: list[_ValueT] = []
    for document in documents:
        try:
            values.append(convert(document))
        except ValidationError as error:
            report(unreadable(error))
    return values


def report(error: Unreadable) -> None:
    """Log that a document cannot be read, for the operator."""
    log.error(
        "a stored document cannot be read: run credit-server verify",
        reason=str(error),
        user_ids=sorted(error.user_ids),
        app_ids=sorted(error.app_ids),
    )


def unreadable(
    error: ValidationError, *, user_ids: Collection[int] = (), app_ids: Collection[int] = ()
) -> Unreadable:
    """Return the error of a document that its model rejects. The message has no values."""
    names = sorted({".".join(str(part) for part in each["loc"]) for each in error.errors()})
    return Unreadable(
        f"{error.title} is not valid: {', '.join(names)}", user_ids=user_ids, app_ids=app_ids
    )


@contextmanager
def all_translated() -> Iterator[None]:
    """Translate every error of the driver, because in an inspection none of them is a bug."""
    try:
        with translated():
            yield
    except PyMongoError as error:
        raise StoreError(f"MongoDB rejects a command: {error}") from error


def translate(error: PyMongoError) -> StoreError | None:
    """Return the error of the port that describes what is known of the effects.

    The labels come from the server and the driver. A duplicate key has no label, although it aborts
    the transaction. See
    https://www.mongodb.com/docs/manual/core/transactions-in-applications/.
    """
    if error.has_error_label("UnknownTransactionCommitResult"):
        return CommitUnknown(str(error))
    if isinstance(error, ServerSelectionTimeoutError):  # labelled as transient, but it is not
        return StoreUnavailable(_UNREACHABLE)
    code = error.code if isinstance(error, OperationFailure) else None
    if code in _CONFLICTS:
        return Conflict(str(error))
    if error.has_error_label("TransientTransactionError"):
        return Interrupted(f"the transaction was aborted ({type(error).__name__})")
    if isinstance(error, OperationFailure) and code in _USER_REJECTED:
        return UserRejected(
            f"MongoDB rejects the user that CREDIT_MONGODB_URI names: {_reason(error)}"
        )
    if code == INVALID_DOCUMENT:
        return Unreadable("a stored document is not valid, so that it cannot be changed")
    if code == _BAD_VALUE and _NO_INDEX in str(error):
        return IndexMissing("an index is missing: run credit-server migrate")
    if code == _INVALID_OPTIONS and _LATER_TIME in str(error):
        return StoreUnavailable("the MongoDB node does not have the latest transactions yet")
    unavailable = isinstance(error, ConnectionFailure) or _is_unconfirmed(error)
    if unavailable or code in _STORE_FAULTS or error.timeout:
        return StoreUnavailable(f"MongoDB could not serve the request ({type(error).__name__})")
    if isinstance(error, ConfigurationError):
        return StoreMisconfigured(f"CREDIT_MONGODB_URI cannot be used: {error}")
    return None


def _reason(error: OperationFailure) -> str:
    """Return MongoDB's reason without the command, which contains data of users."""
    reason = str((error.details or {}).get("errmsg", "no reason"))
    return reason.partition(" {")[0].removesuffix(".")


def _is_unconfirmed(error: PyMongoError) -> bool:
    """Return whether no majority is known to have a write, as after a change of primary."""
    if isinstance(error, BulkWriteError):
        return bool(error.details["writeConcernErrors"]) and not error.details["writeErrors"]
    return isinstance(error, WriteConcernError)


def explain_unreachable(topology: TopologyDescription) -> str:
    """Describe, for each host of a connection string, why it is unreachable or takes no writes."""
    servers = topology.server_descriptions().values()
    if not servers:  # the driver drops hosts that are not in the replica set
        if topology.replica_set_name is None:
            return "the hosts that CREDIT_MONGODB_URI names answer, and none is in a replica set"
        return (
            "the hosts that CREDIT_MONGODB_URI names answer, and none of them is in a replica set"
            f" '{topology.replica_set_name}': see replicaSet= in it, and rs.status().set"
        )
    return "; ".join(_explain_host(server) for server in servers)


def _explain_host(server: ServerDescription) -> str:
    where = f"{server.address[0]}:{server.address[1]}"
    if server.server_type == SERVER_TYPE.RSGhost:
        return f"the replica set of {where} was never initiated: run rs.initiate() once, in mongosh"
    if server.server_type in _NOT_PRIMARY:
        return f"{where} is up and not the primary: see rs.status()"
    if server.error is None:
        return f"{where} does not answer"
    why = _ASYNCIOS_TEXT.sub(_system_text, str(server.error).partition(_DRIVERS_SETTINGS)[0])
    return why if where in why else f"{where}: {why}"


def _system_text(found: re.Match[str]) -> str:
    return f"[Errno {found[1]}] {os.strerror(int(found[1]))}"
