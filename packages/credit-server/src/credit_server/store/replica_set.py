"""Make a single `mongod` the writable primary of a replica set with one node.

Transactions need a replica set. The embedded `mongod` listens on another port at every start, so
its stored configuration is updated with the new address. That takes 20 ms, and no port has to be
stored or reserved.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

REPLICA_SET = "credit"

_POLL_SECONDS = 0.02

# `Any`: what the driver decodes has no narrower type.
_Client = AsyncMongoClient[dict[str, Any]]


async def ensure_primary(
    host: str, port: int, *, timeout_seconds: float, database_path: Path
) -> None:
    """Wait until a `mongod` listens, configure it if necessary, and wait until it is primary.

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
        async with asyncio.timeout(timeout_seconds):
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


def _connect(host: str, port: int, timeout_seconds: float) -> _Client:
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


async def _step(client: _Client, address: str, database_path: Path) -> bool:
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
