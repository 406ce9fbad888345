"""Failures of single commands, which a real mongod causes by its fail point failCommand.

See https://github.com/mongodb/mongo/wiki/The-%22failCommand%22-fail-point.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pymongo import MongoClient


@asynccontextmanager
async def failing(uri: str, command: str, *, times: int, **data: Any) -> AsyncIterator[None]:
    """Have mongod fail a command of the server's client, `times` times."""
    with MongoClient[dict[str, Any]](uri) as client:
        client.admin.command(
            "configureFailPoint",
            "failCommand",
            mode={"times": times},
            data={"failCommands": [command], "appName": "credit-server", **data},
        )
        try:
            yield
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")
            # The failed transactions are still open in mongod, and would delay the next test.
            client.admin.command("killAllSessions", [])
