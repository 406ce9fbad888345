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

from credit_server.store.port import CommitUnknown, Conflict, StoreError, StoreUnavailable

_DUPLICATE_KEY = 11000
_WRITE_CONFLICT = 112

# The driver's own text is a page of its view of the cluster, for those who debug the driver.
_UNREACHABLE = (
    "MongoDB has no primary that can be reached: see whether it runs, whether CREDIT_MONGODB_URI"
    " names its hosts and its replica set, and whether the network lets this machine through"
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
    if error.has_error_label("TransientTransactionError"):
        return Conflict(str(error))
    if isinstance(error, OperationFailure) and error.code in (_DUPLICATE_KEY, _WRITE_CONFLICT):
        return Conflict(str(error))
    if isinstance(error, ConnectionFailure):
        return StoreUnavailable(f"the connection to MongoDB failed ({type(error).__name__})")
    if isinstance(error, ConfigurationError):
        return StoreMisconfigured(str(error))
    if isinstance(error, OperationFailure) and error.timeout:
        return StoreUnavailable(str(error))
    return None
