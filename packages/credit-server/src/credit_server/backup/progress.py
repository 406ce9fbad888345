"""Show the progress of an export or import on standard error.

Import this module only if standard error is a terminal: rich takes 0.1 s of CPU to load.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from credit_server.backup.export import Advance


@contextmanager
def bar(work: str, documents: int) -> Iterator[Advance]:
    """Show how many documents were processed.

    Args:
        work: The name of the work, such as "exporting".
        documents: The approximate number of documents.
    """
    columns = (
        TextColumn("{task.description}: {task.completed:,} of about {task.total:,} documents"),
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
        task = progress.add_task(work, total=max(1, documents))
        yield lambda count: progress.advance(task, count)
