"""Finds history entries dated after the store's time, for `credit-server doctor`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.codec_options import CodecOptions
from bson.objectid import ObjectId
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import DESCENDING
from pymongo.errors import ExecutionTimeout

from credit_server.store import schema
from credit_server.store.connection_string import Client
from credit_server.store.inspection import told

_FOUND_MAX = 100

# Any: the driver's documents.
_Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class FutureEntry:
    """An entry that is dated after the store's time.

    Attributes:
        user_id: Whose it is.
        sequence: Its place in the user's history.
        ahead_seconds: By how much it is dated after the store's time.
    """

    user_id: int
    sequence: int
    ahead_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FutureEntries:
    """The entries that were found; at most a hundred.

    Attributes:
        entries: The entries, those of the newest ids first.
        whole: Whether the whole history was searched, or until enough were found.
    """

    entries: tuple[FutureEntry, ...] = ()
    whole: bool = True


async def future_entries(
    client: Client, *, database: str, tolerance_seconds: float, search_seconds: float
) -> FutureEntries:
    """Find entries that are dated after the store's time.

    An id holds the clock of the server that made it, so an index leads to the entries of a server
    whose clock was ahead. Other servers may have taken over the date: these are searched for
    without an index, from the newest on, for a limited time.

    Args:
        client: A connection to MongoDB with a primary.
        database: The name of the ledger's database.
        tolerance_seconds: By how much a sound server's clock may be ahead of the store's.
        search_seconds: How long the search without an index may take.

    Raises:
        StoreError: The store cannot be read.
    """
    with told():
        hello = await client.admin.command("hello")
        store_time = hello["localTime"].replace(tzinfo=UTC)
        after = store_time + timedelta(seconds=tolerance_seconds)
        transactions = client.get_database(database, codec_options=CodecOptions(tz_aware=True))[
            schema.CREDIT_TRANSACTIONS
        ]
        dated = {"created_at": {"$gt": after}}
        found = await _found(
            transactions, {"_id": {"$gte": ObjectId.from_datetime(after)}, **dated}
        )
        whole = True
        if len(found) < _FOUND_MAX:
            milliseconds = max(1, int(search_seconds * 1000))
            try:
                found = await _found(transactions, dated, milliseconds)
            except ExecutionTimeout:
                whole = False
        return FutureEntries(
            entries=tuple(_entry(document, store_time) for document in found), whole=whole
        )


async def _found(
    transactions: AsyncIOMotorCollection[_Document],
    query: Mapping[str, Any],
    milliseconds: int | None = None,
) -> list[_Document]:
    cursor = transactions.find(query, {"user_id": 1, "sequence": 1, "created_at": 1})
    cursor = cursor.sort("_id", DESCENDING).limit(_FOUND_MAX)
    if milliseconds is not None:
        cursor = cursor.max_time_ms(milliseconds)
    return await cursor.to_list(_FOUND_MAX)


def _entry(document: _Document, store_time: datetime) -> FutureEntry:
    return FutureEntry(
        user_id=document["user_id"],
        sequence=document["sequence"],
        ahead_seconds=(document["created_at"] - store_time).total_seconds(),
    )
