"""A process of the benchmark: in a session of its own, stopped by its id on every way out."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_STOP_TIMEOUT_SECONDS = 20.0
_LOG_TAIL_LINES = 15


class ChildFailed(Exception):
    """A process of the benchmark ended when it should not have, or with an error."""


@asynccontextmanager
async def running(
    arguments: Sequence[str], log: Path, *, variables: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """Run a process for as long as the context lasts.

    Args:
        arguments: The program and its arguments.
        log: The file that its output goes to; its folder is the process's working directory.
        variables: What it finds in its environment besides what we find in ours.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env={**os.environ, **(variables or {})},
            # Ctrl-C at a terminal goes to us alone; we stop the others in order.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _stop(process)


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
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=DEVNULL, stdout=PIPE, start_new_session=True
    )
    try:
        written, _ = await process.communicate()
    finally:
        await _stop(process)
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
        async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
