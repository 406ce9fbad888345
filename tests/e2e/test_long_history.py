"""Test that a history of any length streams in constant memory, in server and client."""

import asyncio
import json
import subprocess
import sys

from credit_server.store.mongo import MongoStore

from tests.conftest import StartServer
from tests.e2e import history_reader
from tests.e2e.history_reader import memory_bytes
from tests.e2e.long_history import credits_at, write_history

LONG, SHORT = 7, 8
ENTRIES_LONG, ENTRIES_SHORT, KEY_LENGTH = 40_000, 5_000, 128
# The client's HTTP/2 window is 4 MiB. Held as a whole, the long history takes 20 MB as the server's
# entries and 15 MB as the client's; streamed, both grew by less than 1 MB.
GROWTH_BYTES_MAX = 10 * 2**20


async def test_forty_thousand_transactions_stream_in_constant_memory(
    mongod_uri: str,
    migrated_database: str,
    store_options: list[str],
    credit_server_process: StartServer,
) -> None:
    store = MongoStore(mongod_uri, database=migrated_database)
    for user, count in ((SHORT, ENTRIES_SHORT), (LONG, ENTRIES_LONG)):
        await write_history(store, user=user, count=count, key_length=KEY_LENGTH)
    await store.close()
    server = await credit_server_process(*store_options)
    await _read(server.address, SHORT)
    warm_bytes = memory_bytes(server.pid, "VmRSS")
    found = await _read(server.address, LONG)
    assert memory_bytes(server.pid, "VmHWM") - warm_bytes < GROWTH_BYTES_MAX
    assert found.pop("grown_bytes") < GROWTH_BYTES_MAX
    assert found == {
        "count": ENTRIES_LONG,
        "in_order": True,
        "total": sum(map(credits_at, range(1, ENTRIES_LONG + 1))),
    }


async def _read(address: str, user: int) -> dict[str, int | bool]:
    """Read a history in a child process, whose memory is the reader's alone."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(history_reader.__file__), address, str(user)],
        check=True,
        capture_output=True,
    )
    found: dict[str, int | bool] = json.loads(done.stdout)
    return found
