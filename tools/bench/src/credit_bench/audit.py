"""The audit: after the load, does a database's history add up to its balances?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

Document = Mapping[str, Any]  # as the driver gives it

_HISTORY: Sequence[Mapping[str, Any]] = [
    {
        "$group": {
            "_id": {"user_id": "$user_id", "app_id": "$app_id"},
            "balance": {
                "$sum": {
                    "$cond": [
                        {"$eq": ["$type", "add"]},
                        "$credits",
                        {"$multiply": ["$credits", -1]},
                    ]
                }
            },
            "count": {"$sum": 1},
        }
    }
]
_BALANCES: Sequence[Mapping[str, Any]] = [
    {"$unwind": "$balances"},
    {
        "$project": {
            "user_id": 1,
            "app_id": "$balances.app_id",
            "balance": "$balances.balance",
        }
    },
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What a database holds after a run.

    Attributes:
        transactions: The number of entries in the history.
        purchases: The number of purchases.
        uses: The number of entries in the history that are USEs.
        mismatches: The number of balances that are not the sum of their history.
        acknowledged: How many writes the clients were told of as done.
        failed: How many writes failed for the clients; each may have happened or not.
    """

    transactions: int
    purchases: int
    uses: int
    mismatches: int
    acknowledged: int
    failed: int

    @property
    def passed(self) -> bool:
        """Whether all adds up: nothing is lost, nothing is there twice or by half."""
        return (
            self.mismatches == 0
            and self.purchases == self.uses
            and self.acknowledged <= self.transactions <= self.acknowledged + self.failed
        )


async def audit(uri: str, database: str, *, acknowledged: int, failed: int) -> Audit:
    """Compare every balance with the sum of its history, and both with what clients were told.

    Args:
        uri: The replica set.
        database: The database of one server.
        acknowledged: How many writes succeeded, as the clients saw it.
        failed: How many writes did not.
    """
    client: AsyncMongoClient[Document]
    async with AsyncMongoClient(uri) as client:
        store: AsyncDatabase[Document] = client[database]
        history = store["credit_transactions"]
        summed, transactions = {}, 0
        async for row in await history.aggregate(_HISTORY):
            summed[row["_id"]["user_id"], row["_id"]["app_id"]] = row["balance"]
            transactions += row["count"]
        held = {
            (row["user_id"], row["app_id"]): row["balance"]
            async for row in await store["user_credits"].aggregate(_BALANCES)
        }
        return Audit(
            transactions=transactions,
            purchases=await store["purchases"].count_documents({}),
            uses=await history.count_documents({"type": "use"}),
            mismatches=sum(summed.get(key) != held.get(key) for key in summed.keys() | held.keys()),
            acknowledged=acknowledged,
            failed=failed,
        )
