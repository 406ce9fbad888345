"""Check after the load that a database adds up and agrees with the answers to the clients."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from credit_testing.ledger_check import findings
from pymongo import MongoClient
from pymongo.database import Database

# The check joins each transaction with its purchase, which takes minutes for a million of them.
CHECKED_MAX = 500_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What a database holds after a run.

    Attributes:
        transactions: The number of entries in the history.
        purchases: The number of purchases.
        findings: What does not add up, one sentence each; empty where only counts are compared.
        prefilled: How many of the transactions the database held before the first call.
        acknowledged: How many writes succeeded, as the clients saw it.
        failed: How many writes failed for the clients; each may have happened or not.
    """

    transactions: int
    purchases: int
    findings: Sequence[str]
    prefilled: int = 0
    acknowledged: int
    failed: int

    @property
    def passed(self) -> bool:
        """Return whether everything adds up and no write is lost or counted twice."""
        written = self.transactions - self.prefilled
        return not self.findings and self.acknowledged <= written <= self.acknowledged + self.failed

    @property
    def only_counted(self) -> bool:
        """Return whether the database is too large to be checked."""
        return self.transactions > CHECKED_MAX


async def audit(
    uri: str, database: str, *, totals: bool, acknowledged: int, failed: int, prefilled: int = 0
) -> Audit:
    """Check the ledger in a database, and compare it with the answers to the clients.

    Args:
        uri: The replica set.
        database: The database of one server.
        totals: Whether the server stores totals of apps; the peer adds them up for each request.
        acknowledged: How many writes succeeded, as the clients saw it.
        failed: How many writes did not.
        prefilled: How many transactions the database held before the first call.
    """
    transactions, purchases, found = await asyncio.to_thread(_examine, uri, database, totals)
    return Audit(
        transactions=transactions,
        purchases=purchases,
        findings=found,
        prefilled=prefilled,
        acknowledged=acknowledged,
        failed=failed,
    )


def _examine(uri: str, name: str, totals: bool) -> tuple[int, int, Sequence[str]]:
    client: MongoClient[dict[str, Any]]  # documents hold values of many types
    with MongoClient(uri) as client:
        database: Database[dict[str, Any]] = client[name]
        transactions = database["credit_transactions"].count_documents({})
        purchases = database["purchases"].count_documents({})
        checked = transactions <= CHECKED_MAX
        return transactions, purchases, findings(database, totals=totals) if checked else ()
