"""Connections to MongoDB: clients, the hosts of a connection string, a single node made primary."""

import asyncio
import re
from contextlib import suppress
from pathlib import Path

from credit_models.timeouts import Timeout
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from credit_server.store.driver import Client, Clients, Driver
from credit_server.store.port import StoreMisconfigured

# The name of the embedded mongod's replica set.
REPLICA_SET = "credit"

_SCHEMES = ("mongodb://", "mongodb+srv://")

_POLL_SECONDS = 0.02

# The driver checks each host on a separate connection. If a host has not answered a check for the
# sum of both times, the driver interrupts all commands on that host. With the driver's defaults,
# the sum is 15 s, and each of several commands in a row to a hung primary waited for the time limit
# of an answer, 5 s. See "Check frequency" and "clearing the connection pool" in
# https://github.com/mongodb/specifications/blob/master/source/server-discovery-and-monitoring/server-monitoring.md
_CHECK_SECONDS = 1.0
_CONNECT_SECONDS_MAX = 2.0


def open_clients(
    uri: str,
    *,
    name: str,
    timeout_seconds: float,
    driver: Driver = Driver.PYMONGO,
    answers_are_timed: bool = True,
) -> Clients:
    """Return clients; their first operations connect.

    Commands to a host that hangs are interrupted after 3 s, or a second after `timeout_seconds` if
    that is less, unless the connection string has `heartbeatFrequencyMS` or `connectTimeoutMS`.

    Args:
        uri: A MongoDB connection string.
        name: The clients' name in mongod's log.
        timeout_seconds: How long to look for a server, and to wait for each answer; at least 0.1.
        driver: The driver with which to read.
        answers_are_timed: Whether `timeout_seconds` limits the wait for an answer, and commands to
            a host that hangs are interrupted. Building an index may take longer than any limit, and
            is not to be interrupted because the host is slow for some seconds.

    Raises:
        StoreMisconfigured: The connection string is not valid.
    """
    if not uri.startswith(_SCHEMES):
        raise StoreMisconfigured(
            "CREDIT_MONGODB_URI is not valid: it must begin with mongodb:// or mongodb+srv://"
        )
    milliseconds = int(timeout_seconds * 1000)
    try:
        return Clients(
            uri,
            driver,
            appname=name,
            tz_aware=True,
            serverSelectionTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds if answers_are_timed else None,
            **(_checks(uri, milliseconds) if answers_are_timed else {}),
        )
    except (PyMongoError, ValueError) as error:
        raise StoreMisconfigured(f"CREDIT_MONGODB_URI is not valid: {error}") from error


def _checks(uri: str, milliseconds: int) -> dict[str, int]:
    """Return the options of the checks of hosts that a connection string does not have."""
    options = {
        "heartbeatFrequencyMS": int(_CHECK_SECONDS * 1000),
        "connectTimeoutMS": min(milliseconds, int(_CONNECT_SECONDS_MAX * 1000)),
    }
    # The names of options are case-insensitive.
    pairs = re.split("[&;]", uri.partition("?")[2])
    given = {pair.partition("=")[0].lower() for pair in pairs}
    return {name: value for name, value in options.items() if name.lower() not in given}


def hosts_of(uri: str) -> str:
    """Return a connection string's hosts, without its user, password, database and options."""
    server = uri.partition("://")[2]
    # In a password, / and @ must be escaped; otherwise the driver rejects the string.
    return server.partition("/")[0].partition("?")[0].rpartition("@")[2]


async def ensure_primary(
    host: str, port: int, *, timeout_seconds: float, database_path: Path
) -> None:
    """Wait until a `mongod` listens, configure it if necessary, and wait until it is primary.

    Transactions need a replica set. The embedded `mongod` listens on another port at every start,
    so its stored configuration is updated with the new address. That takes 20 ms, and no port has
    to be stored or reserved.

    Args:
        host: A loopback address.
        port: The port of the `mongod`.
        timeout_seconds: How long all steps together may take.
        database_path: Its `--dbpath`. Another `mongod` may have taken the port in the meantime, and
            must not be reconfigured.

    Raises:
        TimeoutError: It was not primary in time; the message describes the last obstacle.
    """
    obstacle = "nothing listens on its port"
    try:
        async with Timeout(timeout_seconds):
            await _until_listening(host, port)
            obstacle = "it was not elected primary"
            async with _connect(host, port, timeout_seconds) as client:
                while True:
                    try:
                        if await _step(client, f"{host}:{port}", database_path):
                            return
                    except PyMongoError as error:
                        obstacle = str(error)
                    await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError as error:
        raise TimeoutError(obstacle) from error


def _connect(host: str, port: int, timeout_seconds: float) -> Client:
    return AsyncMongoClient(
        host,
        port,
        directConnection=True,
        serverSelectionTimeoutMS=max(1, int(timeout_seconds * 1000)),
    )


async def _until_listening(host: str, port: int) -> None:
    """Connect until the port accepts: the driver itself would retry only every 500 ms."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _step(client: Client, address: str, database_path: Path) -> bool:
    """Advance the node by one step; return whether it is primary."""
    options = await client.admin.command("getCmdLineOpts")
    if options["parsed"].get("storage", {}).get("dbPath") != str(database_path):
        return False
    hello = await client.admin.command("hello")
    if hello["isWritablePrimary"]:
        return True
    # Read the collection: `replSetGetConfig` cannot distinguish a new node from one that is
    # loading.
    stored = await client.local["system.replset"].find_one()
    members = [{"_id": 0, "host": address}]
    if stored is None:
        await client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
    elif [member["host"] for member in stored["members"]] != [address]:
        # A node that is not in its own configuration is not primary, so force the change.
        changed = {**stored, "version": stored["version"] + 1, "members": members}
        await client.admin.command("replSetReconfig", changed, force=True)
    return False
