"""Runs the load generator in its own process and prints a sample as one line of JSON."""

import argparse
import asyncio
import sys

import uvloop

from credit_bench.contract import contract
from credit_bench.cpu import watched
from credit_bench.generator.connection import CallConnection
from credit_bench.generator.load import Load
from credit_bench.generator.requests import Requests
from credit_bench.sample import Sample
from credit_bench.workloads import Operation, Users

# Callers of a real service use several connections. A single one would also be limited by the
# number of streams that a server allows per connection.
_CONNECTIONS_MAX = 16
_OPENING_CALLERS = 128


async def _run(arguments: argparse.Namespace) -> Sample:
    host, _, port = arguments.target.rpartition(":")
    loop = asyncio.get_running_loop()
    flooded = arguments.open_rate is not None or arguments.open_accounts
    connections = []
    try:
        for _ in range(_CONNECTIONS_MAX if flooded else min(arguments.callers, _CONNECTIONS_MAX)):
            _, connection = await loop.create_connection(CallConnection, host, int(port))
            connections.append(connection)
            await connection.ready.wait()
        requests = Requests(
            contract(),
            arguments.user_set,
            arguments.users,
            arguments.seed,
            history=arguments.history,
        )
        load = Load(
            connections,
            requests.opening()
            if arguments.open_accounts
            else requests.of(arguments.operation, arguments.batch),
            warm_up_seconds=arguments.warm_up_seconds,
            seconds=arguments.seconds,
            deadline_seconds=arguments.deadline_seconds,
            watched=watched(arguments.watch),
        )
        if arguments.open_accounts:
            return await load.all(_OPENING_CALLERS)
        if arguments.open_rate is not None:
            return await load.open(arguments.open_rate)
        return await load.closed(arguments.callers)
    finally:
        for connection in connections:
            connection.close()


def main() -> None:
    """Generate the load that the arguments describe."""
    parser = argparse.ArgumentParser(prog="python -m credit_bench.generator", description=__doc__)
    parser.add_argument("--target", required=True, help="host:port of the server")
    parser.add_argument("--users", type=int, required=True, help="the number of users")
    parser.add_argument(
        "--history", type=int, default=1, help="the transactions of each user before"
    )
    parser.add_argument(
        "--open-accounts", action="store_true", help="only add credits for every user"
    )
    parser.add_argument(
        "--operation", type=Operation, default=Operation.WRITE, help="the kind of call"
    )
    parser.add_argument(
        "--user-set", type=Users, default=Users.RANDOM, help="the users that the calls concern"
    )
    parser.add_argument("--batch", type=int, default=1, help="the operations of a call")
    parser.add_argument("--callers", type=int, default=1, help="concurrent callers")
    parser.add_argument("--seconds", type=float, default=3.0, help="the length of the window")
    parser.add_argument("--warm-up-seconds", type=float, default=0.5, help="before the window")
    parser.add_argument("--seed", default="0", help="the seed of the random requests")
    parser.add_argument(
        "--deadline-seconds", type=float, default=60.0, help="the deadline of each call"
    )
    parser.add_argument(
        "--open-rate", type=float, help="the fixed rate of an open loop, in calls per second"
    )
    parser.add_argument(
        "--watch", action="append", default=[], help="NAME=PID,… measures the CPU of processes"
    )
    sys.stdout.write(uvloop.run(_run(parser.parse_args())).to_json() + "\n")


if __name__ == "__main__":
    main()
