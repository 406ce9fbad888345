"""Read a ledger for a backup: mutable documents at one snapshot, and the histories up to it.

A history only grows. So its entries are read after the snapshot, without a time limit: an entry is
part of the backup if its sequence is at most the user's revision in the snapshot.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import ASCENDING, DESCENDING, MongoClient, ReadPreference
from pymongo.client_session import ClientSession
from pymongo.cursor import Cursor
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from credit_server.store import schema
from credit_server.store.alert_events import EventGap
from credit_server.store.documents import event_gaps
from credit_server.store.errors import all_translated
from credit_server.store.extended_json import Document
from credit_server.store.fields import DECODED
from credit_server.store.port import StoreError

# The documents that a cursor holds at a time: about 1 MB of BSON.
_BATCH = 2000

_SNAPSHOT_TOO_OLD = 239

HISTORY = (schema.CREDIT_TRANSACTIONS, schema.PURCHASES)
"""The collections that only grow; a purchase changes when it is refunded."""

SECRET = (schema.WEBHOOKS, schema.WEBHOOK_DELIVERIES)
"""The collections with the secrets of webhooks, and those that refer to them."""

# The totals of apps follow from the accounts. The others belong to a database and not to a ledger.
# Apps that rely on checkpoints keep copies of them elsewhere.
_NOT_EXPORTED = (
    schema.APP_TOTALS,
    schema.LEASES,
    schema.CHECKPOINTS,
    schema.CHECKPOINT_TILES,
    schema.VERSION,
)

CHANGING = tuple(name for name in schema.DOCUMENTS if name not in HISTORY + SECRET + _NOT_EXPORTED)
"""The collections that are read at the snapshot."""


class Position(NamedTuple):
    """The place of an entry in the order of users and of their histories."""

    user_id: int
    sequence: int


BEGINNING = Position(0, 0)


class AccountState(NamedTuple):
    """The state of an account that its history must add up to.

    Attributes:
        user_id: The user.
        revision: The number of entries.
        balances: The balance of each app.
    """

    user_id: int
    revision: int
    balances: dict[int, int]

    @classmethod
    def of(cls, account: Document) -> "AccountState":
        """Read it from the document of an account.

        Raises:
            StoreError: The document lacks a field.
        """
        try:
            return cls(
                account["user_id"],
                account["revision"],
                {each["app_id"]: each["balance"] for each in account["balances"]},
            )
        except (KeyError, TypeError) as error:
            raise StoreError(f"the account {account.get('_id')} is damaged: {error}") from error


@contextmanager
def open_reader(uri: str, *, database: str, timeout_seconds: float) -> "Iterator[LedgerReader]":
    """Connect to a database, to read all of it.

    Args:
        uri: A MongoDB connection string.
        database: The name of the database.
        timeout_seconds: How long to look for a server.

    Raises:
        StoreError: The store cannot be reached, or rejects a command.
    """
    with all_translated():
        client: MongoClient[Document] = MongoClient(
            uri,
            appname="credit-server backup",
            serverSelectionTimeoutMS=int(timeout_seconds * 1000),
        )
        with client:
            yield LedgerReader(client, database)


class LedgerReader:
    """Reads a ledger in the order of a backup."""

    def __init__(self, client: MongoClient[Document], database: str) -> None:
        self._client = client
        self._database = client.get_database(
            database,
            codec_options=DECODED,
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )

    @property
    def name(self) -> str:
        """The name of the database."""
        return self._database.name

    def schema_version(self) -> int:
        """Return the version of the database's schema.

        Raises:
            StoreMisconfigured: There is no ledger, an import is incomplete, or the schema is that
                of a later release.
        """
        return schema.ledger_version(self._database)

    def event_gaps(self) -> list[EventGap]:
        """Return the gaps in the positions of events that imports have left."""
        return event_gaps(self._database[schema.VERSION].find_one({"_id": "credit"}))

    def time(self) -> datetime:
        """Return the time of the primary."""
        answer: dict[str, Any] = self._client.admin.command("hello")
        found: datetime = answer["localTime"]
        return found.replace(tzinfo=UTC)

    def estimated_documents(self, collections: Sequence[str]) -> int:
        """Return about how many documents there are."""
        return sum(self._database[name].estimated_document_count() for name in collections)

    @contextmanager
    def snapshot(self) -> "Iterator[Snapshot]":
        """Open a snapshot.

        Raises:
            StoreError: MongoDB does not keep the snapshot for as long as the context lasts.
        """
        with self._client.start_session(snapshot=True) as session:
            try:
                yield Snapshot(self, session)
            except OperationFailure as error:
                if error.code != _SNAPSHOT_TOO_OLD:
                    raise
                raise StoreError(
                    "MongoDB keeps a snapshot for 5 minutes, and the accounts took longer to read:"
                    " raise its parameter minSnapshotHistoryWindowInSeconds, and repeat the export"
                ) from error

    def ordered(self, name: str, session: ClientSession | None = None) -> Iterator[Document]:
        """Iterate over a collection: accounts by user, others by id."""
        documents = self._database[name]
        if session is not None:  # the session sets the read concern
            documents = documents.with_options(read_concern=ReadConcern())
        by = "user_id" if name == schema.USER_CREDITS else "_id"
        yield from documents.find({}, session=session).sort(by, ASCENDING).batch_size(_BATCH)

    def history(self, name: str, after: Position) -> Iterator[Document]:
        """Iterate over entries or purchases by user and sequence, starting after a position."""
        first = [("user_id", Int64(after.user_id)), ("sequence", Int64(after.sequence + 1))]
        cursor: Cursor[Document] = self._database[name].find({})
        cursor = cursor.sort([("user_id", ASCENDING), ("sequence", ASCENDING)])
        yield from cursor.hint(schema.BY_SEQUENCE).min(first).batch_size(_BATCH)

    def has_account(self, user_id: int) -> bool:
        """Return whether a user has an account now."""
        found = self._database[schema.USER_CREDITS].find_one(
            {"user_id": Int64(user_id)}, {"_id": 1}
        )
        return found is not None

    def as_of(self, purchase: Document, revision: int) -> Document:
        """Return a purchase without the refunds that came after a revision of its user.

        The latest refund up to the revision has the credits that were refunded until then.
        """
        if "refunded_credits" not in purchase:
            return purchase
        refund = self._database[schema.CREDIT_TRANSACTIONS].find_one(
            {
                "user_id": purchase["user_id"],
                "related_id": purchase["transaction_id"],
                "sequence": {"$lte": Int64(revision)},
            },
            {"related_total": 1},
            sort=[("sequence", DESCENDING)],
            hint=schema.BY_RELATED_ID,
        )
        if refund is not None:
            return {**purchase, "refunded_credits": refund["related_total"]}
        return {name: value for name, value in purchase.items() if name != "refunded_credits"}


class Snapshot(NamedTuple):
    """One state of a ledger, for as long as MongoDB keeps it."""

    reader: LedgerReader
    session: ClientSession

    def ordered(self, name: str) -> Iterator[Document]:
        """Iterate over a collection: see `LedgerReader.ordered`."""
        return self.reader.ordered(name, self.session)
