"""Starts an embedded mongod again when it dies, unless it dies too often."""

import asyncio
from collections import deque

import structlog

from credit_server.embedded.mongod import EmbeddedMongod
from credit_server.errors import EmbeddedError

log = structlog.get_logger("credit_server")

# A mongod that dies more often than this within this time stays down.
RESTARTS_MAX = 3
_RESTARTS_SECONDS = 600.0


async def keep_running(mongod: EmbeddedMongod) -> None:
    """Start the embedded mongod again whenever it dies.

    Raises:
        EmbeddedError: It died too often, or cannot be started again.
    """
    loop = asyncio.get_running_loop()
    deaths: deque[float] = deque(maxlen=RESTARTS_MAX)
    while True:
        reason = await mongod.wait_exited()
        if len(deaths) == RESTARTS_MAX and loop.time() - deaths[0] < _RESTARTS_SECONDS:
            raise EmbeddedError(
                f"The embedded mongod died more than {RESTARTS_MAX} times within"
                f" {_RESTARTS_SECONDS:.0f} s: {reason}"
            )
        deaths.append(loop.time())
        log.error("the embedded mongod is started again", reason=reason)
        await mongod.restart()
        log.info("the embedded mongod is back")
