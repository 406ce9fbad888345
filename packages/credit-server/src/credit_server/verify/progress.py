"""Show the progress of a verification on standard error.

Import this module only if standard error is a terminal: rich takes 0.1 s of CPU to load.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from credit_server.verify.run import Advance


@contextmanager
def bar(entries: int) -> Iterator[Advance]:
    """Show how many entries were checked.

    Args:
        entries: About how many entries there are.
    """
    columns = (
        TextColumn("{task.completed:,} of about {task.total:,} entries"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Redirected, the report would be printed at the terminal and not into its file.
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task("verify", total=max(1, entries))
        yield lambda checked: progress.advance(task, checked)
