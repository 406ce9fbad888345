"""The command `credit-resilience`, as a process."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process

from credit_testing.child import descendants, gone


async def _start(*options: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "credit_resilience.main", *options), stdout=PIPE, stderr=PIPE
    )


async def test_the_table_is_shown_and_the_status_is_its_verdict() -> None:
    command = await _start("--rows", "message:second")
    output, errors = await command.communicate()
    # A busy machine may keep the bystander waiting: the verdict and the status must agree.
    assert command.returncode == (0 if b"1 of 1 rows pass" in output else 1), errors.decode()
    assert b"UNIMPLEMENTED" in output


async def test_a_signal_ends_everything_it_has_started() -> None:
    command = await _start("--rows", "message")
    assert command.stderr is not None
    assert b"message:" in await command.stderr.readline()
    children = [os.pidfd_open(pid) for pid in descendants(command.pid)]
    assert len(children) >= 3, "mongod, the server and the bystander"
    command.terminate()
    assert await command.wait() == 130
    for child in children:
        await gone(child)


async def test_misuse_names_the_row() -> None:
    command = await _start("--rows", "no-such")
    _, errors = await command.communicate()
    assert command.returncode == 2
    assert b"there is no row no-such" in errors
