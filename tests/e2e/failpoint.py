"""Delay commits in a real mongod."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pymongo import AsyncMongoClient

_PATIENCE_MILLISECONDS = 60_000
_BLOCK_MILLISECONDS = 1_500
"""A blocked command cannot be released from outside: this is how long the test really takes."""


class Failpoint:
    """A failpoint that is active.

    See https://github.com/mongodb/mongo/wiki/The-%22failCommand%22-fail-point.
    """

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], entered: int) -> None:
        self._client = client
        self._entered = entered

    async def met(self) -> None:
        """Wait until a command has reached it."""
        await self._client.admin.command(
            "waitForFailPoint",
            "failCommand",
            timesEntered=self._entered + 1,
            maxTimeMS=_PATIENCE_MILLISECONDS,
        )


@asynccontextmanager
async def blocked_commits(uri: str) -> AsyncIterator[Failpoint]:
    """Delay each commit of servers by 1.5 seconds, for as long as the context lasts."""
    data = {
        "failCommands": ["commitTransaction"],
        "appName": "credit-server",
        "blockConnection": True,
        "blockTimeMS": _BLOCK_MILLISECONDS,
    }
    async with _failpoint(uri, data) as failpoint:
        yield failpoint


@asynccontextmanager
async def _failpoint(uri: str, data: Mapping[str, object]) -> AsyncIterator[Failpoint]:
    client: AsyncMongoClient[dict[str, Any]]
    async with AsyncMongoClient(uri) as client:
        answer = await client.admin.command(
            "configureFailPoint", "failCommand", mode="alwaysOn", data=data
        )
        try:
            yield Failpoint(client, answer["count"])
        finally:
            await client.admin.command("configureFailPoint", "failCommand", mode="off")
