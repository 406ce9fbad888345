"""Fuzzes the real server on a real mongod, and audits its books: what `make fuzz` runs.

Run as `.venv/bin/python tools/fuzz/run.py`. Variables: MINUTES, how long, 5 by default; SEED, to
send the same cases again; STATE, the folder for what was found, which is sent first in the next
run, and for the server's log: `.grpc-fuzz` by default.
Exit codes: 0 passed, 1 failures or books that do not add up, 2 misuse, 130 stopped by a signal.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

from credit_server.embedded import EmbeddedMongod

FOLDER = Path(__file__).parent
CONFIG = FOLDER / "grpc-fuzz.toml"
BOOKS = FOLDER / "books.py"
STATE = FOLDER.parent.parent / ".grpc-fuzz"
SERVER_LOG = "server.log"
DATABASE = "credit"

MINUTES, MINUTES_MAX = 5.0, 24 * 60
FAILURES_MAX = 20
"""A broken server fails in hundreds of ways; after so many nobody reads on."""
PATIENCE_SECONDS = 60.0
"""For a server that does not stop when it is told to."""
FAILED, MISUSE, STOPPED = 1, 2, 128 + signal.SIGINT


class Misuse(Exception):
    """A variable has a value of no use."""


async def fuzz(*, minutes: float, seed: int, state: Path) -> int:
    """Start a server, fuzz it, stop it, and audit what it leaves behind.

    Returns:
        The exit code.
    """
    log = state / SERVER_LOG
    with tempfile.TemporaryDirectory(prefix="credit-fuzz-") as folder:
        data = Path(folder) / "data"
        async with _server(data, log) as (server, address):
            status = await _run(
                _command("grpc-fuzz"),
                *("fuzz", "--config", CONFIG, "--target", address, "--seed", str(seed)),
                *("--state-directory", state),
                *("--max-time", str(minutes * 60), "--max-failures", str(FAILURES_MAX)),
            )
        if server.returncode != 0:
            _say(f"the server ended with {server.returncode}; its log is {log}")
            status = status or FAILED
        # Opened anew, so that what was only in memory does not count.
        async with EmbeddedMongod(data_dir=data) as mongod:
            books = await _run(sys.executable, BOOKS, mongod.uri, DATABASE)
    return status or books


@contextlib.asynccontextmanager
async def _server(data: Path, log: Path) -> AsyncIterator[tuple[Process, str]]:
    """A server with its embedded mongod, and its address; it has ended when the context has."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stderr:
        server = await asyncio.create_subprocess_exec(
            _command("credit-server"),
            *("serve", "--port", "0", "--data-dir", data, "--log-level", "warning"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=stderr,
            # Ctrl-C is for this process, which ends the server when it no longer needs it.
            start_new_session=True,
        )
        try:
            yield server, await _address(server, log)
        finally:
            await _end(server)


async def _address(server: Process, log: Path) -> str:
    assert server.stdout is not None  # noqa: S101 - for the type checker; it is a pipe
    banner = (await server.stdout.readline()).decode()
    if " listens on " not in banner:
        raise SystemExit(f"the server did not start, and says why in {log}: {banner}")
    return banner.partition(" listens on ")[2].partition(" ")[0]


async def _run(*command: str | Path) -> int:
    """Run a command to its end, or end it when this task is cancelled."""
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
    try:
        return await process.wait()
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
    finally:
        # Also at a second signal, which cancels the wait.
        if process.returncode is None:
            process.kill()
            await process.wait()


def _command(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201 - a script speaks


async def main() -> int:
    """Fuzz as the environment says; SIGINT and SIGTERM end everything that was started."""
    minutes, seed, state = _minutes(), _seed(), Path(os.environ.get("STATE") or STATE)
    _say(f"replay with: make fuzz SEED={seed}")
    task = asyncio.ensure_future(fuzz(minutes=minutes, seed=seed, state=state))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        _say("stopped")
        return STOPPED


def _minutes() -> float:
    given = os.environ.get("MINUTES") or str(MINUTES)
    with contextlib.suppress(ValueError):
        if 0 < (minutes := float(given)) <= MINUTES_MAX:
            return minutes
    raise Misuse(f"MINUTES={given} is not above 0 and at most {MINUTES_MAX}")


def _seed() -> int:
    given = os.environ.get("SEED") or str(secrets.randbits(32))
    if not given.isdecimal():
        raise Misuse(f"SEED={given} is not an integer from 0")
    return int(given)


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except Misuse as misuse:
        _say(str(misuse))
        sys.exit(MISUSE)
