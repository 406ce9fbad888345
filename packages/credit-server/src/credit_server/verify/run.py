"""Verify a database: plan ranges of users, check them in several processes, then check the apps."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from credit_server.store.verification import Span, Verification, open_verification
from credit_server.verify.apps_check import check_apps
from credit_server.verify.findings import Code, Finding
from credit_server.verify.progress_file import ProgressFile
from credit_server.verify.span_check import Found, check_span

# The entries of a range. Its snapshot must last while they are read, which takes a second. An
# interruption loses at most one range of each process.
SPAN_ENTRIES = 20_000

Advance = Callable[[int], None]
"""Receives the number of entries that were checked since the last call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The database to verify.

    Attributes:
        uri: Its connection string.
        database: Its name.
        timeout_seconds: How long to look for a primary.
    """

    uri: str
    database: str
    timeout_seconds: float


def verify(
    target: Target,
    *,
    drift: list[str],
    jobs: int,
    progress: ProgressFile | None = None,
    advance: Advance = lambda _: None,
    span_entries: int = SPAN_ENTRIES,
) -> Found:
    """Check everything in a database. Nothing is written to it.

    Args:
        target: The database.
        drift: How its schema differs from that of this release.
        jobs: How many processes check users, at least 1.
        progress: Keeps the ranges that were checked; None to keep none.
        advance: Receives the progress.
        span_entries: About how many entries are checked at one snapshot.

    Raises:
        StoreError: The store cannot be read.
    """
    found = Found()
    for sentence in drift:
        found.add(Finding(code=Code.SCHEMA, found=sentence))
    with open_verification(target.uri, target.database, target.timeout_seconds) as reader:
        for done in progress.done.values() if progress else ():
            found.add_all(done)
        advance(found.entries)
        spans = _spans(reader, progress, span_entries)
        for span, part in _checked(reader, target, spans, jobs):
            if progress is not None:
                progress.add(span, part)
            found.add_all(part)
            advance(part.entries)
        found.add_all(check_apps(reader))
    if progress is not None:
        progress.remove()
    return found


def verify_user(target: Target, user_id: int) -> Found:
    """Check one user alone, and no app.

    Raises:
        StoreError: The store cannot be read.
    """
    with open_verification(target.uri, target.database, target.timeout_seconds) as reader:
        return check_span(reader, Span(user_id, user_id + 1))


def _spans(
    reader: Verification, progress: ProgressFile | None, span_entries: int
) -> Iterator[Span]:
    """Iterate over the ranges that are not checked yet, in order."""
    first: int | None = None
    while True:
        done = next(progress.spans_from(first), None) if progress else None
        if done is not None and done.first == first:
            span = done
        else:
            span = reader.next_span(first, span_entries)
            if done is not None and done.first is not None:
                end = done.first if span.end is None else min(span.end, done.first)
                span = Span(span.first, end)
            yield span
        if span.end is None:
            return
        first = span.end


def _checked(
    reader: Verification, target: Target, spans: Iterator[Span], jobs: int
) -> Iterator[tuple[Span, Found]]:
    """Check ranges, and yield each with its result as soon as it is checked."""
    if jobs == 1:
        for span in spans:
            yield span, check_span(reader, span)
        return
    with _processes(target, jobs) as executor:
        running: dict[Future[Found], Span] = {}
        for span in spans:
            running[executor.submit(_check_in_process, span)] = span
            if len(running) < 2 * jobs:
                continue
            yield from _finished(running)
        while running:
            yield from _finished(running)


def _finished(running: dict[Future[Found], Span]) -> Iterator[tuple[Span, Found]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield running.pop(future), future.result()


@contextmanager
def _processes(target: Target, jobs: int) -> Iterator[Executor]:
    # Spawned: a forked process would share the connections of this one.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(jobs, context, initializer=_open, initargs=(target,))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


# The state of a process of the pool. Its connections are closed when the process ends.
_opened = ExitStack()
_readers: list[Verification] = []


def _open(target: Target) -> None:
    """Connect a new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the process that started this one
    reader = open_verification(target.uri, target.database, target.timeout_seconds)
    _readers.append(_opened.enter_context(reader))


def _check_in_process(span: Span) -> Found:
    return check_span(_readers[0], span)
