"""Watchers in a separate process: one stream of `Watch` for each of the first users.

The process prints a line when every stream has begun. Then it reads one line, the number of
transactions that were written since, and waits for their events. Finally it prints how many events
are missing and how many streams have ended, as JSON.
"""

import argparse
import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import uvloop
from credit_testing.child import ChildFailed, module, started

from credit_bench.contract import contract
from credit_bench.generator.connection import CallConnection, header_block, message_frame
from credit_bench.generator.requests import APP_ID
from credit_bench.sample import EVENT_MISSING, Sample
from credit_bench.systems import Server

# The error of a sample whose watchers have lost streams.
WATCH_ENDED = "WATCH_ENDED"

_CONNECTIONS = 16
_PATH = "/credit.v1.HistoryService/Watch"
# Longer than a measurement, and longer than the server keeps a stream open.
_TIMEOUT = "24H"
_EVENT_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.01


class Watchers:
    """The process with the watchers.

    Args:
        process: The process; None: there are no watchers.
        every_write: Whether every write has an event. Otherwise events are not counted.
    """

    def __init__(self, process: Process | None, *, every_write: bool = True) -> None:
        self._process = process
        self._every_write = every_write

    async def checked(self, sample: Sample) -> Sample:
        """Return the sample of the watched writes, with the events that the watchers missed.

        Raises:
            ChildFailed: The process with the watchers has ended.
        """
        if self._process is None:
            return sample
        events = sample.acknowledged if self._every_write else 0
        written, _ = await self._process.communicate(b"%d\n" % events)
        if not written:
            raise ChildFailed("the watchers have ended")
        missed = {name: count for name, count in json.loads(written).items() if count}
        return replace(sample, errors={**sample.errors, **missed})


@asynccontextmanager
async def watching(server: Server | None, count: int, *, users: int) -> AsyncIterator[Watchers]:
    """Run watchers of a server for as long as the context lasts.

    Args:
        server: The server.
        count: The number of watchers. Each watches one user, from the id 1.
        users: The number of users that writes are for.

    Raises:
        ChildFailed: A watcher could not begin.
    """
    if server is None or not count:
        yield Watchers(None)
        return
    command = module("credit_bench.watchers", f"--target={server.target}", f"--count={count}")
    async with started(*command, stdin=PIPE, stdout=PIPE) as process:
        if process.stdout is None or not await process.stdout.readline():
            raise ChildFailed("the watchers could not begin")
        yield Watchers(process, every_write=count == users)


class _Streams:
    """The streams, and what has arrived on them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._begun = 0
        self.all_begun = asyncio.Event()
        self.events = 0
        self.ended = 0

    def open(self, connections: Sequence[CallConnection]) -> None:
        """Open the streams, distributed over connections."""
        block = header_block(_PATH, "127.0.0.1", _TIMEOUT)
        for number in range(self._count):
            request = contract().history.WatchRequest(user_id=number + 1, app_id=APP_ID)
            data = message_frame(request.SerializeToString())
            connections[number % len(connections)].call(block, data, self._received)

    def _received(self, messages: Sequence[bytes], status: str | None) -> None:
        self.ended += status is not None
        for message in messages:
            event = contract().history.WatchResponse.FromString(message)
            self.events += event.HasField("transaction")
            self._begun += event.HasField("snapshot")  # the first event of each stream
        if self.ended or self._begun == self._count:
            self.all_begun.set()


async def _run(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.target.rpartition(":")
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(_CONNECTIONS):
        _, connection = await loop.create_connection(CallConnection, host, int(port))
        connections.append(connection)
        await connection.ready.wait()
    streams = _Streams(arguments.count)
    streams.open(connections)
    await streams.all_begun.wait()
    if streams.ended:
        sys.exit(f"{streams.ended} of {arguments.count} watchers ended at once")
    print(flush=True)  # noqa: T201 - for the process that runs this one
    written = int(await asyncio.to_thread(sys.stdin.readline) or 0)
    with suppress(TimeoutError):
        async with asyncio.timeout(_EVENT_SECONDS_MAX):
            while streams.events < written and not streams.ended:  # noqa: ASYNC110 - a poll
                await asyncio.sleep(_POLL_SECONDS)
    missing = max(0, written - streams.events)
    print(json.dumps({EVENT_MISSING: missing, WATCH_ENDED: streams.ended}))  # noqa: T201
    for connection in connections:
        connection.close()


def main() -> None:
    """Watch the users that the arguments describe."""
    parser = argparse.ArgumentParser(prog="python -m credit_bench.watchers", description=__doc__)
    parser.add_argument("--target", required=True, help="host:port of the server")
    parser.add_argument("--count", type=int, required=True, help="the number of watchers")
    uvloop.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
