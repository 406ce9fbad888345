"""Transactions of MongoDB behind the store's port.

Each step runs on a thread that uses the blocking driver. Motor passes every single command to a
thread. A lone write is four commands: with one hand-over for all of them, and the commands made
here, it takes 0.75 of the time and 0.6 of the CPU (2-core machine, median of 5 runs of 150 side by
side; PyMongo's asyncio client: 0.96 and 0.93).
"""

import asyncio
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeVar

from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import Account, Kind, Policy, Purchase, ReportKey, Transaction
from pydantic import ValidationError
from pymongo import ASCENDING, DESCENDING, MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection as MongoCollection
from pymongo.database import Database
from pymongo.errors import OperationFailure, WriteConcernError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from credit_server.store import schema
from credit_server.store.alert_documents import event_bson
from credit_server.store.app_documents import AppPolicyDocument
from credit_server.store.documents import PurchaseDocument, TransactionDocument
from credit_server.store.errors import translate, translated, unreadable
from credit_server.store.fields import DECODED
from credit_server.store.pipeline import run_pipelined
from credit_server.store.port import (
    AppKey,
    AppPolicy,
    Changes,
    CommitUnknown,
    Conflict,
    Interrupted,
    Reference,
    References,
    Rejected,
    StoreTransaction,
    StoreUnavailable,
    Unreadable,
    Void,
)
from credit_server.store.reading import RAW, read_account
from credit_server.store.writing import account_update, purchase_bson, transaction_bson

# The most updates in one command of MongoDB, which may have 48 MB. An account with credits in 1,000
# apps has about 40 kB, and an atomic batch may have 1,000 accounts.
_UPDATES_MAX = 256

# The most grants and holds in these updates. A hold with the longest purpose has 1.1 kB.
_ITEMS_MAX = 16_384

# The most documents that one command inserts. mongod answers a command within the store's timeout,
# and takes 0.2 s for this many entries (2-core machine).
_INSERTS_MAX = 1000

_DocumentT = TypeVar("_DocumentT", bound=Mapping[str, Any])
_ValueT = TypeVar("_ValueT")


class MongoWriter:
    """Makes transactions one after another, on one session and one thread of its own.

    A transaction belongs to its session, not to its connection. If the connection breaks, mongod
    may keep it open for transactionLifetimeLimitSeconds (60), and every writer of the same
    documents conflicts with it. The session's next transaction ends it at once, and mongod then
    rejects its late commands. See https://www.mongodb.com/docs/manual/reference/server-sessions/.
    """

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        """Create the session and the thread; nothing is sent yet.

        Args:
            client: The blocking client.
            database: The name of the database.
        """
        self._database = client.get_database(database, codec_options=DECODED)
        self._session = client.start_session()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="credit-writer")

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        """Begin a transaction: see the port. Nothing is sent before its first read or commit."""
        # Within a transaction, the concerns of a collection are ignored. They must be set here.
        self._session.start_transaction(
            read_concern=ReadConcern("snapshot"),
            write_concern=WriteConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        transaction = MongoTransaction(self._database, self._session, self._thread)
        try:
            yield transaction
        finally:
            if self._session.in_transaction:
                await transaction.abort()

    def close(self) -> None:
        """End the thread once it is idle, then the session."""
        self._thread.shutdown()
        self._session.end_session()


@dataclass(slots=True)
class MongoTransaction:
    """Reads of one snapshot, and writes that are sent together with the commit.

    Attributes:
        database: The database.
        session: A session with this transaction under way.
        thread: The thread on which the blocking driver's calls run.
    """

    database: Database[dict[str, Any]]
    session: ClientSession
    thread: Executor
    _changes: list[Changes] = field(default_factory=list, init=False)

    async def accounts(self, user_ids: Collection[int]) -> dict[int, Account]:
        """Return the accounts of those users that have one."""
        query = {"user_id": {"$in": list(user_ids)}}
        collection = self.database[schema.USER_CREDITS].with_options(codec_options=RAW)
        accounts = await self._find(collection, query, read_account)
        return {account.user_id: account for account in accounts}

    async def transactions(
        self, keys: Collection[AppKey], ids: Collection[str]
    ) -> list[Transaction]:
        """Return the transactions that have one of the keys or one of the ids."""
        wanted: list[dict[str, Any]] = [
            {"user_id": user_id, "app_id": app_id, "idempotency_key": key}
            for user_id, app_id, key in keys
        ]
        if ids:
            wanted.append({"_id": {"$in": [ObjectId(id_) for id_ in ids]}})
        if not wanted:
            return []
        collection = self.database[schema.CREDIT_TRANSACTIONS]
        return await self._find(collection, {"$or": wanted}, _transaction)

    async def policies(self, app_ids: Collection[int]) -> dict[int, Policy]:
        """Return the policies of those apps that have one."""
        query = {"app_id": {"$in": list(app_ids)}}
        found = await self._find(self.database[schema.APP_POLICIES], query, _policy)
        return {stored.app_id: stored.policy for stored in found}

    async def references(
        self, references: Collection[Reference], reports: Collection[ReportKey]
    ) -> References:
        """Return the entries of the history for references, and the purchases of reports."""

        def find() -> References:
            with translated():
                return self._known(references, reports)

        return await asyncio.get_running_loop().run_in_executor(self.thread, find)

    def _known(
        self, references: Collection[Reference], reports: Collection[ReportKey]
    ) -> References:
        # Clients send the references. One that is not an ObjectId cannot be the id of an entry.
        valid = [reference for reference in references if ObjectId.is_valid(reference[1])]
        entries = self._entries(valid)
        return References(
            entries=entries,
            latest_related={
                reference: found
                for reference in valid
                if (found := self._latest_related(*reference)) is not None
            },
            voided=self._voided(entries.values()),
            purchases={
                report: self._purchases(report, limit=1 + len(references)) for report in reports
            },
        )

    def _entries(self, references: Collection[Reference]) -> dict[Reference, Transaction]:
        if not references:
            return {}
        wanted = {
            "user_id": {"$in": list({user_id for user_id, _ in references})},
            "_id": {"$in": [ObjectId(id_) for _, id_ in references]},
        }
        cursor = self.database[schema.CREDIT_TRANSACTIONS].find(wanted, session=self.session)
        entries = _read(cursor, _transaction)
        found = {(entry.user_id, entry.id): entry for entry in entries}
        return {reference: found[reference] for reference in references if reference in found}

    def _latest_related(self, user_id: int, id_: str) -> Transaction | None:
        """Return the latest entry that refers to another one.

        Each reference is a command of its own. One aggregation for all of them would read every
        entry that refers to them, and a hold can have thousands of captures.
        """
        found = self.database[schema.CREDIT_TRANSACTIONS].find_one(
            {"user_id": user_id, "related_id": ObjectId(id_)},
            sort=[("sequence", DESCENDING)],
            hint=schema.BY_RELATED_ID,
            session=self.session,
        )
        return None if found is None else _read([found], _transaction)[0]

    def _voided(self, entries: Iterable[Transaction]) -> dict[Reference, Void]:
        """Return the latest VOID of each grant that paid for a USE; see `References`."""
        grants: dict[int, set[str]] = {}
        for entry in entries:
            if entry.kind is Kind.USE and entry.details.allocations:
                paid = {part.grant_id for part in entry.details.allocations if part.grant_id}
                grants.setdefault(entry.user_id, set()).update(paid)
        voided: dict[Reference, Void] = {}
        for user_id, ids in grants.items():
            cursor = self.database[schema.CREDIT_TRANSACTIONS].find(
                {
                    "user_id": user_id,
                    "related_id": {"$in": [ObjectId(id_) for id_ in ids]},
                    "type": Kind.VOID.value,
                },
                {"related_id": 1, "sequence": 1, "created_at": 1},
                sort=[("sequence", ASCENDING)],
                hint=schema.BY_RELATED_ID,
                session=self.session,
            )
            voided.update(
                (
                    (user_id, str(found["related_id"])),
                    Void(found["sequence"], found["created_at"]),
                )
                for found in cursor
            )
        return voided

    def _purchases(self, report: ReportKey, *, limit: int) -> list[Purchase]:
        user_id, app_id, report_id = report
        owned = {"$lt": [{"$ifNull": ["$refunded_credits", 0]}, "$credits"]}
        cursor = self.database[schema.PURCHASES].find(
            {"user_id": user_id, "app_id": app_id, "report_id": report_id, "$expr": owned},
            sort=[("sequence", DESCENDING)],
            hint=schema.BY_REPORT,
            limit=limit,
            session=self.session,
        )
        return _read(cursor, _purchase)

    async def write(self, changes: Changes) -> None:
        """Keep the changes for the commit, which reports conflicts."""
        self._changes.append(changes)

    async def commit(self, check: Callable[[], None] | None = None) -> None:
        """Write and commit: see the port."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self.thread, self._write_and_commit, check)

    async def abort(self) -> None:
        """Abort what has not been committed."""
        await asyncio.get_running_loop().run_in_executor(self.thread, self._abort)

    def _abort(self) -> None:
        # Checked again: if the caller was cancelled, its commit ran before this on the thread.
        if self.session.in_transaction:
            self.session.abort_transaction()

    async def _find(
        self,
        collection: MongoCollection[_DocumentT],
        query: Mapping[str, Any],
        convert: Callable[[_DocumentT], _ValueT],
    ) -> list[_ValueT]:
        # Converted on the thread: 64 accounts with 512 new grants and holds each take 0.5 s.
        def find() -> list[_ValueT]:
            with translated():
                return _read(collection.find(query, session=self.session), convert)

        return await asyncio.get_running_loop().run_in_executor(self.thread, find)

    def _write_and_commit(self, check: Callable[[], None] | None) -> None:
        """Write, check and commit.

        Only the server's answer proves that the commit did not happen. The driver may send the
        commit twice, and labels some of its own errors as transient although the first commit may
        have arrived.
        """
        try:
            for changes in self._changes:
                self._write(changes)
            if check is not None:
                check()
        except Exception as error:  # noqa: BLE001 - it is raised again
            _raise_not_written(error)
        else:
            try:
                self.session.commit_transaction()  # the driver retries it once
            except WriteConcernError as error:  # committed on the primary, not yet on a majority
                raise CommitUnknown(str(error)) from error
            except OperationFailure as error:
                known = translate(error)
                if isinstance(known, Conflict | Interrupted):
                    raise known from error
                raise CommitUnknown(str(error)) from error
            except Exception as error:
                raise CommitUnknown(f"{type(error).__name__}: {error}") from error

    def _write(self, changes: Changes) -> None:
        commands = [
            *_account_updates(changes),
            *_commands(
                "insert",
                schema.CREDIT_TRANSACTIONS,
                [transaction_bson(entry) for entry in changes.transactions],
            ),
            *_commands(
                "insert",
                schema.PURCHASES,
                [purchase_bson(purchase) for purchase in changes.purchases],
            ),
            *_commands(
                "update",
                schema.PURCHASES,
                [
                    {
                        "q": {"_id": ObjectId(each.purchase_id), "user_id": Int64(user_id)},
                        "u": {"$set": {"refunded_credits": Int64(each.refunded_credits)}},
                    }
                    for user_id, each in changes.refunded
                ],
            ),
            *_commands(
                "update",
                schema.APP_TOTALS,
                [
                    {
                        "q": {"app_id": Int64(app_id), "slot": Int64(changes.counter_shard)},
                        "u": {"$inc": {"total": Int64(delta)}},
                        "upsert": True,
                    }
                    for app_id, delta in changes.totals.items()
                ],
            ),
            *_commands(
                "insert", schema.ALERT_EVENTS, [event_bson(event) for event in changes.events]
            ),
        ]
        replies = run_pipelined(self.session, self.database.name, commands)
        for command, reply in zip(commands, replies, strict=True):
            if "updates" in command and reply["n"] != len(command["updates"]):
                raise Conflict(f"a document of {command['update']} has changed since it was read")


def _raise_not_written(error: Exception) -> NoReturn:
    """Raise the port's error for a write that failed before its commit was sent.

    Nothing has been or will be committed.
    """
    try:
        with translated():
            raise error
    except (Conflict, Interrupted, StoreUnavailable, Unreadable):
        raise
    except Exception as unexpected:
        raise Rejected(
            f"the write failed ({type(unexpected).__name__}: {unexpected})"
        ) from unexpected


def _transaction(document: dict[str, Any]) -> Transaction:
    return TransactionDocument.model_validate(document).to_transaction()


def _policy(document: dict[str, Any]) -> AppPolicy:
    return AppPolicyDocument.model_validate(document).to_policy()


def _purchase(document: dict[str, Any]) -> Purchase:
    return PurchaseDocument.model_validate(document).to_purchase()


def _read(
    documents: Iterable[_DocumentT], convert: Callable[[_DocumentT], _ValueT]
) -> list[_ValueT]:
    """Convert documents to the ledger's values.

    Raises:
        Unreadable: Some documents cannot be converted. The error has their users, or their apps for
            policies, which belong to no user.
    """
    values: list[_ValueT] = []
    faults: list[tuple[_DocumentT, ValidationError]] = []
    for document in documents:
        try:
            values.append(convert(document))
        except ValidationError as fault:
            faults.append((document, fault))
    if faults:
        first = faults[0][1]
        faulty = [document for document, _ in faults]
        raise unreadable(
            first,
            user_ids=[each["user_id"] for each in faulty if "user_id" in each],
            app_ids=[each["app_id"] for each in faulty if "user_id" not in each],
        ) from first
    return values


def _account_updates(changes: Changes) -> Iterator[dict[str, Any]]:
    """Yield the commands that change the accounts."""
    updates: list[dict[str, Any]] = []
    items = 0
    for before, account in changes.accounts:
        own = account.items if account.apps else 0
        if len(updates) == _UPDATES_MAX or (updates and items + own > _ITEMS_MAX):
            yield {"update": schema.USER_CREDITS, "updates": updates}
            updates, items = [], 0
        items += own
        updates.append(account_update(before, account))
    if updates:
        yield {"update": schema.USER_CREDITS, "updates": updates}


def _commands(
    name: Literal["insert", "update"], collection: str, parts: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the commands that insert documents or run updates, each within its limit."""
    key, most = ("documents", _INSERTS_MAX) if name == "insert" else ("updates", _UPDATES_MAX)
    for start in range(0, len(parts), most):
        yield {name: collection, key: parts[start : start + most]}
