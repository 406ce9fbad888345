"""One run: for each group, starts the systems, measures them in turn, and audits the databases."""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from credit_testing.child import ChildFailed, module, output
from pymongo import AsyncMongoClient

from credit_bench import medici
from credit_bench.audit import Audit, audit
from credit_bench.clients import LIBRARIES
from credit_bench.facts import facts_at_end, facts_at_start
from credit_bench.options import Options
from credit_bench.overload import TIMES, WARM_UP_SECONDS, Overload, busy_loops, measure
from credit_bench.prefill import fill
from credit_bench.results import Measurement, Result, without_paths
from credit_bench.sample import Sample
from credit_bench.systems import (
    PEERS,
    SERVICES,
    Mongod,
    Server,
    Unavailable,
    drop_index_by_time,
    migrate,
    replica_set,
    serving,
)
from credit_bench.watchers import watching
from credit_bench.workloads import OVERLOAD, WORKLOADS, Ledger, Operation, System, Workload

Progress = Callable[[str], None]

_WRITES = (Operation.WRITE, Operation.BATCH, Operation.EVENT)
# These systems depend on more than this repository, so a run continues without them.
_OPTIONAL = (System.OURS_WORKERS, System.EARLIER, System.MEDICI)


@dataclass(kw_only=True, slots=True)
class Subject:
    """A system that is ready to be measured with one ledger.

    Attributes:
        system: The system.
        ledger: What its database held at first.
        command: The command that measures it, without the load.
        server: Its server; None if the load calls no server.
        writes: The samples of all its writes so far, for the audit.
    """

    system: System
    ledger: Ledger
    command: Sequence[str]
    server: Server | None = None
    writes: list[Sample] = field(default_factory=list)

    async def sample(self, arguments: Sequence[str], mongod: Mongod) -> Sample:
        """Run the load with more arguments, and return what it measured."""
        watched = {"server": self.server.pids if self.server else (), "mongod": mongod.pids}
        watch = [
            f"--watch={name}={','.join(map(str, pids))}" for name, pids in watched.items() if pids
        ]
        return Sample.from_json(await output([*self.command, *watch, *arguments]))


async def run(
    options: Options, progress: Progress, workloads: Sequence[Workload] = WORKLOADS
) -> AsyncGenerator[Result]:
    """Run the measurements that the options describe; always stop every started process.

    Args:
        options: The options of the run.
        progress: Called with a line about each step.
        workloads: The workloads among which the options choose.

    Yields:
        The result of each group, as soon as it is known.

    Raises:
        ChildFailed: A server or the load failed.
        credit_server.embedded.EmbeddedError: The private mongod did not start.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="credit-bench-")))
        mongod = await stack.enter_async_context(
            replica_set(options.mongodb_uri, folder, cache_gigabytes=options.cache_gigabytes)
        )
        for group in options.groups:
            chosen = [
                workload
                for workload in workloads
                if workload.group == group
                and workload.callers <= options.callers_max
                and workload.ledger.transactions <= options.transactions_max
            ]
            if chosen or group == OVERLOAD:
                one = _Group(group, chosen, options, mongod, folder, progress)
                yield without_paths(await one.result(), folder)


class _Group:
    """The measurements of one group."""

    def __init__(
        self,
        name: str,
        workloads: Sequence[Workload],
        options: Options,
        mongod: Mongod,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._name = name
        self._workloads = workloads
        self._options = options
        self._mongod = mongod
        self._folder = folder
        self._progress = progress
        self._subjects: dict[tuple[System, Ledger], Subject] = {}
        self._unavailable: dict[System, str] = {}

    async def result(self) -> Result:
        """Measure, audit, and stop what was started."""
        facts = await asyncio.to_thread(facts_at_start, self._mongod.uri)
        async with AsyncExitStack() as stack:
            if self._name == OVERLOAD:
                for system in (System.OURS, System.PEER):
                    await self._open(stack, system, Ledger())
            for workload in self._workloads:
                for system in workload.systems:
                    await self._open(stack, system, workload.ledger)
            measurements = [entry async for entry in self._measure()]
            overloads = [entry async for entry in self._overload()]
            audits = {
                f"{subject.system}, {subject.ledger.transactions:,} transactions before": (
                    await self._audit(subject)
                )
                for subject in self._subjects.values()
                if subject.system in SERVICES
            }
        return Result(
            group=self._name,
            facts={**facts, **facts_at_end()},
            measurements=measurements,
            overloads=overloads,
            audits=audits,
            unavailable=self._unavailable,
        )

    async def _open(self, stack: AsyncExitStack, system: System, ledger: Ledger) -> None:
        """Make a system ready, unless it is ready or cannot be measured."""
        wanted = system in self._options.systems and system not in self._unavailable
        if not wanted or (system, ledger) in self._subjects:
            return
        try:
            self._options.variants.check(system)
            self._subjects[system, ledger] = await self._subject(stack, system, ledger)
        except (Unavailable, ChildFailed) as error:
            if isinstance(error, ChildFailed) and system not in _OPTIONAL:
                raise
            self._unavailable[system] = str(error)
            self._progress(f"{system} is not measured: {error}")

    async def _subject(self, stack: AsyncExitStack, system: System, ledger: Ledger) -> Subject:
        uri = self._mongod.uri
        database = await stack.enter_async_context(_database(uri, system))
        if system in (System.MEDICI, System.INSERT_MANY):
            if system is System.MEDICI:
                command = await medici.install(self._folder)
            else:
                command = module("credit_bench.inserts")
                await migrate(uri, database, self._folder)
            command += [f"--uri={uri}", f"--database={database}", f"--users={ledger.users}"]
            return Subject(system=system, ledger=ledger, command=command)
        if system in SERVICES and system not in PEERS:
            earlier = self._options.variants.earlier if system is System.EARLIER else None
            await migrate(uri, database, self._folder, earlier)
        server = await stack.enter_async_context(
            serving(system, uri, database, self._folder, self._options.variants)
        )
        if system in SERVICES:
            self._progress(f"{system}: write {ledger.transactions:,} transactions")
            await asyncio.to_thread(fill, uri, database, ledger, totals=system not in PEERS)
        if system is System.OURS_UNINDEXED:
            await drop_index_by_time(uri, database)
        load = [f"--target={server.target}", f"--users={ledger.users}"]
        if system in LIBRARIES:
            command = module("credit_bench.clients", f"--library={LIBRARIES[system]}", *load)
        else:
            command = module("credit_bench.generator", *load, f"--history={ledger.history}")
        return Subject(system=system, ledger=ledger, command=command, server=server)

    async def _measure(self) -> AsyncIterator[Measurement]:
        """Measure each workload on all systems in direct succession: a disturbance affects all."""
        for repetition in range(1, self._options.repetitions + 1):
            for workload in self._workloads:
                for system in workload.systems:
                    subject = self._subjects.get((system, workload.ledger))
                    if subject is None:
                        continue
                    arguments = self._arguments(workload, system, repetition)
                    users = workload.ledger.users
                    async with watching(subject.server, workload.watchers, users=users) as watchers:
                        sample = await subject.sample(arguments, self._mongod)
                        sample = await watchers.checked(sample)
                    if workload.operation in _WRITES:
                        subject.writes.append(sample)
                    self._progress(
                        f"{repetition}/{self._options.repetitions} {workload.name}: {system}"
                        f" {sample.operations_per_second:.0f} op/s, {sample.failed} errors"
                    )
                    yield Measurement(
                        workload=workload.name,
                        system=system,
                        repetition=repetition,
                        sample=sample,
                    )

    def _arguments(self, workload: Workload, system: System, repetition: int) -> list[str]:
        # Each measurement starts a new medici process, whose just-in-time compiler takes seconds.
        times = 4 if system is System.MEDICI else 1
        arguments = [
            f"--callers={workload.callers}",
            f"--seconds={self._options.seconds}",
            f"--warm-up-seconds={times * self._options.warm_up_seconds}",
        ]
        if system is System.INSERT_MANY:
            arguments.append(f"--batch={workload.batch}")
        elif system is not System.MEDICI:
            arguments += [
                f"--operation={workload.operation}",
                # The seed does not depend on the system: all get the same requests.
                f"--seed={self._options.seed}/{repetition}/{workload.name}",
            ]
            if system not in LIBRARIES:
                arguments += [f"--user-set={workload.users}", f"--batch={workload.batch}"]
        return arguments

    async def _overload(self) -> AsyncIterator[Overload]:
        if self._name != OVERLOAD:
            return
        for repetition in range(1, self._options.repetitions + 1):
            for busy in (False, True):
                for subject in self._subjects.values():
                    async with busy_loops((os.cpu_count() or 1) if busy else 0):
                        overload = await self._flood(subject, repetition, busy=busy)
                    subject.writes.extend(overload.samples)
                    self._progress(
                        f"{repetition}/{self._options.repetitions} overload"
                        f"{' beside busy loops' if busy else ''}: {subject.system}"
                        f" {overload.best:.0f} op/s at best,"
                        f" {overload.kept:.0%} of it under {TIMES} times the load"
                    )
                    yield overload

    async def _flood(self, subject: Subject, repetition: int, *, busy: bool) -> Overload:
        async def generate(arguments: Sequence[str]) -> Sample:
            return await subject.sample(arguments, self._mongod)

        seconds = self._options.seconds
        return await measure(
            subject.system,
            repetition,
            generate,
            seconds=seconds,
            warm_up_seconds=min(seconds, WARM_UP_SECONDS),
            busy=busy,
        )

    async def _audit(self, subject: Subject) -> Audit:
        if subject.server is None:
            raise AssertionError("unreachable: a service has a server")
        return await audit(
            self._mongod.uri,
            subject.server.database,
            totals=subject.system not in PEERS,
            prefilled=subject.ledger.transactions,
            acknowledged=sum(sample.acknowledged for sample in subject.writes),
            failed=sum(sample.failed for sample in subject.writes),
        )


@asynccontextmanager
async def _database(uri: str, system: System) -> AsyncIterator[str]:
    """Yield the name of a new database, and drop the database at the end."""
    name = f"credit_bench_{system.name.lower()}_{secrets.token_hex(4)}"
    try:
        yield name
    finally:
        client: AsyncMongoClient[dict[str, Any]]  # reads no documents
        async with AsyncMongoClient(uri) as client:
            await client.drop_database(name)
