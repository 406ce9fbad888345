"""The MongoDB connection string: a client for it, and the hosts that it names."""

from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError

from credit_server.store.failure import StoreMisconfigured

# `Any`: what the driver decodes has no narrower type.
Client = AsyncIOMotorClient[dict[str, Any]]

_SCHEMES = ("mongodb://", "mongodb+srv://")


def open_client(
    uri: str, *, name: str, timeout_seconds: float, answers_are_timed: bool = True
) -> Client:
    """Make a client; its first operation connects.

    Args:
        uri: A MongoDB connection string.
        name: What the servers' logs call the client.
        timeout_seconds: How long to look for a server, and to wait for each answer; at least 0.1.
        answers_are_timed: Whether `timeout_seconds` limits the wait for an answer. Building an
            index takes as long as it takes.

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
    # A password may hold any sign but these two unescaped; MongoDB refuses it otherwise.
    return server.partition("/")[0].partition("?")[0].rpartition("@")[2]
