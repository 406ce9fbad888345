"""A minimal server that tests kill: it starts a `mongod`, writes one document and waits.

Run it as `python server_program.py DATA_DIRECTORY`. It prints the process numbers of the `mongod`
and of its watchdog, and stops in order when its standard input closes.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvloop
from credit_server.embedded import EmbeddedMongod
from pymongo import AsyncMongoClient


async def main() -> None:
    async with EmbeddedMongod(data_dir=Path(sys.argv[1])) as mongod:
        # `Any`: what the driver decodes has no narrower type.
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongod.uri)
        async with client:
            await client.test.written.insert_one({"value": 1})
        assert mongod._process is not None
        sys.stdout.write(f"{mongod.pid} {mongod._process.watchdog_pid}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


uvloop.run(main())
