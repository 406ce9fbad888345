"""One run: starts every server, measures every cell on each in turn, and audits every database."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from credit_testing.child import ChildFailed, module, output
from pymongo import AsyncMongoClient

from credit_bench.audit import Audit, audit
from credit_bench.cell import Cell, Users, cells
from credit_bench.options import Options
from credit_bench.overload import TIMES, Overload, measure
from credit_bench.sample import Sample
from credit_bench.summary import Measurement
from credit_bench.system import Server, System, replica_set, serving

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The result of a run.

    Attributes:
        measurements: The measurements, in order.
        audits: The audit of each server's database after the run.
        overloads: The goodput of each server under ten times the load.
    """

    measurements: Sequence[Measurement]
    audits: dict[System, Audit]
    overloads: Sequence[Overload] = ()

    @property
    def clean(self) -> bool:
        """Return whether every audit passed and no call failed outside the overload."""
        failed = any(measurement.sample.failed for measurement in self.measurements)
        return not failed and all(audit.passed for audit in self.audits.values())


async def run(options: Options, progress: Progress) -> Result:
    """Run the measurements that the options describe; always stop every started process.

    Args:
        options: The options of the run.
        progress: Called with a line about each step.

    Raises:
        ChildFailed: A server or the load generator failed.
        credit_server.embedded.EmbeddedError: The private mongod did not start.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="credit-bench-")))
        uri = await stack.enter_async_context(replica_set(options.mongodb_uri, folder))
        servers = []
        for system in options.systems:
            database = await stack.enter_async_context(_database(uri, system))
            server = await stack.enter_async_context(serving(system, uri, database, folder))
            servers.append(server)
        opened = {}
        for server in servers:
            progress(f"{server.system}: open {options.users} accounts")
            opened[server.system] = await _open_accounts(server, options)
        measurements = [entry async for entry in _measure(servers, options, progress)]
        overloads = [entry async for entry in _overload(servers, options, progress)]
        audits = {}
        for server in servers:
            samples = [entry.sample for entry in measurements if entry.system is server.system]
            samples.append(opened[server.system])
            for overload in overloads:
                if overload.system is server.system:
                    samples.extend(overload.samples)
            audits[server.system] = await audit(
                uri,
                server.database,
                totals=server.system is System.OURS,
                acknowledged=sum(sample.acknowledged for sample in samples),
                failed=sum(sample.failed for sample in samples),
            )
        return Result(measurements=measurements, audits=audits, overloads=overloads)


async def _measure(
    servers: Sequence[Server], options: Options, progress: Progress
) -> AsyncIterator[Measurement]:
    """Measure each cell on all servers in direct succession, so a disturbance affects both."""
    if not options.cells:
        return
    for repetition in range(1, options.repetitions + 1):
        for cell in cells(options.callers):
            for server in servers:
                sample = await _generate(server, options, *_arguments(cell, repetition, options))
                progress(
                    f"{repetition}/{options.repetitions} {cell.name}: {server.system}"
                    f" {sample.operations_per_second:.0f} op/s, {sample.failed} errors"
                )
                yield Measurement(
                    system=server.system, cell=cell, repetition=repetition, sample=sample
                )


async def _overload(
    servers: Sequence[Server], options: Options, progress: Progress
) -> AsyncIterator[Overload]:
    if not options.overload:
        return
    for repetition in range(1, options.repetitions + 1):
        for server in servers:

            async def generate(arguments: Sequence[str], server: Server = server) -> Sample:
                return await _generate(server, options, *arguments)

            overload = await measure(
                server.system, repetition, generate, seconds=max(options.seconds, 2.0)
            )
            progress(
                f"{repetition}/{options.repetitions} overload: {server.system}"
                f" {overload.best:.0f} op/s at best,"
                f" {overload.kept:.0%} of it under {TIMES} times the load"
            )
            yield overload


def _arguments(cell: Cell, repetition: int, options: Options) -> list[str]:
    arguments = [
        f"--callers={cell.callers}",
        f"--seconds={options.seconds}",
        f"--warm-up-seconds={options.warm_up_seconds}",
        # The seed does not depend on the server: both get the same requests.
        f"--seed={options.seed}/{repetition}/{cell.name}",
    ]
    if cell.users is Users.HOT:
        arguments.append("--hot")
    return arguments


async def _generate(server: Server, options: Options, *arguments: str) -> Sample:
    return Sample.from_json(
        await output(
            module(
                "credit_bench.generator",
                f"--target={server.target}",
                f"--users={options.users}",
                *arguments,
            )
        )
    )


async def _open_accounts(server: Server, options: Options) -> Sample:
    """Give every account its opening credits.

    Raises:
        ChildFailed: An account was not opened. Its calls would be rejected, which is fast.
    """
    opened = await _generate(server, options, "--open-accounts", "--seed", "0")
    if opened.failed:
        raise ChildFailed(f"{server.system}: not every account was opened: {opened.errors}")
    return opened


@asynccontextmanager
async def _database(uri: str, system: System) -> AsyncIterator[str]:
    """Yield the name of a new database, and drop the database at the end."""
    name = f"credit_bench_{system}_{secrets.token_hex(4)}"
    try:
        yield name
    finally:
        client: AsyncMongoClient[dict[str, Any]]  # reads no documents
        async with AsyncMongoClient(uri) as client:
            await client.drop_database(name)
