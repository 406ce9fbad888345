"""Runs the load generator in its own process and prints a sample as one line of JSON."""

import argparse
import asyncio
import sys
from itertools import cycle

import uvloop
from grpc import aio  # type: ignore[import-untyped]  # grpcio ships no types

from credit_bench.cell import Users
from credit_bench.contract import contract
from credit_bench.generator.connection import CallConnection
from credit_bench.generator.goodput import Goodput
from credit_bench.generator.load import Call, Load, send_all
from credit_bench.generator.workload import Request, opening_requests, requests
from credit_bench.sample import Sample

# Callers of a real service use several connections. A single one would also be limited by the
# number of streams that a server allows per connection.
_CHANNELS = 4
_CALL_TIMEOUT_SECONDS = 60.0
_OPENING_CALLERS = 128


async def _goodput(arguments: argparse.Namespace) -> Sample:
    host, _, port = arguments.target.rpartition(":")
    loop = asyncio.get_running_loop()
    connections = []
    try:
        for _ in range(arguments.connections):
            _, connection = await loop.create_connection(CallConnection, host, int(port))
            connections.append(connection)
            await connection.ready.wait()
        goodput = Goodput(
            connections,
            requests(contract(), Users.RANDOM, arguments.users, arguments.seed),
            warm_up_seconds=arguments.warm_up_seconds,
            seconds=arguments.seconds,
        )
        if arguments.open_rate is None:
            return await goodput.closed(arguments.callers)
        return await goodput.open(arguments.open_rate)
    finally:
        for connection in connections:
            connection.close()


async def _run(arguments: argparse.Namespace) -> Sample:
    channels = [
        aio.insecure_channel(
            arguments.target,
            # Without this option, grpcio shares one connection between channels to the same target.
            options=(("grpc.use_local_subchannel_pool", 1),),
        )
        for _ in range(_CHANNELS)
    ]
    try:
        call = _call(channels)
        if arguments.open_accounts:
            opening = opening_requests(contract(), arguments.users)
            return await send_all(call, opening, _OPENING_CALLERS)
        callers = [
            requests(
                contract(),
                Users.HOT if arguments.hot else Users.RANDOM,
                arguments.users,
                f"{arguments.seed}/{caller}",
            )
            for caller in range(arguments.callers)
        ]
        load = Load(
            call, callers, warm_up_seconds=arguments.warm_up_seconds, seconds=arguments.seconds
        )
        return await load.run()
    finally:
        for channel in channels:
            await channel.close()


def _call(channels: list[aio.Channel]) -> Call:
    stubs = cycle([contract().services.CreditServiceStub(channel) for channel in channels])

    async def call(request: Request) -> object:
        method = getattr(next(stubs), request.method)
        return await method(request.message, timeout=_CALL_TIMEOUT_SECONDS)

    return call


def main() -> None:
    """Generate the load that the arguments describe."""
    parser = argparse.ArgumentParser(prog="python -m credit_bench.generator", description=__doc__)
    parser.add_argument("--target", required=True, help="host:port of the server")
    parser.add_argument("--users", type=int, required=True, help="the number of users")
    parser.add_argument(
        "--open-accounts", action="store_true", help="only add credits for every user"
    )
    parser.add_argument("--hot", action="store_true", help="make all calls for one user")
    parser.add_argument("--callers", type=int, default=1, help="concurrent callers")
    parser.add_argument("--seconds", type=float, default=4.0, help="the length of the window")
    parser.add_argument("--warm-up-seconds", type=float, default=0.5, help="before the window")
    parser.add_argument("--seed", default="0", help="the seed of the random requests")
    parser.add_argument(
        "--goodput", action="store_true", help="count only calls that succeed within one second"
    )
    parser.add_argument(
        "--open-rate", type=float, help="the fixed rate of an open loop, in calls per second"
    )
    parser.add_argument("--connections", type=int, default=16, help="connections, for --goodput")
    arguments = parser.parse_args()
    run = _goodput if arguments.goodput else _run
    sys.stdout.write(uvloop.run(run(arguments)).to_json() + "\n")


if __name__ == "__main__":
    main()
