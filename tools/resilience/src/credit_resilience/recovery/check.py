"""The check of the ledger after a fault."""

from typing import Any

from credit_testing.ledger_check import findings
from pymongo import MongoClient

from credit_resilience.recovery.callers import Damaged

DATABASE = "credit"


def check(uri: str) -> None:
    """Check the ledger in the database `DATABASE`; no server may be writing to it.

    Raises:
        Damaged: It does not add up.
    """
    client: MongoClient[dict[str, Any]]  # Any: documents hold values of many types
    with MongoClient(uri) as client:
        if found := findings(client[DATABASE]):
            raise Damaged("; ".join(found))
