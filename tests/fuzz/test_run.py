"""Test that `make fuzz` leaves no process behind, and names an invalid variable."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

import pytest
from credit_testing.child import descendants, gone
from credit_testing.template import template

from tests.fuzz.scripts import RUN


async def _start(**variables: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, RUN), stdout=PIPE, stderr=STDOUT, env={**os.environ, **variables}
    )


async def test_a_signal_stops_every_process_that_it_started(tmp_path: Path) -> None:
    process = await _start(SEED="7", STATE=str(tmp_path))
    assert process.stdout is not None
    output = b""
    while b"target: " not in output:
        line = await process.stdout.readline()
        assert line, output.decode()
        output += line
    children = [os.pidfd_open(pid) for pid in descendants(process.pid)]
    assert len(children) >= 3, "the server, its mongod and the fuzzer"
    process.terminate()
    assert await process.wait() == 130
    for child in children:
        await gone(child)
    assert b"SEED=7" in output


@pytest.mark.parametrize(
    ("name", "value"), [("MINUTES", "0"), ("MINUTES", "nan"), ("MINUTES", "many"), ("SEED", "x")]
)
def test_an_invalid_variable_is_named(tmp_path: Path, name: str, value: str) -> None:
    program = [sys.executable, str(RUN)]
    environment = {**os.environ, name: value}
    with template().start(program, folder=tmp_path, environment=environment) as process:
        errors = process.stderr.read()
        assert process.wait() == 2
    assert f"{name}={value}".encode() in errors
    assert b"Traceback" not in errors
