"""One run: start everything, break it, let the callers finish, and check."""

import asyncio
import json
import os
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from credit_testing.child import ChildFailed, complete, module, started
from credit_testing.ledger_check import findings as ledger_findings
from credit_testing.mongod import ReplicaSet
from credit_testing.server import PATIENT, migrated
from pymongo import MongoClient

from credit_torture.check import (
    FAULTS_FILE,
    check_calls,
    longest_silence_seconds,
    recorded_faults,
)
from credit_torture.cohort_check import Interval
from credit_torture.disk import Disk, NotMounted, small_disk
from credit_torture.faults import FAULTS, FULL_DISK
from credit_torture.links import Links
from credit_torture.log_check import log_findings
from credit_torture.nemesis import Nemesis, Pace
from credit_torture.record import Line, Recorder
from credit_torture.report import Report
from credit_torture.servers import Server, Servers
from credit_torture.workload import Configuration
from credit_torture.world import World, processes

DATABASE = "credit"
JOURNAL, SERVERS = "journal", "servers"
"""The folders of the recorded calls, watches and faults, and of the servers' logs, in the folder of
the evidence."""
_FORGETS = ("--setParameter", "transactionLifetimeLimitSeconds=10")
"""This is the value in docs/deployment.md: transactions of a killed server end soon."""

SETTLING = "settling"
_SETTLE_SECONDS = 3600.0
"""How long callers may need to settle: much longer than after the longest run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run does.

    Attributes:
        seed: Decides the faults and the calls.
        seconds: How long faults are caused; None: until there were `faults` faults.
        faults: The number of faults; None: until `seconds` are over.
        kinds: The names of the faults.
        pace: The rate of faults.
        workers: The number of processes of each server.
        callers: The number of processes of callers.
        cohorts: How many cohorts each process of callers has at a time.
        operations: How many operations each cohort makes.
        rate: The maximum number of operations per second of all callers.
    """

    seed: int
    seconds: float | None
    faults: int | None
    kinds: Sequence[str]
    pace: Pace
    workers: Sequence[int] = (1, 2)
    callers: int = 2
    cohorts: int = 2
    operations: int = 400
    rate: float = 30.0


class Run:
    """One run.

    Attributes:
        acknowledged: The writes that were acknowledged so far, by process of callers.
        count: Returns the number of faults so far.
        phase: The current phase.
        left_out: The reason for each fault that the machine does not allow.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Prepare.

        Args:
            plan: What the run does.
            folder: An empty folder. The recorded calls, the logs and the report stay there.
        """
        self._plan = plan
        self._folder = folder
        self._journal = folder / JOURNAL
        self._journal.mkdir(parents=True)
        self.acknowledged: Counter[int] = Counter()
        self.count: Callable[[], int] = lambda: 0
        self.phase = "starting"
        self.left_out: dict[str, str] = {}

    async def run(self) -> Report:
        """Run, check and report."""
        found: list[str] = []
        async with self._world() as (world, store):
            span = await self._torture(world)
            self.phase = "checking"
            for server in world.servers:
                await server.end(signal.SIGTERM)
                found += server.findings
            found += await self._check_database(world, store)
        checked = await asyncio.to_thread(check_calls, self._journal, jobs=os.cpu_count() or 1)
        faults, attempts = recorded_faults(self._journal)
        found += log_findings(self._folder / SERVERS, faults)
        calls: dict[str, dict[str, int]] = {}
        for (kind, outcome), count in sorted(checked.calls.items()):
            calls.setdefault(kind, {})[outcome] = count
        did_not_happen: dict[str, dict[str, int]] = {}
        reasons = Counter((each["fault"], each["did_not_happen"]) for each in attempts)
        for (fault, reason), count in sorted(reasons.items()):
            did_not_happen.setdefault(fault, {})[reason] = count
        report = Report(
            seed=self._plan.seed,
            seconds=(span[1] - span[0]) / 1e9,
            faults=dict(sorted(Counter(str(fault["fault"]) for fault in faults).items())),
            overlaps=_overlaps(faults),
            calls=calls,
            entries=checked.entries,
            silence_seconds=longest_silence_seconds(checked.acknowledged, span),
            reads=checked.reads,
            watched=checked.watched,
            unchecked=checked.unchecked,
            did_not_happen=did_not_happen,
            findings=[*found, *checked.findings],
        )
        report.write(self._folder)
        return report

    @asynccontextmanager
    async def _world(self) -> AsyncIterator[tuple[World, list[str]]]:
        """Run mongods, their proxies and servers; yield them, and the options of the store."""
        connecting: list[Server] = []
        links = Links(lambda: processes(nodes.nodes, connecting))
        nodes = ReplicaSet(self._folder / "nodes", *_FORGETS, advertise=links.advertise)
        async with AsyncExitStack() as stack:
            disk = self._disk(stack, nodes.nodes[-1].database)
            await stack.enter_async_context(links)
            stack.push_async_callback(nodes.end)
            await nodes.start()
            store = await migrated(nodes.uri, DATABASE)
            options = [*store, *PATIENT, "--log-level", "warning"]
            servers = Servers(self._folder / SERVERS, options, self._plan.workers)
            connecting += servers.all
            await stack.enter_async_context(servers)
            world = World(
                nodes=nodes,
                links=links,
                servers=servers,
                disk=disk,
                random=Random(f"faults-{self._plan.seed}"),
            )
            yield world, store

    def _disk(self, stack: AsyncExitStack, folder: Path) -> Disk | None:
        """Mount the disk of limited size if a fault needs it.

        Raises:
            ChildFailed: It cannot be mounted, and no other fault is chosen.
        """
        if FULL_DISK not in self._plan.kinds:
            return None
        try:
            return stack.enter_context(small_disk(folder))
        except NotMounted as error:
            self.left_out[FULL_DISK] = f"its file system cannot be mounted: {error}"
            if {*self._plan.kinds} == {FULL_DISK}:
                raise ChildFailed(f"no fault is possible: {error}") from error
            return None

    async def _torture(self, world: World) -> Interval:
        """Cause faults while callers call; return the time span of the faults.

        Raises:
            ChildFailed: A process of callers ended early, or the service did not recover.
        """
        async with AsyncExitStack() as stack:
            callers = [
                await stack.enter_async_context(self._callers(world, number))
                for number in range(self._plan.callers)
            ]
            try:
                async with asyncio.TaskGroup() as reading:
                    for number, process in enumerate(callers):
                        reading.create_task(self._follow(number, process))
                    span = await self._break(world)
                    self.phase = SETTLING
                    await self._settle(callers)
            except ExceptionGroup as group:
                if group.subgroup(ChildFailed) is None:
                    raise
                raise ChildFailed(f"{_messages(group)}; see {self._folder}") from group
            for process in callers:
                if await process.wait() != 0:
                    raise ChildFailed(f"a process of callers has failed: see {self._folder}")
        return span

    async def _settle(self, callers: Sequence[Process]) -> None:
        """End the input of the callers, and wait until all outcomes are certain."""
        for process in callers:
            assert process.stdin is not None
            process.stdin.close()
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                for process in callers:
                    await process.wait()
        except TimeoutError as error:
            raise ChildFailed(
                f"after {_SETTLE_SECONDS:,.0f} s without faults, a write has no certain outcome, a"
                " read fails or an event of a watch is missing"
            ) from error

    async def _break(self, world: World) -> Interval:
        recorder = Recorder(self._journal / FAULTS_FILE)
        nemesis = Nemesis(world, self._plan.pace, recorder, self.acknowledged.total)
        self.count = lambda: nemesis.count
        began = time.monotonic_ns()
        self.phase = "faults"

        def goes_on() -> bool:
            seconds = (time.monotonic_ns() - began) / 1e9
            return self._plan.seconds is None or seconds < self._plan.seconds

        for fault, reason in self.left_out.items():
            recorder.write({"fault": fault, "did_not_happen": reason})
        kinds = [kind for kind in FAULTS if kind in {*self._plan.kinds} - {*self.left_out}]
        await nemesis.run(kinds, goes_on, faults=self._plan.faults)
        ended = time.monotonic_ns()
        recorder.close()
        return began, ended

    @asynccontextmanager
    async def _callers(self, world: World, number: int) -> AsyncIterator[Process]:
        plan = self._plan
        configuration = Configuration(
            addresses=[server.address for server in world.servers],
            folder=str(self._journal),
            process=[number, plan.callers],
            cohorts=plan.cohorts,
            operations=plan.operations,
            rate=plan.rate / plan.callers,
            seed=plan.seed,
        )
        command = module("credit_torture.workload", json.dumps(asdict(configuration)))
        with (self._folder / f"callers-{number}.log").open("wb") as log:
            async with started(*command, stdin=PIPE, stdout=PIPE, stderr=log) as process:
                yield process

    async def _follow(self, number: int, process: Process) -> None:
        """Read how many writes were acknowledged, until the callers end."""
        assert process.stdout is not None
        async for line in process.stdout:
            report: Line = json.loads(line)
            self.acknowledged[number] = report["acknowledged"]
        if self.phase != SETTLING:
            raise ChildFailed(f"process {number} of the callers ended during the faults")

    async def _check_database(self, world: World, store: Sequence[str]) -> list[str]:
        """Check the database twice: with `credit-server verify` and the independent checker."""
        found = []
        command = module("credit_server.main", "verify", *store)
        try:
            await complete(command, self._folder / "verify.log")
        except ChildFailed as error:
            found.append(f"credit-server verify: {error}")
        client: MongoClient[dict[str, Any]]  # documents hold values of many types
        with MongoClient(world.nodes.uri) as client:
            found += await asyncio.to_thread(ledger_findings, client[DATABASE])
        return found


def _messages(group: BaseExceptionGroup[BaseException]) -> str:
    parts = [
        _messages(one) if isinstance(one, BaseExceptionGroup) else str(one)
        for one in group.exceptions
    ]
    return "; ".join(parts)


def _overlaps(faults: Sequence[Line]) -> int:
    """Return how many faults began while another one lasted."""
    return sum(
        any(
            other is not fault and other["began"] <= fault["began"] < other["ended"]
            for other in faults
        )
        for fault in faults
    )
