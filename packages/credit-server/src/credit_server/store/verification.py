"""Read a whole ledger for `credit-server verify`: every document, in the order of its user.

The accounts, entries and purchases of a range of users are read at one snapshot, as three streams
in the order of indexes. A batch of a stream is bounded, so that the memory does not grow with the
ledger or with a history. An account and its history are written in one transaction of the store,
so each range is consistent by itself.

MongoDB keeps a snapshot for `minSnapshotHistoryWindowInSeconds`, 300 by default.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from credit_models.ledger import UINT32_MAX, Account, AlertEvent, Kind, Purchase, Transaction
from pydantic import ValidationError
from pymongo import ASCENDING, MongoClient, ReadPreference
from pymongo.client_session import ClientSession
from pymongo.cursor import Cursor

from credit_server.store import schema
from credit_server.store.alert_documents import AlertEventDocument
from credit_server.store.documents import (
    AccountDocument,
    PurchaseDocument,
    TransactionDocument,
)
from credit_server.store.driver import Document
from credit_server.store.errors import all_translated
from credit_server.store.fields import DECODED
from credit_server.store.report import connected

# The documents of one batch of a stream: about 2 MB of BSON, and 10 MB decoded.
_BATCH = 2000

# The ids that one query looks up.
_LOOKED_UP = 500

_USER_INDEXES = {
    schema.USER_CREDITS: ("user_id", ("user_id",)),
    schema.CREDIT_TRANSACTIONS: (schema.BY_SEQUENCE, ("user_id", "sequence")),
    schema.PURCHASES: (schema.BY_SEQUENCE, ("user_id", "sequence")),
}

_T = TypeVar("_T")


class BadDocument(NamedTuple):
    """A document that this release cannot read.

    Attributes:
        collection: Its collection.
        id: Its id, as text.
        user_id: Its user; 0: it has none that is valid.
        sequence: Its sequence; None: it has none that is valid.
        reason: The fields that are not valid.
    """

    collection: str
    id: str
    user_id: int
    sequence: int | None
    reason: str


class AccountRecord(NamedTuple):
    """An account, with the times that the document stores for the sweeper."""

    account: Account
    due_at: datetime | None
    app_due_at: Mapping[int, datetime | None]


class Span(NamedTuple):
    """A range of users from `first`, inclusive, to `end`, exclusive; None: no bound."""

    first: int | None
    end: int | None


class UserRecords(NamedTuple):
    """The documents of one user. The iterators are valid until the next user is read."""

    user_id: int
    accounts: Iterator[AccountRecord | BadDocument]
    entries: Iterator[Transaction | BadDocument]
    purchases: Iterator[Purchase | BadDocument]


class TransferIn(NamedTuple):
    """The sum of the entries of a transfer's target."""

    first_id: str
    credits: int


async def schema_drift(uri: str, *, database: str, timeout_seconds: float) -> list[str]:
    """Return how the schema differs from that of this release, one sentence per difference.

    Raises:
        StoreError: The store cannot be reached, or rejects a command.
    """
    with all_translated():
        async with connected(uri, timeout_seconds=timeout_seconds) as client:
            return await schema.verify(
                client.get_database(database, read_preference=ReadPreference.PRIMARY)
            )


@contextmanager
def open_client(
    uri: str, *, name: str, timeout_seconds: float
) -> "Iterator[MongoClient[Document]]":
    """Connect to a store, and translate the errors of what is done with the client.

    Args:
        uri: The connection string.
        name: The name that the store's log shows.
        timeout_seconds: How long to look for a server.

    Raises:
        StoreError: The store cannot be reached, or rejects a command.
    """
    with all_translated():
        client: MongoClient[Document] = MongoClient(
            uri,
            appname=name,
            tz_aware=True,
            serverSelectionTimeoutMS=int(timeout_seconds * 1000),
        )
        with client:
            yield client


@contextmanager
def open_verification(uri: str, database: str, timeout_seconds: float) -> "Iterator[Verification]":
    """Connect to a database, to read all of it.

    Raises:
        StoreError: The store cannot be reached, or rejects a command.
    """
    name = "credit-server verify"
    with open_client(uri, name=name, timeout_seconds=timeout_seconds) as client:
        yield Verification(client, database)


class Verification:
    """Reads a ledger."""

    def __init__(self, client: MongoClient[Document], database: str) -> None:
        self._client = client
        self._database = client.get_database(
            database, codec_options=DECODED, read_preference=ReadPreference.PRIMARY
        )
        self._session: ClientSession | None = None
        self._indexed = all(
            name in self._database[collection].index_information()
            for collection, (name, _) in _USER_INDEXES.items()
        )

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads within the context see one snapshot."""
        with all_translated(), self._client.start_session(snapshot=True) as session:
            self._session = session
            try:
                yield
            finally:
                self._session = None

    def estimated_entries(self) -> int:
        """Return about how many entries there are."""
        with all_translated():
            return self._database[schema.CREDIT_TRANSACTIONS].estimated_document_count()

    def identity(self) -> str:
        """Return what identifies the database: its name, and MongoDB's id of its transactions.

        A collection that is created again has another id. The hosts identify nothing: an embedded
        mongod has another port at each start.
        """
        with all_translated():
            found = self._database.list_collections(filter={"name": schema.CREDIT_TRANSACTIONS})
            ids = [each["info"]["uuid"] for each in found]
        return "/".join([self._database.name, *(str(id_) for id_ in ids)])

    def next_span(self, first: int | None, entries: int) -> Span:
        """Return a range of users that begins with one and has about some number of entries.

        Only the index is read. If the indexes are missing, one range has all users, because each
        range would sort the whole collection.
        """
        if not self._indexed:
            return Span(first, None)
        with all_translated():
            last = self._user_after(first, entries)
            if last is None or last != first:
                return Span(first, last)
            # One user has more entries than a range should have.
            return Span(first, self._user_after(last + 1, 0))

    def _user_after(self, first: int | None, entries: int) -> int | None:
        """Return the user of the entry that follows some number of entries."""
        bound = Int64(0) if first is None else Int64(first)
        cursor = (
            self._database[schema.CREDIT_TRANSACTIONS]
            .find({"user_id": {"$gte": bound}}, {"_id": 0, "user_id": 1})
            .sort([("user_id", ASCENDING), ("sequence", ASCENDING)])
            .hint(schema.BY_SEQUENCE)
            .skip(entries)
            .limit(1)
        )
        found = next(cursor, None)
        return None if found is None else int(found["user_id"])

    def users(self, span: Span, bad: list[BadDocument]) -> Iterator[UserRecords]:
        """Iterate over the users of a range, each with all its documents.

        Args:
            span: The range.
            bad: Receives the documents that belong to no user.
        """
        accounts = _Stream(self._ordered(schema.USER_CREDITS, span), _account, bad)
        entries = _Stream(self._ordered(schema.CREDIT_TRANSACTIONS, span), _entry, bad)
        purchases = _Stream(self._ordered(schema.PURCHASES, span), _purchase, bad)
        while True:
            heads = [each.user_id for each in (accounts, entries, purchases)]
            user_id = min((head for head in heads if head is not None), default=None)
            if user_id is None:
                return
            yield UserRecords(
                user_id, accounts.of(user_id), entries.of(user_id), purchases.of(user_id)
            )
            for stream in (accounts, entries, purchases):
                for _ in stream.of(user_id):  # what the caller has not read
                    pass

    def _ordered(self, collection: str, span: Span) -> "Stream_":
        index, fields = _USER_INDEXES[collection]
        order = [(name, ASCENDING) for name in fields]
        documents = self._database[collection]
        if self._indexed:
            # Bounds of the index's keys: a condition would match numbers alone, and hide documents
            # whose user_id has another type.
            # Any: PyMongo's types of a bound exclude the keys at the ends of an index.
            first: list[Any] = [("user_id", MinKey() if span.first is None else Int64(span.first))]
            end: list[Any] = [("user_id", MaxKey() if span.end is None else Int64(span.end))]
            for name in fields[1:]:
                first.append((name, MinKey()))
                end.append((name, MinKey()))
            cursor = documents.find({}, session=self._session).hint(index).min(first).max(end)
        else:
            cursor = documents.find(_within(span), session=self._session).allow_disk_use(True)
        return collection, cursor.sort(order).batch_size(_BATCH)

    def entry(self, id_: str) -> Transaction | None:
        """Return the entry with an id; None: there is none that can be read."""
        if not ObjectId.is_valid(id_):
            return None
        found = self._database[schema.CREDIT_TRANSACTIONS].find_one(
            {"_id": ObjectId(id_)}, session=self._session
        )
        return None if found is None else _or_none(_entry, found)

    def entries(self, ids: Iterable[str]) -> dict[str, Transaction]:
        """Return the entries with some ids; those that can be read."""
        wanted = [ObjectId(id_) for id_ in ids if ObjectId.is_valid(id_)]
        cursor = self._database[schema.CREDIT_TRANSACTIONS].find(
            {"_id": {"$in": wanted}}, session=self._session
        )
        read = (_or_none(_entry, document) for document in cursor)
        return {entry.id: entry for entry in read if entry is not None}

    def transferred(self, out_ids: Sequence[str], users: Iterable[int]) -> dict[str, TransferIn]:
        """Return the sums of the TRANSFER_IN entries of transfers, by TRANSFER_OUT.

        Args:
            out_ids: The ids of TRANSFER_OUT entries.
            users: The users that got the credits.
        """
        match = {
            "user_id": {"$in": [Int64(user_id) for user_id in users]},
            "related_id": {"$in": [ObjectId(id_) for id_ in out_ids]},
            "type": Kind.TRANSFER_IN.value,
        }
        group = {
            "_id": "$related_id",
            "first": {"$first": "$_id"},
            "credits": {"$sum": "$credits"},
        }
        found = self._database[schema.CREDIT_TRANSACTIONS].aggregate(
            [{"$match": match}, {"$sort": {"sequence": 1}}, {"$group": group}],
            session=self._session,
        )
        return {
            str(each["_id"]): TransferIn(str(each["first"]), int(each["credits"])) for each in found
        }

    def totals(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return the stored totals of all apps, and the sums of the stored balances."""
        stored = self._database[schema.APP_TOTALS].aggregate(
            [{"$group": {"_id": "$app_id", "sum": {"$sum": "$total"}}}], session=self._session
        )
        held = self._database[schema.USER_CREDITS].aggregate(
            [
                {"$project": {"_id": 0, "balances": 1}},
                {"$unwind": "$balances"},
                {"$group": {"_id": "$balances.app_id", "sum": {"$sum": "$balances.balance"}}},
            ],
            session=self._session,
            allowDiskUse=True,
        )
        return _by_app(stored), _by_app(held)

    def events(self) -> Iterator[list[AlertEvent | BadDocument]]:
        """Iterate over the events of alerts, some at a time."""
        cursor = self._database[schema.ALERT_EVENTS].find({}, session=self._session)
        batch: list[AlertEvent | BadDocument] = []
        for document in cursor.batch_size(_LOOKED_UP):
            batch.append(_event(document))
            if len(batch) == _LOOKED_UP:
                yield batch
                batch = []
        if batch:
            yield batch

    def unreadable(self) -> Iterator[BadDocument]:
        """Iterate over the documents of the other collections that cannot be read."""
        for name, model in schema.DOCUMENTS.items():
            if name in _USER_INDEXES or name == schema.ALERT_EVENTS:
                continue
            cursor = self._database[name].find({}, session=self._session)
            for document in cursor.batch_size(_BATCH):
                try:
                    model.model_validate(document)
                except ValidationError as error:
                    yield _bad(name, document, error)

    def duplicate_keys(self) -> Iterator[tuple[int, int, str, int]]:
        """Iterate over keys with several entries: user, app, key, and their number.

        The unique index excludes them, so they are searched only if it is missing.
        """
        names = ("user_id", "app_id", "idempotency_key")
        where = {"idempotency_key": {"$exists": True}}
        for each in self._duplicates(schema.CREDIT_TRANSACTIONS, schema.BY_KEY, names, where):
            user_id, app_id, key = (each["_id"].get(name) for name in names)
            yield _number(user_id), _number(app_id), str(key), each["count"]

    def duplicate_external_ids(self) -> Iterator[tuple[int, str, int]]:
        """Iterate over external ids with several users: app, id, and their number."""
        names = ("app_id", "external_id")
        for each in self._duplicates(schema.DIRECTORY, "app_id_external_id", names, {}):
            app_id, external_id = (each["_id"].get(name) for name in names)
            yield _number(app_id), str(external_id), each["count"]

    def _duplicates(
        self, collection: str, index: str, names: Sequence[str], where: Document
    ) -> Iterator[Document]:
        present = self._database[collection].index_information().get(index, {})
        if present.get("unique") and [name for name, _ in present["key"]] == list(names):
            return
        yield from self._database[collection].aggregate(
            [
                {"$match": where},
                {"$group": {"_id": {n: f"${n}" for n in names}, "count": {"$sum": 1}}},
                {"$match": {"count": {"$gt": 1}}},
            ],
            session=self._session,
            allowDiskUse=True,
        )

    def directory_end(self) -> tuple[int, int]:
        """Return the greatest user id of the directory, and the last that the counter has given."""
        greatest = self._database[schema.DIRECTORY].find_one(
            {}, sort=[("_id", -1)], session=self._session
        )
        counter = self._database[schema.COUNTERS].find_one(
            {"_id": "user_ids"}, session=self._session
        )
        return (
            0 if greatest is None else _number(greatest["_id"]),
            0 if counter is None else _number(counter.get("last")),
        )


# A collection's name, and a cursor over its documents.
Stream_ = tuple[str, Cursor[Document]]


class _Stream(Generic[_T]):
    """A stream of documents in the order of their users. It reads one document ahead."""

    def __init__(
        self,
        source: Stream_,
        read: Callable[[Document], _T],
        bad: list[BadDocument],
    ) -> None:
        self._collection, self._cursor = source
        self._read = read
        self._bad = bad
        self._head: Document | None = None
        self.user_id: int | None = None
        self._advance()

    def of(self, user_id: int) -> "Iterator[_T | BadDocument]":
        """Iterate over the remaining documents of a user."""
        while self.user_id == user_id:
            document = self._head
            assert document is not None  # noqa: S101 - for the type checker
            self._advance()
            try:
                yield self._read(document)
            except ValidationError as error:
                yield _bad(self._collection, document, error)

    def _advance(self) -> None:
        while True:
            self._head = next(self._cursor, None)
            if self._head is None:
                self.user_id = None
                return
            user_id = self._head.get("user_id")
            if isinstance(user_id, int) and not isinstance(user_id, bool):
                self.user_id = int(user_id)
                return
            reason = f"user_id is {user_id!r}"
            self._bad.append(
                BadDocument(self._collection, str(self._head.get("_id")), 0, None, reason)
            )


def _within(span: Span) -> Document:
    bounds: Document = {}
    if span.first is not None:
        bounds["$gte"] = Int64(span.first)
    if span.end is not None:
        bounds["$lt"] = Int64(span.end)
    return {"user_id": bounds} if bounds else {}


def _bad(collection: str, document: Document, error: ValidationError) -> BadDocument:
    names = sorted({".".join(str(part) for part in each["loc"]) for each in error.errors()})
    sequence = document.get("sequence")
    return BadDocument(
        collection,
        str(document.get("_id")),
        _number(document.get("user_id")),
        sequence if isinstance(sequence, int) and sequence > 0 else None,
        f"not valid: {', '.join(names)}",
    )


def _number(value: object) -> int:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else 0


def _by_app(found: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    return {_number(each["_id"]): int(each["sum"]) for each in found}


def _or_none(read: Callable[[Document], _T], document: Document) -> _T | None:
    try:
        return read(document)
    except ValidationError:
        return None


def _account(document: Document) -> AccountRecord:
    parsed = AccountDocument.model_validate(document)
    due = {app.app_id: app.due_at for app in parsed.apps or ()}
    return AccountRecord(parsed.to_account(), parsed.due_at, due)


def _event(document: Document) -> AlertEvent | BadDocument:
    try:
        return AlertEventDocument.model_validate(document).to_event()
    except ValidationError as error:
        return _bad(schema.ALERT_EVENTS, document, error)


# A model takes 15 times as long as these functions, so models read only the documents that these
# functions reject. The functions accept no document that the model would reject.
_COMMON = {
    "_id",
    "user_id",
    "app_id",
    "credits",
    "created_at",
    "created_by",
    "type",
    "balance_after",
    "sequence",
}
# The most frequent ones first.
_OPTIONAL = [
    {*hashes, *key}
    for hashes in (("hash", "previous_hash"), ("hash",), ())
    for key in (("idempotency_key",), ())
]
_PLAIN = {
    "add": tuple(frozenset({*_COMMON, *more}) for more in _OPTIONAL),
    "use": tuple(frozenset({*_COMMON, "purchase_id", "fingerprint", *more}) for more in _OPTIONAL),
}
_KINDS = {"add": Kind.ADD, "use": Kind.USE}
_PURCHASE = frozenset(PurchaseDocument.model_fields) - {"id"} | {"_id"}
_UNREFUNDED = _PURCHASE - {"refunded_credits"}


def _entry(document: Document) -> Transaction:
    kind = document.get("type")
    shapes = _PLAIN.get(kind) if isinstance(kind, str) else None
    if shapes is None or document.keys() not in shapes or not _has_common(document):
        return TransactionDocument.model_validate(document).to_transaction()
    key = document.get("idempotency_key", "")
    report = document.get("fingerprint", _NO_REPORT)
    if (
        not -UINT32_MAX <= document["balance_after"] <= UINT32_MAX
        or not ("idempotency_key" not in document or _is_text(key, 128))
        or not _is_report(report)
        or type(document.get("hash", b"")) is not bytes
        or type(document.get("previous_hash", b"")) is not bytes
    ):
        return TransactionDocument.model_validate(document).to_transaction()
    purchase_id = document.get("purchase_id")
    return Transaction(
        id=str(document["_id"]),
        user_id=document["user_id"],
        app_id=document["app_id"],
        kind=_KINDS[document["type"]],
        credits=document["credits"],
        balance_after=document["balance_after"],
        sequence=document["sequence"],
        created_at=document["created_at"],
        created_by=document["created_by"],
        key=key,
        purchase_id="" if purchase_id is None else str(purchase_id),
        report_id=report["report_id"],
        report_name=report["report_name"],
        previous_hash=document.get("previous_hash", b""),
        hash=document.get("hash", b""),
    )


_NO_REPORT: Document = {"report_id": "", "report_name": ""}


def _purchase(document: Document) -> Purchase:
    if (
        document.keys() != _UNREFUNDED
        or not _has_common(document)
        or type(document["transaction_id"]) is not ObjectId
        or not _is_text(document["report_id"], 128)
        or not _is_text(document["report_name"], 256)
    ):
        return PurchaseDocument.model_validate(document).to_purchase()
    return Purchase(
        id=str(document["_id"]),
        user_id=document["user_id"],
        app_id=document["app_id"],
        report_id=document["report_id"],
        report_name=document["report_name"],
        credits=document["credits"],
        created_at=document["created_at"],
        created_by=document["created_by"],
        transaction_id=str(document["transaction_id"]),
        sequence=document["sequence"],
    )


def _has_common(document: Document) -> bool:
    """Return whether the fields that all plain documents have are valid."""
    for name in ("user_id", "app_id", "credits", "created_by"):
        value = document[name]
        if type(value) is not Int64 or not 1 <= value <= UINT32_MAX:
            return False
    sequence = document["sequence"]
    return (
        type(sequence) is Int64
        and sequence >= 1
        and type(document.get("balance_after", sequence)) is Int64
        and type(document["created_at"]) is datetime
        and type(document["_id"]) is ObjectId
        and type(document.get("purchase_id", document["_id"])) is ObjectId
    )


def _is_text(value: object, length: int) -> bool:
    return type(value) is str and 1 <= len(value) <= length


def _is_report(value: object) -> bool:
    if value is _NO_REPORT:
        return True
    return (
        type(value) is dict
        and value.keys() == _NO_REPORT.keys()
        and _is_text(value["report_id"], 128)
        and _is_text(value["report_name"], 256)
    )
