"""The upper limit of writes: `insert_many` of the same documents, without a service or a ledger.

Runs in its own process and prints a sample as one line of JSON. It writes the transactions and
the purchases of a batch, with the validators and indexes of `credit-server` and majority writes,
but without a transaction, accounts, totals or keys to look up: no ledger can be faster.
"""

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Any

import uvloop
from bson import ObjectId
from bson.int64 import Int64
from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase

from credit_bench.cpu import CpuMeter, watched
from credit_bench.sample import Sample
from credit_bench.window import Window

_Document = dict[str, Any]  # as the driver takes it


class Inserts:
    """Inserts batches of documents for random users.

    Args:
        users: The number of users.
        batch: The number of operations of a batch.
    """

    def __init__(self, users: int, batch: int) -> None:
        self._users = users
        self._batch = batch
        self._sequence = count(time.time_ns())  # above those of earlier processes
        self._random = Random()  # noqa: S311 - a load, not a secret

    def documents(self) -> tuple[list[_Document], list[_Document]]:
        """Return the transactions and the purchases of a batch: half of it uses credits."""
        transactions, purchases = [], []
        for number in range(self._batch):
            sequence = next(self._sequence)
            common = {
                "user_id": Int64(self._random.randint(1, self._users)),
                "app_id": Int64(1),
                "credits": Int64(self._random.randint(1, 10)),
                "created_at": datetime.now(UTC),
                "created_by": Int64(1),
                "sequence": Int64(sequence),
            }
            transaction = {
                **common,
                "_id": ObjectId(),
                "type": "add",
                "balance_after": Int64(1_000_000_000),
                "idempotency_key": f"{ObjectId()}-{sequence}",
            }
            if number % 2:
                report = {"report_id": f"report-{sequence}", "report_name": "Annual report"}
                purchase = {
                    **common,
                    **report,
                    "_id": ObjectId(),
                    "transaction_id": transaction["_id"],
                }
                purchases.append(purchase)
                transaction |= {
                    "type": "use",
                    "purchase_id": purchase["_id"],
                    "fingerprint": report,
                }
            transactions.append(transaction)
        return transactions, purchases


async def _run(arguments: argparse.Namespace) -> Sample:
    window = Window(arguments.warm_up_seconds, arguments.seconds)
    inserts = Inserts(arguments.users, arguments.batch)

    async def caller() -> None:
        while (started := time.perf_counter()) < window.end:
            transactions, purchases = inserts.documents()
            await database["credit_transactions"].insert_many(transactions, ordered=False)
            if purchases:
                await database["purchases"].insert_many(purchases, ordered=False)
            window.succeeded(started, arguments.batch)

    client: AsyncMongoClient[_Document]
    async with AsyncMongoClient(arguments.uri) as client, asyncio.TaskGroup() as group:
        database: AsyncDatabase[_Document] = client.get_database(
            arguments.database, write_concern=WriteConcern("majority")
        )
        for _ in range(arguments.callers):
            group.create_task(caller())
        await asyncio.sleep(window.begin - time.perf_counter())
        meter = CpuMeter(watched(arguments.watch))
        await asyncio.sleep(window.end - time.perf_counter())
        cpu_ms = meter.milliseconds_per(window.operations)
    return window.sample(cpu_ms)


def main() -> None:
    """Insert the documents that the arguments describe."""
    parser = argparse.ArgumentParser(prog="python -m credit_bench.inserts", description=__doc__)
    parser.add_argument("--uri", required=True, help="the MongoDB replica set")
    parser.add_argument("--database", required=True, help="the database's name")
    parser.add_argument("--users", type=int, required=True, help="the number of users")
    parser.add_argument("--batch", type=int, required=True, help="the operations of a batch")
    parser.add_argument("--callers", type=int, required=True, help="concurrent callers")
    parser.add_argument("--seconds", type=float, required=True, help="the length of the window")
    parser.add_argument("--warm-up-seconds", type=float, required=True, help="before the window")
    parser.add_argument("--watch", action="append", default=[], help="NAME=PID,…")
    sys.stdout.write(uvloop.run(_run(parser.parse_args())).to_json() + "\n")


if __name__ == "__main__":
    main()
