"""Run two servers on one database, kill them in turn under load, and explain every answer.

A part of `make fuzz`. Run in the repository's folder as `.venv/bin/python -m
tests.fuzz.play_two_servers SEED SECONDS`. Exit codes: 0 passed, 1 answers that nothing explains or
a ledger that does not add up, which are printed.
"""

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from signal import SIGKILL
from typing import Any

from credit_testing.accounts.auditor import audit
from credit_testing.ledger_check import findings
from credit_testing.mongod import running_mongod
from credit_testing.ports import lasting_port
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from pymongo import MongoClient

from tests.fuzz.accounts_workload import Workload

OPERATIONS, KILLED_AFTER = 960, 300
DATABASE = "credit"
_FORGETS = ("--setParameter", "transactionLifetimeLimitSeconds=2")
"""A mongod soon ends the transactions that a killed server leaves open."""


async def play(seed: int, seconds: float) -> list[str]:
    """Play rounds with new users, each with a kill, until the time is over; return findings."""
    end = time.monotonic() + seconds
    random = Random(seed)
    with tempfile.TemporaryDirectory(prefix="credit-two-servers-") as folder:
        async with running_mongod(Path(folder), *_FORGETS) as mongod:
            options = [*PATIENT, *await migrated(mongod.uri, DATABASE), "--log-level", "warning"]
            while not (found := await _round(Path(folder), options, random.getrandbits(32))):
                if time.monotonic() >= end:
                    break
            client: MongoClient[dict[str, Any]]  # documents hold values of many types
            with MongoClient(mongod.uri) as client:
                return [*found, *findings(client[DATABASE])]


async def _round(folder: Path, options: Sequence[str], seed: int) -> list[str]:
    """Write to two servers, kill one of them in the middle, and audit."""
    ports = [lasting_port(), lasting_port()]
    workload = Workload(ports, seed)
    async with _servers(folder, options, ports) as (first, _):
        running = asyncio.ensure_future(workload.run(OPERATIONS))
        await workload.acknowledged(KILLED_AFTER)
        await first.stop(SIGKILL)
        async with running_server(folder, "--port", str(ports[0]), *options):
            await running
            await workload.close()
    return audit(workload.callers.journal, workload.users, policies={})


@contextlib.asynccontextmanager
async def _servers(
    folder: Path, options: Sequence[str], ports: Sequence[int]
) -> AsyncIterator[list[ServerProcess]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running_server(folder, "--port", str(port), *options))
            for port in ports
        ]


def main(seed: str, seconds: str) -> int:
    """Play, print the findings, and return the exit code."""
    found = asyncio.run(play(int(seed), float(seconds)))
    for finding in found:
        print(f"nothing explains this: {finding}", file=sys.stderr)  # noqa: T201 - a script speaks
    if not found:
        print("two servers keep one ledger")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
