"""Run child processes, each in a session of its own, and stop them by their process ids."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO

# Above the grace period that a server gives to running calls.
_STOP_TIMEOUT_SECONDS = 60.0
_LOG_TAIL_LINES = 15


class ChildFailed(Exception):
    """Raised when a child process ends too early, or with an error."""


@asynccontextmanager
async def started(
    *command: str | Path,
    stdin: int = DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Process]:
    """Start a process, and stop it at the end of the context.

    Args:
        command: The program and its arguments.
        stdin: A pipe for its input; by default it has none.
        stdout: A file or a pipe for its output; by default it shares ours.
        stderr: The same for its errors.
        folder: Its working directory.
        environment: All of its variables; by default it has ours.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=folder,
        env=environment,
        # Ctrl-C at a terminal reaches this process alone, which stops the others in order.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        await _stop(process)


@asynccontextmanager
async def running(
    arguments: Sequence[str], log: Path, *, variables: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """Run a process for as long as the context lasts.

    Args:
        arguments: The program and its arguments.
        log: The file that its output goes to; its folder is the process's working directory.
        variables: Its variables besides ours.
    """
    with log.open("ab") as output:
        async with started(
            *arguments,
            stdout=output,
            stderr=output,
            folder=log.parent,
            environment={**os.environ, **(variables or {})},
        ) as process:
            yield process


async def complete(
    arguments: Sequence[str], log: Path, *, variables: Mapping[str, str] | None = None
) -> None:
    """Run a process to its end; the arguments are those of `running`.

    Raises:
        ChildFailed: It ended with a status other than 0.
    """
    async with running(arguments, log, variables=variables) as process:
        status = await process.wait()
        if status != 0:
            raise ChildFailed(f"{arguments[0]} ended with status {status}:\n{tail(log)}")


async def output(arguments: Sequence[str]) -> bytes:
    """Run a process to its end and return what it wrote to standard output.

    Raises:
        ChildFailed: It ended with a status other than 0.
    """
    async with started(*arguments, stdout=PIPE) as process:
        written, _ = await process.communicate()
    if process.returncode != 0:
        raise ChildFailed(f"{' '.join(arguments)} ended with status {process.returncode}")
    return written


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    lines = log.read_text(errors="replace").splitlines()
    return os.linesep.join(lines[-_LOG_TAIL_LINES:])


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", name, *arguments]


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
                await process.wait()
    finally:
        # Also when a second cancellation ends the wait.
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def descendants(pid: int) -> Iterator[int]:
    """Yield the ids of the children of a process, and of theirs."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield int(child)
            yield from descendants(int(child))


async def gone(descriptor: int) -> None:
    """Wait for the end of the process behind a descriptor of `os.pidfd_open`, and close it."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def is_alive(pid: int) -> bool:
    """Return whether there is a process with this id."""
    return Path("/proc", str(pid)).exists()
