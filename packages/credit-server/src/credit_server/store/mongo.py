"""The store on a MongoDB replica set, through motor.

Motor is imported in this package alone: its successor is PyMongo's own `AsyncMongoClient`, and
the change should touch these files only.
"""

import contextlib
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.objectid import ObjectId
from motor.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorClientSession,
    AsyncIOMotorCollection,
    AsyncIOMotorDatabase,
)
from pymongo import ASCENDING, InsertOne, UpdateOne
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from credit_server.ledger import Account, Purchase, Transaction
from credit_server.store import schema
from credit_server.store.documents import (
    AccountDocument,
    Document,
    PurchaseDocument,
    TransactionDocument,
)
from credit_server.store.port import (
    Changes,
    CommitUnknown,
    Conflict,
    StoreError,
    StoreUnavailable,
    Unit,
    UserKey,
)

_Documents = AsyncIOMotorCollection[dict[str, Any]]  # values are checked by the documents' models
_D = TypeVar("_D", bound=Document)

_DUPLICATE_KEY = 11000
_WRITE_CONFLICT = 112
_COMMIT_ATTEMPTS = 3
"""The driver itself repeats each commit once; what is unknown after that is the committer's."""


class StoreMisconfigured(StoreError):
    """The database is not what the server needs. The message says what to do."""


class MongoStore:
    """Keeps everything in a database of a MongoDB replica set or sharded cluster."""

    def __init__(
        self, uri: str, *, database: str, timeout_seconds: float = 5.0, page_size: int = 1000
    ) -> None:
        """Prepare; the first operation connects.

        Args:
            uri: A MongoDB connection string.
            database: The name of the database.
            timeout_seconds: How long to look for a primary, and half of how long to wait for an
                answer of it.
            page_size: How many entries of a list are read at a time.

        Raises:
            StoreMisconfigured: The connection string is not valid.
        """
        milliseconds = int(timeout_seconds * 1000)
        if not uri.startswith(("mongodb://", "mongodb+srv://")):
            raise StoreMisconfigured("CREDIT_MONGODB_URI is not valid: it begins with mongodb://")
        try:
            self._client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
                uri,
                appname="credit-server",
                tz_aware=True,
                connectTimeoutMS=milliseconds,
                serverSelectionTimeoutMS=milliseconds,
                socketTimeoutMS=2 * milliseconds,
            )
        except (PyMongoError, ValueError) as error:
            raise StoreMisconfigured(f"CREDIT_MONGODB_URI is not valid: {error}") from error
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
        self._accounts: _Documents = self._database[schema.USER_CREDITS]
        self._transactions: _Documents = self._database[schema.CREDIT_TRANSACTIONS]
        self._purchases: _Documents = self._database[schema.PURCHASES]
        self._totals: _Documents = self._database[schema.APP_TOTALS]

    async def check_topology(self) -> None:
        """Make sure that the server behind the URI can do transactions.

        Raises:
            StoreMisconfigured: It is a standalone server.
            StoreUnavailable: It cannot be reached.
        """
        with _translated():
            hello = await self._client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise StoreMisconfigured(
                "MongoDB runs as a standalone server, which has no transactions. Start it with"
                " --replSet NAME and run rs.initiate() once; one node is enough."
            )

    async def migrate(self) -> int:
        """Make or bring up to date the collections; return the schema's version. Safe to repeat."""
        with _translated():
            return await schema.migrate(self._database)

    async def verify_schema(self) -> None:
        """Make sure that the collections are what the server relies on.

        Raises:
            StoreMisconfigured: They are not; the message names every difference.
            StoreUnavailable: The store cannot be reached.
        """
        with _translated():
            drift = await schema.verify(self._database)
        if drift:
            raise StoreMisconfigured(
                f"The database '{self._database.name}' is not what this server needs:"
                f" {'; '.join(drift)}. Run: credit-server migrate"
            )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def new_id(self) -> str:
        """Make an id: see the port."""
        return str(ObjectId())

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Unit]:
        """Begin a unit of work: see the port. Nothing is sent before its first operation."""
        with _translated():
            session = await self._client.start_session()
        try:
            # The concerns of a collection are ignored within a transaction: they go here.
            session.start_transaction(
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern("majority"),
                read_preference=ReadPreference.PRIMARY,
            )
            yield _MongoUnit(
                session, self._accounts, self._transactions, self._purchases, self._totals
            )
        finally:
            # Ending a session gives up its transaction where it has not been committed.
            await session.end_session()

    async def account(self, user_id: int) -> Account | None:
        """Return a user's account: see the port."""
        with _translated():
            found = await self._accounts.find_one({"user_id": user_id})
        return None if found is None else AccountDocument.model_validate(found).to_account()

    async def app_total(self, app_id: int) -> int:
        """Return the sum of all balances in an app: see the port."""
        # A snapshot: slots are written by different lanes, and parts of different moments could
        # add up to what never was.
        total = 0
        with _translated():
            async with await self._client.start_session(snapshot=True) as session:
                cursor = self._totals.with_options(read_concern=ReadConcern()).find(
                    {"app_id": app_id}, {"_id": 0, "total": 1}, session=session
                )
                async for part in cursor:
                    total += part["total"]
        return total

    async def list_transactions(self, user_id: int) -> AsyncIterator[Sequence[Transaction]]:
        """Iterate over pages of transactions: see the port."""
        async for page in self._pages(self._transactions, user_id, TransactionDocument):
            yield [document.to_transaction() for document in page]

    async def list_purchases(self, user_id: int) -> AsyncIterator[Sequence[Purchase]]:
        """Iterate over pages of purchases: see the port."""
        async for page in self._pages(self._purchases, user_id, PurchaseDocument):
            yield [document.to_purchase() for document in page]

    async def _pages(
        self, collection: _Documents, user_id: int, model: type[_D]
    ) -> AsyncIterator[list[_D]]:
        """Read by ranges of the sequence, not by a cursor.

        A reader may be slow: a range holds nothing open on the store between pages, and goes on
        after a change of primary.
        """
        last = 0
        while True:
            with _translated():
                found = (
                    await collection.find({"user_id": user_id, "sequence": {"$gt": last}})
                    .sort("sequence", ASCENDING)
                    .limit(self._page_size)
                    .to_list(self._page_size)
                )
            if found:
                yield [model.model_validate(document) for document in found]
            if len(found) < self._page_size:
                return
            last = found[-1]["sequence"]

    async def ping(self) -> None:
        """Return when there is a primary that takes writes: see the port."""
        with _translated():
            hello = await self._client.admin.command("hello")
        if not hello.get("isWritablePrimary", False):
            raise StoreUnavailable("there is no primary")


class _MongoUnit:
    """One transaction of MongoDB."""

    def __init__(
        self,
        session: AsyncIOMotorClientSession,
        accounts: _Documents,
        transactions: _Documents,
        purchases: _Documents,
        totals: _Documents,
    ) -> None:
        self._session = session
        self._accounts = accounts
        self._transactions = transactions
        self._purchases = purchases
        self._totals = totals

    async def accounts(self, user_ids: Collection[int]) -> dict[int, Account]:
        with _translated():
            found = await self._accounts.find(
                {"user_id": {"$in": list(user_ids)}}, session=self._session
            ).to_list(None)
        accounts = (AccountDocument.model_validate(document).to_account() for document in found)
        return {account.user_id: account for account in accounts}

    async def transactions(
        self, keys: Collection[UserKey], ids: Collection[str]
    ) -> list[Transaction]:
        wanted: list[dict[str, Any]] = [
            {"user_id": user_id, "idempotency_key": key} for user_id, key in keys
        ]
        if ids:
            wanted.append({"_id": {"$in": [ObjectId(id_) for id_ in ids]}})
        if not wanted:
            return []
        with _translated():
            found = await self._transactions.find({"$or": wanted}, session=self._session).to_list(
                None
            )
        return [TransactionDocument.model_validate(document).to_transaction() for document in found]

    async def write(self, changes: Changes) -> None:
        with _translated():
            await self._write_accounts(changes)
            await self._insert(
                self._transactions,
                [TransactionDocument.from_transaction(entry) for entry in changes.transactions],
            )
            await self._insert(
                self._purchases,
                [PurchaseDocument.from_purchase(purchase) for purchase in changes.purchases],
            )
            await self._write_totals(changes)

    async def _write_accounts(self, changes: Changes) -> None:
        """Compare and set: an account that has changed meanwhile is not matched."""
        if not changes.accounts:
            return
        updates = [
            UpdateOne(
                {"user_id": account.user_id, "revision": Int64(revision)},
                {"$set": AccountDocument.from_account(account).to_bson()},
                # A new account is inserted; if it is there after all, its user_id is taken.
                upsert=revision == 0,
            )
            for revision, account in changes.accounts
        ]
        result = await self._accounts.bulk_write(updates, session=self._session)
        if result.matched_count + result.upserted_count != len(updates):
            raise Conflict("an account has changed since it was read")

    async def _insert(self, collection: _Documents, documents: Sequence[Document]) -> None:
        if documents:
            await collection.bulk_write(
                [InsertOne(document.to_bson()) for document in documents], session=self._session
            )

    async def _write_totals(self, changes: Changes) -> None:
        updates = [
            UpdateOne(
                {"app_id": Int64(app_id), "slot": Int64(changes.slot)},
                {"$inc": {"total": Int64(delta)}},
                upsert=True,
            )
            for app_id, delta in changes.totals.items()
        ]
        if updates:
            await self._totals.bulk_write(updates, session=self._session)

    async def commit(self) -> None:
        for attempt in range(1, _COMMIT_ATTEMPTS + 1):
            try:
                await self._session.commit_transaction()
            except PyMongoError as error:
                translated = _translate(error)
                if isinstance(translated, Conflict):
                    raise translated from error
                # Whatever else went wrong, nobody has said that the commit did not happen.
                if attempt == _COMMIT_ATTEMPTS:
                    await self._kill()
                    raise CommitUnknown(str(error)) from error
            else:
                return

    async def _kill(self) -> None:
        """Have mongod give up the transaction if it has not committed it.

        It belongs to the session and not to the broken connection: left alone it would hold its
        documents, and conflict with every repetition, for transactionLifetimeLimitSeconds (60).
        See https://www.mongodb.com/docs/manual/reference/command/killSessions/.
        """
        with contextlib.suppress(PyMongoError):  # mongod may be away, and the transaction with it
            await self._session.client.admin.command("killSessions", [self._session.session_id])


@contextmanager
def _translated() -> Iterator[None]:
    """Translate the driver's errors into the port's; others are bugs and pass."""
    try:
        yield
    except PyMongoError as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: PyMongoError) -> StoreError | None:
    """Say what is known of the effects.

    The labels are the server's and the driver's word; a duplicate key has none, and aborts the
    transaction all the same. See https://www.mongodb.com/docs/manual/core/transactions-in-applications/.
    """
    if error.has_error_label("UnknownTransactionCommitResult"):
        return CommitUnknown(str(error))
    if isinstance(error, ServerSelectionTimeoutError):  # labelled as transient, and is not
        return StoreUnavailable(str(error))
    if error.has_error_label("TransientTransactionError"):
        return Conflict(str(error))
    if isinstance(error, DuplicateKeyError):
        return Conflict(str(error))
    if isinstance(error, BulkWriteError):
        codes = {entry["code"] for entry in error.details.get("writeErrors", [])}
        return Conflict(str(error)) if codes & {_DUPLICATE_KEY, _WRITE_CONFLICT} else None
    if isinstance(error, OperationFailure) and error.code == _WRITE_CONFLICT:
        return Conflict(str(error))
    if isinstance(error, ConnectionFailure):
        return StoreUnavailable(str(error))
    if isinstance(error, ConfigurationError):
        return StoreMisconfigured(str(error))
    if isinstance(error, OperationFailure) and error.timeout:
        return StoreUnavailable(str(error))
    return None
