"""Repeat the work of a background part until it is cancelled, also after failures."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from structlog.typing import FilteringBoundLogger


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """The pauses between two runs, shortened at random so that servers run at different times.

    Attributes:
        interval_seconds: The pause after a run that succeeded, and before the first one.
        backoff_seconds_max: The limit of the pause, which doubles with each failure.
        shortest: The smallest fraction of a pause that remains, from 0 to 1.
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

    Log errors and continue: use this only for work that balances do not depend on. Of several
    expected errors in a row, log only the first, if the pause grows after failures.

    Args:
        run: Does the work.
        pauses: The pauses.
        random: Shortens the pauses; not for secrets.
        log: Receives the errors.
        warning: The message about an error.
        expected: The errors that are logged without a traceback.
        sleep: Sleeps for a number of seconds, or until there is work; None: always sleeps for the
            whole time. It is not used while the pause is longer than the interval.
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
