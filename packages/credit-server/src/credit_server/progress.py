"""Show the progress of a command on standard error.

Import this module only if standard error is a terminal: rich takes 0.1 s of CPU to load.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def bar(total: int, noun: str, *, work: str = "") -> Iterator[Callable[[int], None]]:
    """Show how many of some things were processed; yield the receiver of each further number.

    Args:
        total: The approximate number of all.
        noun: What is counted, such as "documents".
        work: The name of the work, such as "exporting".
    """
    columns = (
        TextColumn(f"{work and work + ': '}{{task.completed:,}} of about {{task.total:,}} {noun}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Redirected, the result would be printed at the terminal and not into its file.
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task(work, total=max(1, total))
        yield lambda count: progress.advance(task, count)
