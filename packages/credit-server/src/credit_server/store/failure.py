"""Translates the driver's errors into the port's: what is known of the effects."""

from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from credit_server.store.port import (
    CommitUnknown,
    Conflict,
    Interrupted,
    StoreError,
    StoreUnavailable,
)

_CONFLICTS = frozenset({11000, 112})
"""DuplicateKey, WriteConflict."""

_TROUBLES = frozenset({13, 18, 239, 246, 14031})
"""Unauthorized, AuthenticationFailed, SnapshotTooOld, SnapshotUnavailable, OutOfDiskSpace: the
store's troubles, which the same request outlives. Numbers: MongoDB's error_codes.yml."""

# The driver's own text is a page of its view of the cluster, for those who debug the driver.
_UNREACHABLE = (
    "MongoDB has no primary that can be reached: see whether it runs, whether its replica set was"
    " initiated (rs.initiate(), once), whether CREDIT_MONGODB_URI names its hosts and the set's"
    " name, and whether the network lets this machine through"
)


class StoreMisconfigured(StoreError):
    """The database is not what the server needs. The message says what to do."""


@contextmanager
def translated() -> Iterator[None]:
    """Translate the driver's errors into the port's; others are bugs and pass."""
    try:
        yield
    except PyMongoError as error:
        known = translate(error)
        if known is None:
            raise
        raise known from error


def translate(error: PyMongoError) -> StoreError | None:
    """Say what is known of the effects.

    The labels are the server's and the driver's word; a duplicate key has none, and aborts the
    transaction all the same. See
    https://www.mongodb.com/docs/manual/core/transactions-in-applications/.
    """
    if error.has_error_label("UnknownTransactionCommitResult"):
        return CommitUnknown(str(error))
    if isinstance(error, ServerSelectionTimeoutError):  # labelled as transient, and is not
        return StoreUnavailable(_UNREACHABLE)
    code = error.code if isinstance(error, OperationFailure) else None
    if code in _CONFLICTS:
        return Conflict(str(error))
    if error.has_error_label("TransientTransactionError"):
        return Interrupted(f"the transaction was given up ({type(error).__name__})")
    if isinstance(error, ConnectionFailure) or code in _TROUBLES or error.timeout:
        return StoreUnavailable(f"MongoDB could not serve the request ({type(error).__name__})")
    if isinstance(error, ConfigurationError):
        return StoreMisconfigured(f"CREDIT_MONGODB_URI cannot be used: {error}")
    return None
