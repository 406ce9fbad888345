"""Verify and repair the database of a test, and read all of it."""

import asyncio
from typing import Any

from credit_server.store.repairing import open_repairing
from credit_server.store.verification import schema_drift
from credit_server.verify.correction import Correction, Order
from credit_server.verify.repair import repairs
from credit_server.verify.run import Target, verify
from credit_server.verify.span_check import Found
from pymongo.database import Database

Document = dict[str, Any]  # values of BSON

ORDER = Order(created_by=99, reason="disk fault", keeps_account=False, apply=True)


async def check(ledger: Target) -> Found:
    """Verify the database in small ranges."""
    drift = await schema_drift(ledger.uri, database=ledger.database, timeout_seconds=30)
    return await asyncio.to_thread(verify, ledger, drift=drift, jobs=1, span_entries=200)


async def correct(ledger: Target, found: Found, order: Order = ORDER) -> list[Correction]:
    """Correct what was found."""

    def run() -> list[Correction]:
        with open_repairing(ledger.uri, ledger.database, 30) as reader:
            return list(repairs(reader, found, order))

    return await asyncio.to_thread(run)


def contents(documents: Database[Document]) -> dict[str, list[Document]]:
    """Return all documents."""
    return {
        name: list(documents[name].find().sort("_id"))
        for name in sorted(documents.list_collection_names())
    }
