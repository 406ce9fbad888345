"""Callers in a separate process: `python -m credit_torture.workload CONFIGURATION`.

The argument is JSON with the fields of `Configuration`. Once a second, the process prints a line of
JSON with the number of acknowledged writes. At the end of standard input, the callers stop, settle
each write with an unknown outcome, read everything, and exit.
"""

import asyncio
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from credit_torture.clients import connected
from credit_torture.cohort import CALLERS, Cohort
from credit_torture.counts import Counts

_REPORT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """What a process of callers does.

    Attributes:
        addresses: The servers.
        folder: The folder for the files.
        process: The number of this process, and the number of processes.
        cohorts: How many cohorts are active at a time.
        operations: How many operations each cohort makes.
        rate: The maximum number of operations per second of this process.
        seed: Decides what is called.
    """

    addresses: list[str]
    folder: str
    process: list[int]
    cohorts: int
    operations: int
    rate: float
    seed: int


class Workload:
    """The cohorts of one process."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        process, processes = configuration.process
        self._numbers = itertools.count(process, processes)
        random = Random(f"clients-{configuration.seed}-{process}")
        self._clients = connected(configuration.addresses, random)
        self._counts = Counts()
        self._stop = asyncio.Event()
        self._cohorts: list[Cohort] = []

    async def run(self) -> None:
        """Run cohorts until standard input ends, and finish all of them."""
        reporting = asyncio.create_task(self._report())
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._configuration.cohorts):
                tasks.create_task(self._run_cohorts())
            tasks.create_task(self._wait_for_the_end())
        async with asyncio.TaskGroup() as tasks:
            left = iter(self._cohorts)
            for _ in range(self._configuration.cohorts):
                tasks.create_task(_finish(left))
        reporting.cancel()
        await self._clients.close()

    async def _run_cohorts(self) -> None:
        configuration = self._configuration
        pause = CALLERS * configuration.cohorts / configuration.rate
        while not self._stop.is_set():
            number = next(self._numbers)
            random = Random(f"cohort-{configuration.seed}-{number}")
            folder = Path(configuration.folder)
            cohort = Cohort(number, folder, self._clients, self._counts, random)
            self._cohorts.append(cohort)
            await cohort.run(configuration.operations, pause, self._stop)

    async def _wait_for_the_end(self) -> None:
        await asyncio.to_thread(sys.stdin.read)
        self._clients.patient = True
        self._stop.set()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            print(json.dumps({"acknowledged": self._counts.acknowledged}), flush=True)  # noqa: T201


async def _finish(cohorts: Iterator[Cohort]) -> None:
    for cohort in cohorts:
        await cohort.finish()


if __name__ == "__main__":
    asyncio.run(Workload(Configuration(**json.loads(sys.argv[1]))).run())
