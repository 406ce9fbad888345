"""The load of a program that uses a client library, in its own process: prints a sample as JSON.

The load generator costs as little as possible, so that it does not limit the servers. Here, the
client is a part of what is measured: the SDK, its synchronous twin, or grpcio's client.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from random import Random
from typing import Any

from credit_client import CreditClient, CreditError, sync
from grpc import aio  # type: ignore[import-untyped]  # grpcio ships no types

from credit_bench.contract import contract
from credit_bench.cpu import CpuMeter, watched
from credit_bench.generator.requests import APP_ID, Requests
from credit_bench.sample import EVENT_MISSING, Sample
from credit_bench.window import Window
from credit_bench.workloads import Operation, System, Users


class Library(StrEnum):
    """A client library."""

    SDK = "sdk"
    SYNC = "sync"
    GRPCIO = "grpcio"


# The systems whose load is a client library.
LIBRARIES = {
    System.SDK: Library.SDK,
    System.SDK_SYNC: Library.SYNC,
    System.PEER_CLIENT: Library.GRPCIO,
}


# How long the client waits for events after the last write.
_EVENT_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the SDK: the name of a method, and its arguments."""

    method: str
    arguments: dict[str, Any]  # the methods have different parameters


def calls(operation: Operation, users: int, seed: str) -> Iterator[Call]:
    """Yield calls for random users, without end: half of the writes add credits, half use them.

    Args:
        operation: `WRITE` or `READ`.
        users: The ids of the users are 1 to this number.
        seed: The same seed yields the same calls.
    """
    random = Random(seed)  # noqa: S311 - a load, not a secret
    for number in count():
        user = {"user_id": random.randint(1, users)}
        if operation is Operation.READ:
            yield Call("user_credits", user)
            continue
        change = {**user, "app_id": APP_ID, "credits": random.randint(1, 10), "created_by": 1}
        if random.random() < 0.5:
            yield Call("add", change)
        else:
            report = {"report_id": f"report-{number}", "report_name": "Annual report"}
            yield Call("use", {**change, **report})


async def _sdk(arguments: argparse.Namespace) -> Sample:
    remaining = calls(arguments.operation, arguments.users, arguments.seed)
    async with CreditClient(arguments.target) as client:

        async def send() -> None:
            call = next(remaining)
            await getattr(client, call.method)(**call.arguments)

        return await _concurrently(arguments, send, CreditError)


async def _events(arguments: argparse.Namespace) -> Sample:
    """Measure the time from the beginning of a write until a watcher of its app has the event.

    The callers do not wait for the events, so the writes are as fast as without a watcher.
    """
    remaining = calls(Operation.WRITE, arguments.users, arguments.seed)
    begun: dict[str, float] = {}
    async with (
        CreditClient(arguments.target) as client,
        aclosing(client.watch(app_id=APP_ID, progress=True)) as events,
        asyncio.TaskGroup() as group,
    ):
        await anext(events)  # after this event, no transaction is missed
        window = Window(arguments.warm_up_seconds, arguments.seconds)

        async def receive() -> None:
            async for event in events:
                if event.transaction is not None:
                    started = begun.pop(event.transaction.idempotency_key, None)
                    if started is not None:
                        window.succeeded(started)

        async def send(started: float) -> None:
            call, key = next(remaining), client.new_key()
            begun[key] = started
            try:
                await getattr(client, call.method)(**call.arguments, idempotency_key=key)
            except CreditError as error:
                del begun[key]
                window.failed(type(error).__name__)

        receiving = group.create_task(receive())
        cpu_ms = await _call(arguments, window, send)
        with suppress(TimeoutError):
            async with asyncio.timeout(_EVENT_SECONDS_MAX):
                while begun:  # noqa: ASYNC110 - a poll
                    await asyncio.sleep(_POLL_SECONDS)
        receiving.cancel()
    for _ in begun:
        window.failed(EVENT_MISSING)
    return window.sample(cpu_ms)


async def _grpcio(arguments: argparse.Namespace) -> Sample:
    requests = Requests(contract(), Users.RANDOM, arguments.users, arguments.seed)
    remaining = requests.of(arguments.operation)
    async with aio.insecure_channel(arguments.target) as channel:
        stub = contract().services.CreditServiceStub(channel)

        async def send() -> None:
            request = next(remaining)
            await getattr(stub, request.path.rpartition("/")[2])(request.message)

        return await _concurrently(arguments, send, aio.AioRpcError)


async def _concurrently(
    arguments: argparse.Namespace, send: Callable[[], Awaitable[None]], expected: type[Exception]
) -> Sample:
    """Measure callers that are tasks, by the end of each call."""
    window = Window(arguments.warm_up_seconds, arguments.seconds)

    async def counted(started: float) -> None:
        try:
            await send()
        except expected as error:
            window.failed(type(error).__name__)
        else:
            window.succeeded(started)

    return window.sample(await _call(arguments, window, counted))


async def _call(
    arguments: argparse.Namespace, window: Window, send: Callable[[float], Awaitable[None]]
) -> Mapping[str, float]:
    """Run callers until the window ends; each sends its next call when the last one has ended.

    Args:
        arguments: The command line.
        window: The window.
        send: Makes a call. Its argument is the time at which the call begins.

    Returns:
        The CPU time in milliseconds per operation of the window, by process.
    """

    async def caller() -> None:
        while (started := time.perf_counter()) < window.end:
            await send(started)

    async with asyncio.TaskGroup() as group:
        for _ in range(arguments.callers):
            group.create_task(caller())
        await asyncio.sleep(window.begin - time.perf_counter())
        meter = CpuMeter(watched(arguments.watch))
        await asyncio.sleep(window.end - time.perf_counter())
        return meter.milliseconds_per(window.operations)


def _threads(arguments: argparse.Namespace) -> Sample:
    """Measure callers that are threads, over the synchronous SDK."""
    with (
        sync.CreditClient(arguments.target) as client,
        ThreadPoolExecutor(arguments.callers) as pool,
    ):
        window = Window(arguments.warm_up_seconds, arguments.seconds)

        def caller(number: int) -> None:
            remaining = calls(arguments.operation, arguments.users, f"{arguments.seed}/{number}")
            while (started := time.perf_counter()) < window.end:
                call = next(remaining)
                try:
                    getattr(client, call.method)(**call.arguments)
                except CreditError as error:
                    window.failed(type(error).__name__)
                else:
                    window.succeeded(started)

        callers = [pool.submit(caller, number) for number in range(arguments.callers)]
        time.sleep(max(0.0, window.begin - time.perf_counter()))
        meter = CpuMeter(watched(arguments.watch))
        time.sleep(max(0.0, window.end - time.perf_counter()))
        cpu_ms = meter.milliseconds_per(window.operations)
        for ended in callers:
            ended.result()
    return window.sample(cpu_ms)


def main() -> None:
    """Call a server through a client library."""
    parser = argparse.ArgumentParser(prog="python -m credit_bench.clients", description=__doc__)
    parser.add_argument("--library", type=Library, required=True, help="the client library")
    parser.add_argument("--target", required=True, help="host:port of the server")
    parser.add_argument("--users", type=int, required=True, help="the number of users")
    parser.add_argument(
        "--operation", type=Operation, required=True, help="write, read, or write to event"
    )
    parser.add_argument("--callers", type=int, required=True, help="concurrent callers")
    parser.add_argument("--seconds", type=float, required=True, help="the length of the window")
    parser.add_argument("--warm-up-seconds", type=float, required=True, help="before the window")
    parser.add_argument("--seed", required=True, help="the seed of the random calls")
    parser.add_argument("--watch", action="append", default=[], help="NAME=PID,…")
    arguments = parser.parse_args()
    measure: dict[Library, Callable[[], Sample]] = {
        Library.SDK: lambda: asyncio.run(
            _events(arguments) if arguments.operation is Operation.EVENT else _sdk(arguments)
        ),
        Library.SYNC: lambda: _threads(arguments),
        Library.GRPCIO: lambda: asyncio.run(_grpcio(arguments)),
    }
    sys.stdout.write(measure[arguments.library]().to_json() + "\n")


if __name__ == "__main__":
    main()
