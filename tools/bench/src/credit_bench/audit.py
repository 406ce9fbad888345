"""Check after the load that a database adds up and agrees with the answers to the clients."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from credit_testing.ledger_check import findings
from pymongo import MongoClient
from pymongo.database import Database


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What a database holds after a run.

    Attributes:
        transactions: The number of entries in the history.
        purchases: The number of purchases.
        findings: What does not add up, one sentence each.
        acknowledged: How many writes succeeded, as the clients saw it.
        failed: How many writes failed for the clients; each may have happened or not.
    """

    transactions: int
    purchases: int
    findings: Sequence[str]
    acknowledged: int
    failed: int

    @property
    def passed(self) -> bool:
        """Return whether everything adds up and no write is lost or counted twice."""
        return (
            not self.findings
            and self.acknowledged <= self.transactions <= self.acknowledged + self.failed
        )


async def audit(uri: str, database: str, *, totals: bool, acknowledged: int, failed: int) -> Audit:
    """Check the ledger in a database, and compare it with the answers to the clients.

    Args:
        uri: The replica set.
        database: The database of one server.
        totals: Whether the server stores totals of apps; the peer sums them when it is asked.
        acknowledged: How many writes succeeded, as the clients saw it.
        failed: How many writes did not.
    """
    return await asyncio.to_thread(_audit, uri, database, totals, acknowledged, failed)


def _audit(uri: str, name: str, totals: bool, acknowledged: int, failed: int) -> Audit:
    client: MongoClient[dict[str, Any]]  # documents hold values of many types
    with MongoClient(uri) as client:
        database: Database[dict[str, Any]] = client[name]
        return Audit(
            transactions=database["credit_transactions"].count_documents({}),
            purchases=database["purchases"].count_documents({}),
            findings=findings(database, totals=totals),
            acknowledged=acknowledged,
            failed=failed,
        )
