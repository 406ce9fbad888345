"""The one MongoDB replica set that all servers of a run share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from credit_server.embedded import EmbeddedMongod


@asynccontextmanager
async def replica_set(uri: str | None, folder: Path) -> AsyncIterator[str]:
    """Give the address of a replica set for as long as the context lasts.

    Args:
        uri: One that is there already; None starts a private mongod.
        folder: Where a private mongod keeps its data.
    """
    if uri is not None:
        yield uri
        return
    mongod = EmbeddedMongod(data_dir=folder)
    try:
        yield await mongod.start()
    finally:
        await mongod.stop()
