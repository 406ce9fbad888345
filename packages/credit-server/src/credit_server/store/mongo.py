"""The store on a MongoDB replica set."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from operator import itemgetter
from typing import Any, TypeVar

from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from credit_models.ledger import UINT32_MAX, Account, Kind, Transaction
from credit_models.timeouts import Timeout
from pydantic import ValidationError
from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from credit_server.store import migration, schema, sources
from credit_server.store.app_documents import AppPolicyDocument
from credit_server.store.connection import open_clients
from credit_server.store.documents import CounterDocument, DirectoryDocument, TransactionDocument
from credit_server.store.driver import Client, Collection, Database, Document, Driver, Session
from credit_server.store.errors import explain_unreachable, report, translated, unreadable
from credit_server.store.fields import DECODED, TEXT_ERRORS
from credit_server.store.history import (
    BalanceAt,
    GroupBy,
    HistoryQuery,
    Page,
    PurchaseQuery,
    PurchaseRow,
    Summary,
    TransactionQuery,
    TransactionRow,
)
from credit_server.store.leases import take_lease
from credit_server.store.log import MongoLog, timestamp_of
from credit_server.store.mongo_alert_events import MongoAlertEvents
from credit_server.store.mongo_checkpoints import MongoCheckpoints
from credit_server.store.mongo_webhooks import MongoWebhooks
from credit_server.store.port import (
    PAGE_SIZE,
    AppKey,
    AppPolicy,
    ClockReading,
    Conflict,
    DirectoryUser,
    DueAccount,
    ExternalId,
    Head,
    HoldRow,
    LogPage,
    LogPosition,
    StoreMisconfigured,
    StoreUnavailable,
    Unreadable,
    Writer,
)
from credit_server.store.queries import LISTED, NOT_LISTED, Finder, check_stored
from credit_server.store.reading import RAW, read_account
from credit_server.store.rows import purchase_row, transaction_row
from credit_server.store.shared_reads import LATE, SharedReads
from credit_server.store.transaction import MongoWriter

_BEGINNING = datetime.min.replace(tzinfo=UTC)

_Row = TypeVar("_Row", TransactionRow, PurchaseRow)
# Reads the page after a sequence.
_ReadPage = Callable[[int], Awaitable[list[Document]]]


class MongoStore:
    """Stores everything in a database of a MongoDB replica set or sharded cluster."""

    def __init__(
        self,
        uri: str,
        *,
        database: str,
        timeout_seconds: float = 5.0,
        page_size: int = PAGE_SIZE,
        driver: Driver = Driver.MOTOR,
    ) -> None:
        """Create the store; its first operation connects.

        Args:
            uri: A MongoDB connection string.
            database: The name of the database.
            timeout_seconds: How long to look for a primary, and how long to wait for each of its
                answers; at least 0.1. A read takes no longer than twice that.
            page_size: How many entries of a list are read and held at a time. A page is made into
                messages in one go, and other calls wait meanwhile.
            driver: The driver with which to read.

        Raises:
            StoreMisconfigured: The connection string is not valid.
        """
        self._clients = open_clients(
            uri, name="credit-server", timeout_seconds=timeout_seconds, driver=driver
        )
        try:
            self._database = _database(self._clients.reading, database)
        except PyMongoError as error:
            raise StoreMisconfigured(f"CREDIT_MONGODB_DATABASE is not valid: {error}") from error
        self._uri = uri
        self._page_size = page_size
        self._timeout_seconds = timeout_seconds
        self._writers: list[MongoWriter] = []
        self._log = MongoLog(self._clients.writing, database, timeout_seconds=timeout_seconds)
        self._accounts: Collection = self._database[schema.USER_CREDITS]
        self._raw_accounts = self._accounts.with_options(codec_options=RAW)
        self._transactions: Collection = self._database.get_collection(
            schema.CREDIT_TRANSACTIONS, codec_options=LISTED
        )
        self._purchases: Collection = self._database.get_collection(
            schema.PURCHASES, codec_options=LISTED
        )
        self._finder = Finder(self._clients, self._database)
        self._totals: Collection = self._database[schema.APP_TOTALS]
        self._policies: Collection = self._database[schema.APP_POLICIES]
        self._leases: Collection = self._database[schema.LEASES]
        self.webhooks = MongoWebhooks(self._database, self._deadline)
        self.alert_events = MongoAlertEvents(
            self._clients, self._database, self.webhooks, self._deadline
        )
        self.checkpoints = MongoCheckpoints(self._database, self._deadline)
        self._directory: Collection = self._database[schema.DIRECTORY]
        self._counters: Collection = self._database[schema.COUNTERS]
        read_seconds_max = 2 * timeout_seconds
        self._account_reads = SharedReads(self._account_documents, seconds_max=read_seconds_max)
        self._later_account_reads = SharedReads(
            self._later_account_documents, seconds_max=read_seconds_max
        )
        self._total_reads = SharedReads(self._app_totals, seconds_max=read_seconds_max)
        # The parts of ids after the time: 5 random bytes, and a counter with a random start.
        self._id_origin = secrets.token_hex(5)
        self._id_count = count(secrets.randbits(24))

    async def check_topology(self) -> None:
        """Check that the server behind the URI supports transactions.

        Raises:
            StoreMisconfigured: It is a standalone server, or a set that was never initiated.
            StoreUnavailable: It cannot be reached; the message gives the reason for each host.
        """
        try:
            with translated():
                hello = await self._clients.reading.admin.command("hello")
        except StoreUnavailable as error:
            # At the start an operator reads the message, so it gives the reason for each host.
            if isinstance(error.__cause__, ServerSelectionTimeoutError):
                reason = explain_unreachable(self._clients.reading.topology_description)
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

    async def migrate(
        self, *, shards: bool = True, on_wait: Callable[[], None] = lambda: None
    ) -> int:
        """Create or update the collections; return the schema's version. Safe to repeat.

        Args:
            shards: Whether to shard collections if MongoDB is a sharded cluster.
            on_wait: Called once if another process migrates the database. This one waits.
        """
        clients = open_clients(
            self._uri,
            name="credit-server migrate",
            timeout_seconds=self._timeout_seconds,
            answers_are_timed=False,
        )
        try:
            with translated():
                return await migration.migrate(
                    _database(clients.reading, self._database.name), shards=shards, on_wait=on_wait
                )
        finally:
            await clients.close()

    async def planned_migration(self, *, shards: bool = True) -> list[str]:
        """Return what `migrate` would do, one sentence for each step. Nothing is changed."""
        with translated():
            steps = await migration.plan(self._database, shards=shards)
        return [step.sentence for step in steps]

    async def verify_schema(self) -> None:
        """Check that the collections are what the server relies on.

        Raises:
            StoreMisconfigured: They are not; the message lists every difference.
            StoreUnavailable: The store cannot be reached.
        """
        with translated():
            drift = await schema.verify(self._database)
        if drift:
            raise StoreMisconfigured(
                f"The database '{self._database.name}' is not what this server needs:"
                f" {'; '.join(drift)}. Run: credit-server migrate"
            )

    async def close(self) -> None:
        """Close all connections."""
        await self._log.close()
        for writer in self._writers:
            writer.close()
        await self._clients.close()

    def new_id(self) -> str:
        """Return a new id: see the port.

        It is made like an `ObjectId`, in a fifth of the time of making one and converting it. See
        https://www.mongodb.com/docs/manual/reference/bson-types/#objectid.
        """
        return f"{int(time.time()):08x}{self._id_origin}{next(self._id_count) & 0xFFFFFF:06x}"

    def writer(self) -> Writer:
        """Return a new writer: see the port."""
        writer = MongoWriter(self._clients.writing, self._database.name)
        self._writers.append(writer)
        return writer

    async def account(self, user_id: int) -> Account | None:
        """Return a user's account: see the port."""
        found = await self._account_reads.read(user_id)
        # Converted after the shared query: a bad document must not fail other users' reads.
        return None if found is None else _account(found, user_id)

    async def account_since(self, user_id: int, position: LogPosition) -> Account | None:
        """Return a user's account: see the port."""
        found = await self._later_account_reads.read((timestamp_of(position), user_id))
        return None if found is None else _account(found, user_id)

    async def _account_documents(self, user_ids: Sequence[int]) -> dict[int, RawBSONDocument]:
        async with self._deadline():
            return await self._find_accounts(user_ids)

    async def _later_account_documents(
        self, keys: Sequence[tuple[Timestamp, int]]
    ) -> dict[tuple[Timestamp, int], RawBSONDocument]:
        latest = max(time for time, _ in keys)
        async with self._deadline(), self._clients.causal(since=latest) as session:
            found = await self._find_accounts([user_id for _, user_id in keys], session)
        return {key: found[key[1]] for key in keys if key[1] in found}

    async def _find_accounts(
        self, user_ids: Sequence[int], session: Session | None = None
    ) -> dict[int, RawBSONDocument]:
        # Without a batch size, mongod returns 101 documents first.
        cursor = self._raw_accounts.find({"user_id": {"$in": user_ids}}, session=session)
        found = await cursor.batch_size(len(user_ids) + 1).to_list(None)
        return {document["user_id"]: document for document in found}

    async def latest_revision(self, user_id: int) -> int:
        """Return a user's revision: see the port."""
        confirmed = self._accounts.with_options(read_concern=ReadConcern("linearizable"))
        async with self._deadline():
            found = await confirmed.find_one({"user_id": user_id}, {"revision": 1})
        return 0 if found is None else int(found["revision"])

    async def app_total(self, app_id: int) -> int:
        """Return the sum of all balances in an app: see the port."""
        total = await self._total_reads.read(app_id) or 0
        if isinstance(total, Unreadable):
            report(total)
            raise total
        return total

    async def _app_totals(self, app_ids: Sequence[int]) -> dict[int, int | Unreadable]:
        # A snapshot: different shards write the counter shards, and values of different moments
        # could add up to a total that never existed.
        totals: dict[int, int | Unreadable] = {}
        async with (
            self._deadline(),
            self._clients.snapshot() as session,
        ):
            cursor = self._totals.with_options(read_concern=ReadConcern()).find(
                {"app_id": {"$in": app_ids}},
                {"_id": 0, "app_id": 1, "total": 1},
                session=session,
            )
            async for part in cursor:
                app_id, total = part["app_id"], totals.get(part["app_id"], 0)
                if not isinstance(part.get("total"), int):
                    # Returned, not raised: the query is shared with reads of other apps.
                    totals[app_id] = Unreadable(f"a total of app {app_id} is no number")
                elif not isinstance(total, Unreadable):
                    totals[app_id] = total + part["total"]
        return totals

    async def hold_entries(
        self,
        user_id: int,
        app_id: int,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
        limit: int,
    ) -> Sequence[HoldRow]:
        """Return holds with the latest entry of each: see the port."""
        entries = self._database[schema.CREDIT_TRANSACTIONS]
        async with self._deadline(), self._clients.snapshot() as session:
            of_snapshot = entries.with_options(read_concern=ReadConcern())
            if stored_sequence:
                await check_stored(of_snapshot, user_id, stored_sequence, session)
            query = {
                "user_id": user_id,
                "app_id": app_id,
                "type": Kind.HOLD.value,
                "sequence": {"$gt": after_sequence},
            }
            cursor = of_snapshot.find(query, session=session).hint(schema.BY_HOLD)
            placed = await cursor.sort("sequence", ASCENDING).limit(limit).to_list(None)
            # One command for each: an aggregation would read all entries of every hold.
            latest = [
                await of_snapshot.find_one(
                    {"user_id": user_id, "related_id": hold["_id"]},
                    sort=[("sequence", DESCENDING)],
                    hint=schema.BY_RELATED_ID,
                    session=session,
                )
                for hold in placed
            ]
            return [
                HoldRow(_transaction(hold), None if related is None else _transaction(related))
                for hold, related in zip(placed, latest, strict=True)
            ]

    async def policy(self, app_id: int) -> AppPolicy:
        """Return the policy of an app: see the port."""
        return await self._find_policy(self._policies, app_id)

    async def latest_policy(self, app_id: int) -> AppPolicy:
        """Return the policy of an app: see the port."""
        confirmed = self._policies.with_options(read_concern=ReadConcern("linearizable"))
        return await self._find_policy(confirmed, app_id)

    async def _find_policy(self, policies: Collection, app_id: int) -> AppPolicy:
        async with self._deadline():
            found = await policies.find_one({"app_id": app_id})
        return _policy(app_id, found)

    async def set_policy(self, changed: AppPolicy) -> None:
        """Store the policy of an app: see the port."""
        document = AppPolicyDocument.from_policy(changed).to_bson()
        absent = {name: "" for name in ("caps", "alerts") if name not in document}
        unset = {"$unset": absent} if absent else {}
        async with self._deadline():
            result = await self._policies.update_one(
                {"app_id": Int64(changed.app_id), "revision": Int64(changed.revision - 1)},
                {"$set": document, **unset},
                # A new policy is inserted. If another server has inserted it first, its app_id is
                # taken.
                upsert=changed.revision == 1,
            )
        if not result.matched_count and result.upserted_id is None:
            raise Conflict(f"the policy of app {changed.app_id} has changed since it was read")

    async def find_user(self, name: int | ExternalId) -> DirectoryUser | None:
        """Return a user of the directory: see the port."""
        query = {"_id": name} if isinstance(name, int) else _external(*name)
        async with self._deadline():
            found = await self._directory.find_one(query)
            return None if found is None else DirectoryDocument.model_validate(found).to_user()

    async def next_user_id(self, first: int) -> int | None:
        """Return a new number of a user: see the port."""
        # Of a missing document, `$last` is null, which `$max` ignores.
        following = {"$max": [{"$add": ["$last", 1]}, Int64(first)]}
        while True:
            # The session's read sees every account that was stored before the number was taken.
            async with self._deadline(), self._clients.causal() as session:
                counter = await self._counters.find_one_and_update(
                    {"_id": "user_ids"},
                    [{"$set": {"last": {"$min": [following, Int64(UINT32_MAX + 1)]}}}],
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                    session=session,
                )
                assert counter is not None  # noqa: S101 - for the type checker; it was just written
                last = CounterDocument.model_validate(counter).last
                if last > UINT32_MAX:
                    return None
                if not await self._accounts.find_one(
                    {"user_id": last}, {"_id": 1}, session=session
                ):
                    return last

    async def add_user(self, user: DirectoryUser) -> DirectoryUser:
        """Store a user of the directory: see the port."""
        document = DirectoryDocument.from_user(user).to_bson()
        name = _external(document.pop("app_id"), document.pop("external_id"))
        async with self._deadline():
            # One command, whose answer waits for a majority also if it writes nothing: a read after
            # a duplicate key could miss the user that another server is just storing.
            stored = await self._directory.find_one_and_update(
                name,
                {"$setOnInsert": document},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            return DirectoryDocument.model_validate(stored).to_user()

    async def due_accounts(
        self, before: datetime, *, after: DueAccount | None = None, limit: int
    ) -> Sequence[DueAccount]:
        """Return accounts in which something is due: see the port."""
        query: Document = {"due_at": {"$lte": before}}
        if after is not None:
            query = {
                "$or": [
                    {"due_at": after.due_at, "user_id": {"$gt": after.user_id}},
                    {"due_at": {"$gt": after.due_at, "$lte": before}},
                ]
            }
        # Whole accounts are not read here: one that cannot be read must not hide the others.
        fields = {"user_id": 1, "due_at": 1, "due": _due_apps(before)}
        async with self._deadline():
            cursor = self._accounts.find(query, fields).hint(schema.BY_DUE_AT)
            cursor = cursor.sort([("due_at", ASCENDING), ("user_id", ASCENDING)]).limit(limit)
            found = await cursor.batch_size(limit + 1).to_list(None)
        return [_due_account(document) for document in found]

    async def heads(self, app_id: int, *, page_size: int) -> AsyncIterator[Sequence[Head]]:
        """Iterate over the heads of the users in an app: see the port.

        No index has the apps of accounts, and one would cost every write. So each command reads a
        bounded number of accounts, of any apps.
        """
        # The projection keeps the first balance that satisfies the condition: an app has one.
        fields = {"_id": 0, "user_id": 1, "balances": {"$elemMatch": {"app_id": app_id}}}
        confirmed = self._accounts.with_options(read_concern=ReadConcern("linearizable"))
        async with self._clients.causal() as session:
            # A linearizable read misses nothing that was acknowledged, also right after a change of
            # primary. The later reads of the session see at least the same.
            async with self._deadline():
                await confirmed.find_one({}, {"_id": 1}, session=session)
            last, full = 0, True
            while full:
                async with self._deadline():
                    after = {"user_id": {"$gt": last}}
                    cursor = self._accounts.find(after, fields, session=session)
                    cursor = cursor.hint(schema.BY_USER).sort("user_id", ASCENDING)
                    found = await cursor.limit(page_size).batch_size(page_size + 1).to_list(None)
                full = len(found) == page_size
                last = found[-1]["user_id"] if full else last
                yield [
                    Head(each["user_id"], balance["head"])
                    for each in found
                    for balance in each.get("balances", ())
                    if "head" in balance
                ]

    async def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take a lease, or extend it: see the port."""
        async with self._deadline():
            return await take_lease(self._leases, name, owner, seconds)

    def list_transactions(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[TransactionRow]]:
        """Iterate over pages of transactions: see the port."""
        read = self._reader(self._transactions, user_id, apps, stored_sequence)
        return self._pages(read, after_sequence, transaction_row)

    def list_purchases(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[PurchaseRow]]:
        """Iterate over pages of purchases: see the port."""
        read = self._reader(self._purchases, user_id, apps, stored_sequence)
        return self._pages(read, after_sequence, purchase_row)

    def _reader(
        self,
        collection: Collection,
        user_id: int,
        apps: frozenset[int] | None,
        stored_sequence: int,
    ) -> _ReadPage:
        if apps is None:
            return partial(self._page, collection, user_id, stored_sequence)
        return partial(self._page_of_apps, collection, user_id, sorted(apps), stored_sequence)

    async def _pages(
        self, read: _ReadPage, last: int, to_row: Callable[[Document], _Row]
    ) -> AsyncIterator[list[_Row]]:
        """Read by ranges of the sequence, not by a cursor.

        A reader may be slow. A range keeps nothing open on the store between pages, and works after
        a change of primary.
        """
        full = True
        while full:
            async with self._deadline():
                found = await read(last)
            full = len(found) == self._page_size
            if found:
                last = found[-1]["sequence"]
                yield _drain(found, to_row)

    async def _page(
        self, collection: Collection, user_id: int, stored_sequence: int, last: int
    ) -> list[Document]:
        query = {"user_id": user_id, "sequence": {"$gt": last}}
        if stored_sequence <= last:
            return await self._find(collection, query, schema.BY_SEQUENCE)
        async with self._clients.causal() as session:
            await check_stored(self._transactions, user_id, stored_sequence, session)
            return await self._find(collection, query, schema.BY_SEQUENCE, session)

    async def _page_of_apps(
        self,
        collection: Collection,
        user_id: int,
        apps: Sequence[int],
        stored_sequence: int,
        last: int,
    ) -> list[Document]:
        """Read a page of the entries in some apps.

        mongod merges one scan of the index for each app, and reads no entry beyond the page. All
        scans read one snapshot: see `Finder.page`.
        """
        of_snapshot = collection.with_options(read_concern=ReadConcern())
        found: list[Document] = []
        async with self._clients.snapshot() as session:
            if stored_sequence > last:
                transactions = self._transactions.with_options(read_concern=ReadConcern())
                await check_stored(transactions, user_id, stored_sequence, session)
            for start in range(0, len(apps), sources.SCANS_MAX):
                bounds = {"$gt": last}
                if len(found) == self._page_size:
                    bounds["$lt"] = found[-1]["sequence"]
                some = {"$in": apps[start : start + sources.SCANS_MAX]}
                query = {"user_id": user_id, "app_id": some, "sequence": bounds}
                more = await self._find(of_snapshot, query, schema.BY_APP_AND_SEQUENCE, session)
                found += more
                more.clear()  # motor's future keeps the list until the garbage collector runs
                found.sort(key=itemgetter("sequence"))
                del found[self._page_size :]
        return found

    async def _find(
        self,
        collection: Collection,
        query: Document,
        index: str,
        session: Session | None = None,
    ) -> list[Document]:
        # Without the hint mongod tries plans on the current data, and may keep one that is good
        # for a short history only.
        cursor = collection.find(query, NOT_LISTED, session=session).hint(index)
        # Without a batch size, mongod returns 101 documents first.
        cursor = cursor.sort("sequence", ASCENDING).limit(self._page_size)
        return await cursor.batch_size(self._page_size + 1).to_list(None)

    async def query_transactions(self, query: TransactionQuery) -> Page[TransactionRow]:
        """Return a page of transactions: see the port."""
        async with self._deadline():
            return await self._finder.page(sources.TRANSACTIONS, query)

    async def query_purchases(self, query: PurchaseQuery) -> Page[PurchaseRow]:
        """Return a page of purchases: see the port."""
        async with self._deadline():
            return await self._finder.page(sources.PURCHASES, query)

    async def find_transaction(self, name: str | AppKey) -> TransactionRow | None:
        """Return the transaction with an id or with a key: see the port."""
        async with self._deadline():
            if isinstance(name, str):
                return await self._finder.by_id(name)
            return await self._finder.by_key(name)

    async def summarize(self, query: HistoryQuery, group_by: GroupBy) -> Summary:
        """Return sums of transactions in a span of time: see the port."""
        async with self._deadline():
            return await self._finder.summarize(query, group_by)

    async def balance_at(
        self, user_id: int, app_id: int, *, end: int, at: datetime | None = None
    ) -> BalanceAt:
        """Return a user's balance in an app at some point: see the port."""
        async with self._deadline():
            return await self._finder.balance_at(user_id, app_id, end=end, at=at)

    def follow_log(self) -> AsyncGenerator[LogPage, None]:
        """Iterate over what is committed from now on: see the port."""
        return self._log.follow()

    async def read_log(self, after: bytes, app_id: int, *, limit: int) -> LogPage:
        """Return the transactions in an app after a position: see the port."""
        async with self._deadline():
            return await asyncio.to_thread(self._log.page, after, app_id, limit=limit)

    async def ping(self) -> ClockReading:
        """Return the time of a primary that accepts writes: see the port."""
        asked_at = time.monotonic()
        async with self._deadline():
            hello = await self._clients.reading.admin.command("hello")
        answered_at = time.monotonic()
        if not hello.get("isWritablePrimary", False):
            raise StoreUnavailable("there is no primary")
        return reading_of(hello, asked_at=asked_at, answered_at=answered_at)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        """Translate the driver's errors, and wait no longer than its timeouts allow.

        Motor has few threads. If the store hangs, reads queue up for them, and each would wait for
        all reads before it.
        """
        try:
            async with Timeout(2 * self._timeout_seconds):
                with translated():
                    yield
        except TimeoutError:
            raise StoreUnavailable(LATE) from None


# Any: what the driver decodes has no narrower type.
def reading_of(hello: Mapping[str, Any], *, asked_at: float, answered_at: float) -> ClockReading:
    """Return the reading in MongoDB's answer to `hello`.

    Args:
        hello: The answer.
        asked_at: The monotonic clock when the command was sent.
        answered_at: The monotonic clock when the answer was received.
    """
    # BSON dates are UTC; the driver decodes a command's answer without a time zone.
    local_time = hello["localTime"].replace(tzinfo=UTC)
    return ClockReading(
        store_seconds=local_time.timestamp(), asked_at=asked_at, answered_at=answered_at
    )


def _policy(app_id: int, found: Document | None) -> AppPolicy:
    """Return the policy of a document; the default one if there is none."""
    if found is None:
        return AppPolicy(app_id=app_id)
    try:
        return AppPolicyDocument.model_validate(found).to_policy()
    except ValidationError as error:
        fault = unreadable(error, app_ids=[app_id])
        report(fault)
        raise fault from error


def _external(app_id: int, external_id: str) -> Document:
    """Return the query for the user with an external id."""
    return {"app_id": app_id, "external_id": external_id}


def _transaction(document: Document) -> Transaction:
    return TransactionDocument.model_validate(document).to_transaction()


def _account(found: RawBSONDocument, user_id: int) -> Account:
    try:
        return read_account(found)
    except ValidationError as error:
        fault = unreadable(error, user_ids=[user_id])
        report(fault)
        raise fault from error


def _due_account(document: Document) -> DueAccount:
    """Return an account in which something is due, even if its document is not valid.

    The result for an account that cannot be settled has no apps, so that the caller skips it.
    """
    due_at, user_id = document["due_at"], document.get("user_id")
    apps = {app["app_id"]: app["due"] for app in document["due"]}
    sound = isinstance(due_at, datetime) and isinstance(user_id, int)
    return DueAccount(
        due_at=due_at if isinstance(due_at, datetime) else _BEGINNING,
        user_id=user_id if isinstance(user_id, int) else 0,
        due=apps if sound else {},
    )


def _due_apps(before: datetime) -> Document:
    """Return the expression of the apps of an account in which something is due, with its count.

    It has a value for a document of any form, because one error would hide all accounts.
    """

    def due(items: str, item: str, time: str) -> Document:
        condition = [
            {"$eq": [{"$type": f"$${item}.{time}"}, "date"]},
            {"$lte": [f"$${item}.{time}", before]},
        ]
        array = {"$cond": [{"$isArray": items}, items, []]}
        return {"$filter": {"input": array, "as": item, "cond": {"$and": condition}}}

    def count(items: str, time: str) -> Document:
        return {"$size": due(f"$$app.{items}", "item", time)}

    counts = [
        count("grants", "ends_at"),
        count("scheduled", "starts_at"),
        count("holds", "ends_at"),
    ]
    app_id = {"$cond": [{"$isNumber": "$$app.app_id"}, "$$app.app_id", 0]}
    app = {"app_id": app_id, "due": {"$add": counts}}
    return {"$map": {"input": due("$apps", "app", "due_at"), "as": "app", "in": app}}


def _database(client: Client, name: str) -> Database:
    return client.get_database(
        name,
        codec_options=DECODED.with_options(unicode_decode_error_handler=TEXT_ERRORS),
        # Acknowledged writes are on a majority: read those, from the primary.
        read_concern=ReadConcern("majority"),
        write_concern=WriteConcern("majority"),
        read_preference=ReadPreference.PRIMARY,
    )


def _drain(found: list[Document], to_row: Callable[[Document], _Row]) -> list[_Row]:
    """Make the rows of a page and release its documents.

    An iterator over pages lives as long as its reader: a hundred readers that read nothing held
    30 MB of documents.
    """
    rows = [to_row(document) for document in found]
    found.clear()
    return rows
