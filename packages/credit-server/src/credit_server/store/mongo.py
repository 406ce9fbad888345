"""The store on a MongoDB replica set, through motor.

Motor is imported in this package alone: its successor is PyMongo's own `AsyncMongoClient`, and
the change should touch these files only.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from bson.codec_options import CodecOptions
from bson.objectid import ObjectId
from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from credit_server.ledger import Account, Purchase, Transaction
from credit_server.store import schema
from credit_server.store.clock import ClockReading, reading_of
from credit_server.store.connection_string import Client, open_client
from credit_server.store.documents import (
    AccountDocument,
    PurchaseDocument,
    TransactionDocument,
)
from credit_server.store.failure import StoreMisconfigured, translated
from credit_server.store.port import StoreUnavailable, Writer
from credit_server.store.silence import explain
from credit_server.store.unit import MongoWriter

_Document = dict[str, Any]  # Any: the values are checked by the documents' models
_Documents = AsyncIOMotorCollection[_Document]
_Entry = TypeVar("_Entry", Transaction, Purchase)


class MongoStore:
    """Keeps everything in a database of a MongoDB replica set or sharded cluster."""

    def __init__(
        self,
        uri: str,
        *,
        database: str,
        timeout_seconds: float = 5.0,
        page_size: int = 1000,
    ) -> None:
        """Prepare; the first operation connects.

        Args:
            uri: A MongoDB connection string.
            database: The name of the database.
            timeout_seconds: How long to look for a primary, and how long to wait for each of its
                answers; at least 0.1. A read takes no longer than twice that.
            page_size: How many entries of a list are read at a time.

        Raises:
            StoreMisconfigured: The connection string is not valid.
        """
        self._client: Client = open_client(
            uri, name="credit-server", timeout_seconds=timeout_seconds
        )
        try:
            self._database: AsyncIOMotorDatabase[dict[str, Any]] = self._client.get_database(
                database,
                codec_options=CodecOptions(tz_aware=True),
                # What was acknowledged is on a majority: read that, from the primary.
                read_concern=ReadConcern("majority"),
                write_concern=WriteConcern("majority"),
                read_preference=ReadPreference.PRIMARY,
            )
        except PyMongoError as error:
            self._client.close()
            raise StoreMisconfigured(f"CREDIT_MONGODB_DATABASE is not valid: {error}") from error
        self._page_size = page_size
        self._timeout_seconds = timeout_seconds
        self._writers: list[MongoWriter] = []
        self._accounts: _Documents = self._database[schema.USER_CREDITS]
        self._transactions: _Documents = self._database[schema.CREDIT_TRANSACTIONS]
        self._purchases: _Documents = self._database[schema.PURCHASES]
        self._totals: _Documents = self._database[schema.APP_TOTALS]

    async def check_topology(self) -> None:
        """Make sure that the server behind the URI can do transactions.

        Raises:
            StoreMisconfigured: It is a standalone server, or a set that was never initiated.
            StoreUnavailable: It cannot be reached; the message says for each host why.
        """
        try:
            with translated():
                hello = await self._client.admin.command("hello")
        except StoreUnavailable as error:
            # At the start there is somebody to read it, and time to say more.
            if isinstance(error.__cause__, ServerSelectionTimeoutError):
                reason = explain(self._client.delegate.topology_description)
                raise StoreUnavailable(reason) from error
            raise
        if hello.get("isreplicaset"):
            raise StoreMisconfigured(
                "MongoDB's replica set was never initiated: run rs.initiate() once, in mongosh."
            )
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise StoreMisconfigured(
                "MongoDB runs as a standalone server, which has no transactions. Start it with"
                " --replSet NAME and run rs.initiate() once; one node is enough."
            )

    async def migrate(self) -> int:
        """Make or bring up to date the collections; return the schema's version. Safe to repeat."""
        with translated():
            return await schema.migrate(self._database)

    async def verify_schema(self) -> None:
        """Make sure that the collections are what the server relies on.

        Raises:
            StoreMisconfigured: They are not; the message names every difference.
            StoreUnavailable: The store cannot be reached.
        """
        with translated():
            drift = await schema.verify(self._database)
        if drift:
            raise StoreMisconfigured(
                f"The database '{self._database.name}' is not what this server needs:"
                f" {'; '.join(drift)}. Run: credit-server migrate"
            )

    def close(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()
        self._client.close()

    def new_id(self) -> str:
        """Make an id: see the port."""
        return str(ObjectId())

    def writer(self) -> Writer:
        """Make a writer: see the port."""
        writer = MongoWriter(self._client.delegate, self._database.name)
        self._writers.append(writer)
        return writer

    async def account(self, user_id: int) -> Account | None:
        """Return a user's account: see the port."""
        async with self._patience():
            found = await self._accounts.find_one({"user_id": user_id})
        return None if found is None else AccountDocument.model_validate(found).to_account()

    async def app_total(self, app_id: int) -> int:
        """Return the sum of all balances in an app: see the port."""
        # A snapshot: slots are written by different lanes, and parts of different moments could
        # add up to what never was.
        total = 0
        async with (
            self._patience(),
            await self._client.start_session(snapshot=True) as session,
        ):
            cursor = self._totals.with_options(read_concern=ReadConcern()).find(
                {"app_id": app_id}, {"_id": 0, "total": 1}, session=session
            )
            async for part in cursor:
                total += part["total"]
        return total

    def list_transactions(
        self, user_id: int, apps: frozenset[int] | None = None
    ) -> AsyncIterator[Sequence[Transaction]]:
        """Iterate over pages of transactions: see the port."""
        pages = self._pages if apps is None else partial(self._pages_of_apps, apps)
        return pages(self._transactions, user_id, _transaction)

    def list_purchases(
        self, user_id: int, apps: frozenset[int] | None = None
    ) -> AsyncIterator[Sequence[Purchase]]:
        """Iterate over pages of purchases: see the port."""
        pages = self._pages if apps is None else partial(self._pages_of_apps, apps)
        return pages(self._purchases, user_id, _purchase)

    async def _pages(
        self, collection: _Documents, user_id: int, translate: Callable[[_Document], _Entry]
    ) -> AsyncIterator[list[_Entry]]:
        """Read by ranges of the sequence, not by a cursor.

        A reader may be slow: a range holds nothing open on the store between pages, and goes on
        after a change of primary.
        """
        last, whole = 0, True
        while whole:
            async with self._patience():
                found = (
                    await collection.find({"user_id": user_id, "sequence": {"$gt": last}})
                    .sort("sequence", ASCENDING)
                    .limit(self._page_size)
                    .to_list(self._page_size)
                )
            whole = len(found) == self._page_size
            if found:
                last = found[-1]["sequence"]
                yield _given_away(found, translate)

    async def _pages_of_apps(
        self,
        apps: frozenset[int],
        collection: _Documents,
        user_id: int,
        translate: Callable[[_Document], _Entry],
    ) -> AsyncIterator[list[_Entry]]:
        """Read the entries of some apps: see `_pages`.

        Each range has a page's length in the sequence, not in what is found. A user has one entry
        at most for each number, so that the store looks at no more than a page of entries for
        one answer, and needs no index by app, however few of them are of these apps.
        """
        end = await self._last_sequence(collection, user_id)
        for last in range(0, end, self._page_size):
            bounds = {"$gt": last, "$lte": last + self._page_size}
            query = {"user_id": user_id, "sequence": bounds, "app_id": {"$in": sorted(apps)}}
            async with self._patience():
                found = (
                    await collection.find(query)
                    .sort("sequence", ASCENDING)
                    .to_list(self._page_size)
                )
            if found:
                yield _given_away(found, translate)

    async def _last_sequence(self, collection: _Documents, user_id: int) -> int:
        async with self._patience():
            last = await collection.find_one(
                {"user_id": user_id},
                {"_id": 0, "sequence": 1},
                sort=[("sequence", DESCENDING)],
            )
        return 0 if last is None else int(last["sequence"])

    async def ping(self) -> ClockReading:
        """Return the primary's time once there is one that takes writes: see the port."""
        asked_at = time.monotonic()
        async with self._patience():
            hello = await self._client.admin.command("hello")
        answered_at = time.monotonic()
        if not hello.get("isWritablePrimary", False):
            raise StoreUnavailable("there is no primary")
        return reading_of(hello, asked_at=asked_at, answered_at=answered_at)

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        """Translate the driver's errors, and wait no longer than its own timeouts allow.

        Motor's threads are few. Behind a store that hangs, reads queue up for them, and each
        would wait for all before it.
        """
        try:
            async with asyncio.timeout(2 * self._timeout_seconds):
                with translated():
                    yield
        except TimeoutError:
            raise StoreUnavailable("MongoDB did not answer in time") from None


def _transaction(document: _Document) -> Transaction:
    return TransactionDocument.model_validate(document).to_transaction()


def _purchase(document: _Document) -> Purchase:
    return PurchaseDocument.model_validate(document).to_purchase()


def _given_away(found: list[_Document], translate: Callable[[_Document], _Entry]) -> list[_Entry]:
    """Translate a page and keep nothing of it.

    What iterates over pages lives for as long as a reader takes: a hundred readers that took
    nothing held 30 MB of documents.
    """
    entries = [translate(document) for document in found]
    found.clear()
    return entries
