"""The connection to MongoDB: open a client, translate its errors, explain unreachable hosts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
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
    StoreUnavailable,
)

# `Any`: what the driver decodes has no narrower type.
Client = AsyncIOMotorClient[dict[str, Any]]

_SCHEMES = ("mongodb://", "mongodb+srv://")

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

_NOT_PRIMARY = (SERVER_TYPE.RSSecondary, SERVER_TYPE.RSArbiter, SERVER_TYPE.RSOther)


class StoreMisconfigured(StoreError):
    """The database is not what the server needs. The message describes what to do."""


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


def open_client(
    uri: str, *, name: str, timeout_seconds: float, answers_are_timed: bool = True
) -> Client:
    """Return a client; its first operation connects.

    Args:
        uri: A MongoDB connection string.
        name: The client's name in mongod's log.
        timeout_seconds: How long to look for a server, and to wait for each answer; at least 0.1.
        answers_are_timed: Whether `timeout_seconds` limits the wait for an answer. Building an
            index may take longer than any limit.

    Raises:
        StoreMisconfigured: The connection string is not valid.
    """
    if not uri.startswith(_SCHEMES):
        raise StoreMisconfigured(
            "CREDIT_MONGODB_URI is not valid: it must begin with mongodb:// or mongodb+srv://"
        )
    milliseconds = int(timeout_seconds * 1000)
    try:
        return AsyncIOMotorClient(
            uri,
            appname=name,
            tz_aware=True,
            connectTimeoutMS=milliseconds,
            serverSelectionTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds if answers_are_timed else None,
        )
    except (PyMongoError, ValueError) as error:
        raise StoreMisconfigured(f"CREDIT_MONGODB_URI is not valid: {error}") from error


def hosts_of(uri: str) -> str:
    """Return a connection string's hosts, without its user, password, database and options."""
    server = uri.partition("://")[2]
    # In a password, / and @ must be escaped; otherwise the driver rejects the string.
    return server.partition("/")[0].partition("?")[0].rpartition("@")[2]


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
    why = str(server.error).partition(_DRIVERS_SETTINGS)[0]
    return why if where in why else f"{where}: {why}"
