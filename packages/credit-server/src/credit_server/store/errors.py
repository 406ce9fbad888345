"""The errors of the driver, translated into the port's errors and into plain words."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.server_description import ServerDescription
from pymongo.server_type import SERVER_TYPE
from pymongo.topology_description import TopologyDescription

from credit_server.store.port import (
    CommitUnknown,
    Conflict,
    Interrupted,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
)

# DuplicateKey, WriteConflict.
_CONFLICTS = frozenset({11000, 112})

# Unauthorized, AuthenticationFailed, SnapshotTooOld, SnapshotUnavailable, OutOfDiskSpace: faults of
# the store, after which the same request may succeed. Numbers: MongoDB's error_codes.yml.
_STORE_FAULTS = frozenset({13, 18, 239, 246, 14031})

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


@contextmanager
def translated() -> Iterator[None]:
    """Translate the driver's errors into the port's; other errors are bugs and pass unchanged."""
    try:
        yield
    except PyMongoError as error:
        known = translate(error)
        if known is None:
            raise
        raise known from error


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
    if isinstance(error, ConnectionFailure) or code in _STORE_FAULTS or error.timeout:
        return StoreUnavailable(f"MongoDB could not serve the request ({type(error).__name__})")
    if isinstance(error, ConfigurationError):
        return StoreMisconfigured(f"CREDIT_MONGODB_URI cannot be used: {error}")
    return None


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
