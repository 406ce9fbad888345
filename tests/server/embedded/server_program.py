"""A server in small, to be killed: starts a `mongod`, writes one document, says so, and waits.

Run as `python server_program.py DATA_DIRECTORY`. It prints the process numbers of the `mongod` and of
its watchdog, and ends in order when its standard input closes.
"""

import asyncio
import sys
from pathlib import Path

import uvloop
from credit_server.embedded import EmbeddedMongod
from pymongo import AsyncMongoClient
from pymongo.write_concern import WriteConcern


async def main() -> None:
    async with EmbeddedMongod(data_dir=Path(sys.argv[1])) as mongod:
        client: AsyncMongoClient[dict[str, int]]
        async with AsyncMongoClient(mongod.uri) as client:
            written = client.test.get_collection("written", write_concern=WriteConcern("majority"))
            await written.insert_one({"value": 1})
        assert mongod._process is not None
        sys.stdout.write(f"{mongod.pid} {mongod._process.watchdog_pid}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


uvloop.run(main())
