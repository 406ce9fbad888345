"""The command `credit-resilience`."""

import asyncio
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from credit_server.embedded import EmbeddedError
from rich.console import Console

from credit_resilience.options import Options, parse
from credit_resilience.report import line, show
from credit_resilience.row import Row
from credit_resilience.run import run_attacks
from credit_resilience.server import ServerNotStarted

_FAILED, _INTERRUPTED = 1, 130
_WIDTH_MIN = 160
"""The width of the table, in characters, where the terminal is narrower or its width unknown."""


def main() -> None:
    """Run the attacks; the exit status is 0 only if every row passed.

    The status is 1 if a row failed or a process did not start, and 130 after an interrupt.
    """
    sys.exit(_main(parse()))


def _main(options: Options) -> int:
    # asyncio warns of each write to a closed connection, and some attacks wait for that close.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    progress = Console(stderr=True, emoji=False)
    try:
        rows = asyncio.run(_until_terminated(options, progress))
    except (ServerNotStarted, EmbeddedError) as error:
        progress.print(str(error), style="red", markup=False, highlight=False)
        return _FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    show(rows, Console(emoji=False, width=max(_WIDTH_MIN, shutil.get_terminal_size().columns)))
    return _FAILED if any(row.failures for row in rows) else 0


async def _until_terminated(options: Options, progress: Console) -> list[Row]:
    task = asyncio.current_task()
    if task is not None:
        # A SIGTERM would otherwise end this process at once and leave its children behind.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="credit-resilience-") as folder:
        return await run_attacks(
            options.attacks,
            Path(folder),
            seconds=options.seconds,
            progress=lambda row: progress.print(
                line(row), markup=False, highlight=False, soft_wrap=True
            ),
        )


if __name__ == "__main__":
    main()
