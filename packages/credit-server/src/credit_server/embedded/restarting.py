"""Starts an embedded mongod again when it dies, unless it dies too often."""

import asyncio
from collections import deque

import structlog

from credit_server.embedded.errors import MongodFailed
from credit_server.embedded.mongod import FREE_BYTES_MIN, EmbeddedMongod
from credit_server.errors import EmbeddedError

log = structlog.get_logger("credit_server")

# A mongod that dies more often than this within this time stays down.
RESTARTS_MAX = 3
_RESTARTS_SECONDS = 600.0

_SPACE_POLL_SECONDS = 1.0

_LACKS_SPACE = (
    f"the disk of the embedded mongod has less than {FREE_BYTES_MIN // 1_000_000} MB of free space:"
    " free some space. Then mongod starts again; the server needs no restart, and no acknowledged"
    " write is lost"
)


async def keep_running(mongod: EmbeddedMongod) -> None:
    """Start the embedded mongod again whenever it ends.

    mongod exits when its disk is full. It is then started again as soon as there is space, however
    often that happens. Until then, the server runs and rejects calls that need the store.

    Raises:
        EmbeddedError: mongod ended too often, or cannot be started again.
    """
    loop = asyncio.get_running_loop()
    deaths: deque[float] = deque(maxlen=RESTARTS_MAX)
    while True:
        reason = await mongod.wait_exited()
        if mongod.lacks_space():
            await _until_space(mongod, reason)
        elif len(deaths) == RESTARTS_MAX and loop.time() - deaths[0] < _RESTARTS_SECONDS:
            raise EmbeddedError(
                f"The embedded mongod died more than {RESTARTS_MAX} times within"
                f" {_RESTARTS_SECONDS:.0f} s: {reason}"
            )
        else:
            deaths.append(loop.time())
        log.error("the embedded mongod is started again", reason=reason)
        try:
            await mongod.restart()
        except MongodFailed:
            if not mongod.lacks_space():
                raise
        else:
            log.info("the embedded mongod runs again")


async def _until_space(mongod: EmbeddedMongod, reason: str) -> None:
    log.error(_LACKS_SPACE, reason=reason)
    while mongod.lacks_space():  # noqa: ASYNC110 - there is no event for free space
        await asyncio.sleep(_SPACE_POLL_SECONDS)
