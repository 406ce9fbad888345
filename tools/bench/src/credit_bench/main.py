"""The command `credit-bench`."""

import asyncio
import signal
import sys

from credit_server.embedded import EmbeddedError
from credit_testing.child import ChildFailed
from rich.console import Console

from credit_bench.options import Options, parse
from credit_bench.report import document, show
from credit_bench.run import Progress, Result, run
from credit_bench.summary import summarise

_INTERRUPTED = 130


def main() -> None:
    """Run the benchmark and exit with a status.

    The status is 0 for a run without errors, 1 if a call or an audit failed or a process did not
    start, and 130 if the run was interrupted.
    """
    sys.exit(_main(parse()))


def _main(options: Options) -> int:
    progress = Console(stderr=True)
    progress.print(f"seed {options.seed}", highlight=False)
    try:
        result = asyncio.run(
            _run_until_terminated(options, lambda line: progress.print(line, highlight=False))
        )
    except (ChildFailed, EmbeddedError) as error:
        progress.print(str(error), style="red", markup=False, highlight=False)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    rows = summarise(result.measurements)
    show(result, rows, options, Console())
    if options.json is not None:
        options.json.write_text(document(result, rows, options))
    return 0 if result.clean else 1


async def _run_until_terminated(options: Options, progress: Progress) -> Result:
    task = asyncio.current_task()
    if task is not None:
        # Without a handler, SIGTERM would end this process at once and leave its children running.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(options, progress)


if __name__ == "__main__":
    main()
