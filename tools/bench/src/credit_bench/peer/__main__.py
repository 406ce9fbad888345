"""Runs the peer in its own process: `python -m credit_bench.peer`."""

import argparse
import asyncio
import signal

import uvloop
from pymongo import AsyncMongoClient

from credit_bench.contract import contract
from credit_bench.peer.ledger import Document, Ledger
from credit_bench.peer.service import service

_GRACE_SECONDS = 5.0


async def _serve(port: int, uri: str, database: str) -> None:
    client: AsyncMongoClient[Document]
    async with AsyncMongoClient(uri, tz_aware=True) as client:
        ledger = Ledger(client, database)
        await ledger.prepare()
        server = service(contract(), ledger)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
        await server.stop(_GRACE_SECONDS)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m credit_bench.peer", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="the port on 127.0.0.1")
    parser.add_argument("--uri", required=True, help="the MongoDB replica set")
    parser.add_argument("--database", required=True, help="the database's name")
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments.port, arguments.uri, arguments.database))


if __name__ == "__main__":
    main()
