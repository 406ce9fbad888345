"""Repeat the work of a background part until it is cancelled, also after failures."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from structlog.typing import FilteringBoundLogger


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """The pauses between two runs. Each is shortened at random, so that servers do not run at once.

    Attributes:
        interval_seconds: The pause after a run that succeeded, and before the first one.
        backoff_seconds_max: The longest pause after failures. It doubles with each failure.
        shortest: The shortest part of a pause that is left, from 0 to 1.
    """

    interval_seconds: float
    backoff_seconds_max: float
    shortest: float = 0.5


async def repeat(
    run: Callable[[], Awaitable[None]],
    pauses: Pauses,
    *,
    random: Random,
    log: FilteringBoundLogger,
    warning: str,
    expected: tuple[type[Exception], ...],
    sleep: Callable[[float], Awaitable[None]] | None = None,
) -> None:
    """Pause and run, until cancelled.

    An error is logged and does not end the loop: use it where balances do not depend on the work.
    Of expected errors in a row only the first is logged.

    Args:
        run: Does the work.
        pauses: The pauses.
        random: Shortens the pauses; not for secrets.
        log: Receives the errors.
        warning: The message about an error.
        expected: The errors that are logged without a traceback.
        sleep: Waits for a number of seconds, or less if there is work earlier; None: waits for all
            of them. After a failure the whole pause is waited for.
    """
    pause = pauses.interval_seconds
    while True:
        seconds = pause * random.uniform(pauses.shortest, 1.0)
        if sleep is None or pause != pauses.interval_seconds:
            await asyncio.sleep(seconds)
        else:
            await sleep(seconds)
        try:
            await run()
        except Exception as error:
            unexpected = not isinstance(error, expected)
            if pause == pauses.interval_seconds or unexpected:
                log.warning(warning, error=str(error), exc_info=error if unexpected else None)
            pause = min(2 * pause, pauses.backoff_seconds_max)
        else:
            pause = pauses.interval_seconds
