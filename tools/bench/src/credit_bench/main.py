"""The command `credit-bench`."""

import asyncio
import os
import signal
import sys
from contextlib import aclosing
from pathlib import Path

from credit_server.embedded import EmbeddedError
from credit_testing.child import ChildFailed

from credit_bench.options import Options, options, parser
from credit_bench.page import UnknownFigures, bars, chart, figures, filled
from credit_bench.results import Result, read_all
from credit_bench.run import run

_INTERRUPTED = 130


def main() -> None:
    """Measure, or write the page; then exit with a status.

    The status is 0 for a run without errors, 1 if a call or an audit failed or a process did not
    start, and 130 if the run was interrupted.
    """
    parsed = parser().parse_args()
    if parsed.command == "page":
        sys.exit(_page(parsed.results, parsed.page))
    sys.exit(_measure(options(parsed)))


def _page(folder: Path, page: Path) -> int:
    """Write the figures into the page, and the charts beside the results."""
    results = read_all(folder)
    try:
        text = filled(page.read_text(), results, Path(os.path.relpath(folder, page.parent)))
    except UnknownFigures as error:
        print(f"{page}: {error}", file=sys.stderr)  # noqa: T201 - a command prints
        return 1
    page.write_text(text)
    for result in results.values():
        drawn = chart(result)
        if drawn is not None:
            (folder / f"{result.group}.svg").write_text(drawn)
    return 0


def _measure(chosen: Options) -> int:
    _progress(f"seed {chosen.seed}")
    try:
        results = asyncio.run(_until_terminated(chosen))
    except (ChildFailed, EmbeddedError) as error:
        _progress(str(error))
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    print(bars({result.group: result for result in results}))  # noqa: T201
    return 0 if all(result.clean for result in results) else 1


async def _until_terminated(chosen: Options) -> list[Result]:
    task = asyncio.current_task()
    if task is not None:
        # Without a handler, SIGTERM would end this process at once and leave its children running.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    results = []
    async with aclosing(run(chosen, _progress)) as measured:
        async for result in measured:
            results.append(result)
            print(f"## {result.group}\n\n{figures(result, Path())}")  # noqa: T201
            if chosen.json is not None:
                result.write(chosen.json)
    return results


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
