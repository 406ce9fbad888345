"""Failures of single commands, which a real mongod causes by its fail point failCommand.

See https://github.com/mongodb/mongo/wiki/The-%22failCommand%22-fail-point.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pymongo import MongoClient


@asynccontextmanager
async def failing(
    uri: str, command: str, *, times: int, kill_sessions: bool = True, **data: Any
) -> AsyncIterator[None]:
    """Have mongod fail a command of the server's client, `times` times.

    Args:
        uri: The connection string of mongod.
        command: The name of the command.
        times: How often it fails.
        kill_sessions: Whether all sessions end with the context.
        data: Further data of the fail point.
    """
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
            if kill_sessions:
                # The failed transactions are open in mongod, and would delay the next test.
                client.admin.command("killAllSessions", [])
