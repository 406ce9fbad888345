"""A history of any length streams in constant memory, on both sides."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

from credit_server.ledger import Account, Kind, Transaction
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Changes

from tests.conftest import StartServer
from tests.e2e import history_reader
from tests.e2e.history_reader import memory_bytes

LONG, SHORT = 7, 8
ENTRIES_LONG, ENTRIES_SHORT = 100_000, 5_000
APP = 1
GROWTH_BYTES_MAX = 30 * 2**20
"""Held as a whole, a history of this length takes several times as much."""
PER_TRANSACTION = 1_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def test_a_hundred_thousand_transactions_stream_in_constant_memory(
    mongod_uri: str, database: str, store_options: list[str], credit_server_process: StartServer
) -> None:
    store = MongoStore(mongod_uri, database=database)
    await _write(store, SHORT, ENTRIES_SHORT)
    await _write(store, LONG, ENTRIES_LONG)
    store.close()
    server = await credit_server_process(*store_options)
    await _read(server.address, SHORT)
    warm_bytes = memory_bytes(server.pid, "VmRSS")
    found = await _read(server.address, LONG)
    assert memory_bytes(server.pid, "VmHWM") - warm_bytes < GROWTH_BYTES_MAX
    assert found.pop("grown_bytes") < GROWTH_BYTES_MAX
    assert found == {
        "count": ENTRIES_LONG,
        "in_order": True,
        "total": sum(map(_credits, range(1, ENTRIES_LONG + 1))),
    }


async def _read(address: str, user: int) -> dict[str, int | bool]:
    """Read a history in a process of its own, whose memory is then the reader's alone."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(history_reader.__file__), address, str(user)],
        check=True,
        capture_output=True,
    )
    found: dict[str, int | bool] = json.loads(done.stdout)
    return found


async def _write(store: MongoStore, user: int, count: int) -> None:
    """Write a history past the server, many entries at a time."""
    before = 0
    history, writer = _entries(user, count), store.writer()
    while entries := list(islice(history, PER_TRANSACTION)):
        last = entries[-1]
        account = Account(
            user_id=user,
            balances={APP: last.balance_after},
            revision=last.sequence,
            created_at=NOW,
            updated_at=NOW,
            created_by=1,
            updated_by=1,
        )
        async with writer.begin() as unit:
            await unit.write(
                Changes(
                    accounts=[(before, account)],
                    transactions=entries,
                    purchases=[],
                    totals={APP: sum(entry.credits for entry in entries)},
                    slot=0,
                )
            )
            await unit.commit()
        before = account.revision


def _entries(user: int, count: int) -> Iterator[Transaction]:
    balance = 0
    for sequence in range(1, count + 1):
        balance += _credits(sequence)
        yield Transaction(
            id=f"{user:04x}{sequence:020x}",
            user_id=user,
            app_id=APP,
            kind=Kind.ADD,
            credits=_credits(sequence),
            balance_after=balance,
            sequence=sequence,
            created_at=NOW,
            created_by=1,
            key=f"key-{sequence}",
        )


def _credits(sequence: int) -> int:
    return sequence % 97 + 1
