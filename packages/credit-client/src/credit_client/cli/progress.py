"""Show the progress of a command on standard error.

Import this module only if standard error is a terminal: rich takes 0.1 s of CPU to load.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


@contextmanager
def counter(noun: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many rows have arrived, with a bar if their total is known.

    Yields:
        A function that sets the number of rows.
    """
    text = TextColumn("{task.completed:,} " + noun)
    columns = (SpinnerColumn(), text) if total is None else (text, BarColumn(), TimeElapsedColumn())
    with _progress(*columns) as progress:
        task = progress.add_task(noun, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def file_bar(size: int | None) -> Iterator[Callable[[int, str], None]]:
    """Show how much of a file has been read.

    Args:
        size: The file's size in bytes; None if it is not known.

    Yields:
        A function that sets the number of bytes read and the text beside the bar.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with _progress(*columns) as progress:
        task = progress.add_task("0 rows", total=size)
        yield lambda done, text: progress.update(task, completed=done, description=text)


def _progress(*columns: ProgressColumn) -> Progress:
    return Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        # It would print what is written to stdout at the terminal, and leave the file empty.
        redirect_stdout=False,
        redirect_stderr=False,
    )
