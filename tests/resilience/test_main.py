"""Test the command `credit-resilience` as a process."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process

from credit_testing.child import descendants, gone


async def _start(*options: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "credit_resilience.main", *options), stdout=PIPE, stderr=PIPE
    )


async def test_the_exit_status_agrees_with_the_verdict_in_the_table() -> None:
    command = await _start("--rows", "message:second")
    output, errors = await command.communicate()
    # The row may fail on a busy machine, because the bystander waits too long.
    assert command.returncode == (0 if b"1 of 1 rows pass" in output else 1), errors.decode()
    assert b"UNIMPLEMENTED" in output


async def test_a_signal_stops_every_process_that_the_command_started() -> None:
    command = await _start("--rows", "message")
    assert command.stderr is not None
    assert b"message:" in await command.stderr.readline()
    children = [os.pidfd_open(pid) for pid in descendants(command.pid)]
    assert len(children) >= 3, "mongod, the server and the bystander"
    command.terminate()
    assert await command.wait() == 130
    for child in children:
        await gone(child)


async def test_an_unknown_row_is_a_usage_error_that_names_it() -> None:
    command = await _start("--rows", "no-such")
    _, errors = await command.communicate()
    assert command.returncode == 2
    assert b"there is no row no-such" in errors
