"""Find the entries of a query in MongoDB: each page has a bounded cost.

Every command uses an index in its order, so mongod neither scans a collection nor sorts in memory.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Generic

from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import UINT32_MAX
from pymongo import ASCENDING, DESCENDING
from pymongo.read_concern import ReadConcern

from credit_server.store import schema, sources
from credit_server.store.driver import (
    Clients,
    Collection,
    Database,
    Document,
    Session,
    aggregate,
)
from credit_server.store.fields import TEXT_ERRORS
from credit_server.store.history import (
    EXAMINED_MAX,
    BalanceAt,
    GroupBy,
    HistoryQuery,
    Page,
    Position,
    RowT,
    Summary,
    SummaryRow,
    TransactionRow,
    following,
    milliseconds_up,
)
from credit_server.store.port import AppKey, StoreUnavailable
from credit_server.store.rows import milliseconds_of, number_of, transaction_row
from credit_server.store.sources import QueryT, Scan, Source, object_id
from credit_server.store.summaries import pipeline, summary_row

# The fields of a document that no list returns, as a projection.
NOT_LISTED = {"request": False}

# For the collections whose documents become rows.
LISTED: CodecOptions[Document] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_MS, unicode_decode_error_handler=TEXT_ERRORS
)

# The fields that `balance_at` reads.
_BALANCE = {"sequence": True, "balance_after": True, "effective_at": True}

# The number of positions that one command of the search for a time reads. A million transactions
# take four commands.
_PROBES = 64


_SEQUENCE_MAX = 2**63 - 1

# Right after a change of primary, a read can miss what an earlier read has returned.
STALE_READ = "reads do not return the committed transactions yet"


async def check_stored(
    transactions: Collection, user_id: int, sequence: int, session: Session
) -> None:
    """Check that the reads of a session see a user's transaction, and so all before it.

    Args:
        transactions: The transactions.
        user_id: The user.
        sequence: The sequence of the transaction.
        session: A causal session, or a snapshot.

    Raises:
        StoreUnavailable: They do not see it yet.
    """
    place = {"user_id": user_id, "sequence": sequence}
    found = await transactions.find_one(
        place, {"_id": True}, hint=schema.BY_SEQUENCE, session=session
    )
    if found is None:
        raise StoreUnavailable(STALE_READ)


class Finder:
    """Finds entries."""

    def __init__(self, clients: Clients, database: Database) -> None:
        """Prepare to find.

        Args:
            clients: The clients of the database.
            database: The database, whose read concern is majority.
        """
        self._clients = clients
        self._versions = database[schema.VERSION]
        names = (schema.CREDIT_TRANSACTIONS, schema.PURCHASES)
        listed = {name: database.get_collection(name, codec_options=LISTED) for name in names}
        self._listed: dict[str, Collection] = listed
        # A snapshot is a read concern of its session.
        self._of_snapshot: dict[str, Collection] = {
            name: each.with_options(read_concern=ReadConcern()) for name, each in listed.items()
        }

    async def page(self, source: Source[QueryT, RowT], query: QueryT) -> Page[RowT]:
        """Return a page of a query: see the port."""
        conditions = source.conditions(query)
        if query.user_id is None:
            async with self._clients.causal() as session:
                settled_until = await self._settled_until(session, query)
                in_app = _AppReader(self._listed[source.collection], session, source.to_row)
                return await in_app.page(query, conditions, settled_until)
        scans = source.scans(query)
        if scans is None or conditions is None:
            return Page([], None)
        # Several ranges of an index must be read at one moment. Otherwise an entry could be missed
        # forever: one scan ends before it is written, another one returns a later entry, and the
        # next page starts after that one. One range is in the order in which the user's entries
        # were committed. A snapshot takes a session, which costs a small page as much as the page
        # itself.
        snapshot = query.apps is not None and len(query.apps) > 1
        async with self._user_reader(source, query, snapshot=snapshot) as reader:
            return await reader.page(query, scans, conditions)

    @asynccontextmanager
    async def _user_reader(
        self, source: Source[QueryT, RowT], query: HistoryQuery, *, snapshot: bool
    ) -> AsyncIterator["_UserReader[RowT]"]:
        """Return a reader of a user's history that sees all entries that the query requires."""
        collections = self._of_snapshot if snapshot else self._listed
        entries, transactions = (
            collections[source.collection],
            collections[schema.CREDIT_TRANSACTIONS],
        )
        if not (snapshot or query.stored_sequence):
            yield _UserReader(entries, transactions, None, source.to_row)
            return
        async with self._clients.snapshot() if snapshot else self._clients.causal() as session:
            if query.user_id is not None and query.stored_sequence:
                await check_stored(transactions, query.user_id, query.stored_sequence, session)
            yield _UserReader(entries, transactions, session, source.to_row)

    async def _settled_until(self, session: Session, query: HistoryQuery) -> int:
        """Return the time before which no entry can appear any more, in milliseconds since 1970.

        The reads that follow in the session see everything that was committed until the session's
        operation time, also after a change of primary. An entry that they do not see is committed
        later, so it was created at most `settling_seconds` before that time.
        """
        await self._versions.find_one({}, session=session)
        moment = session.operation_time
        if moment is None:
            raise StoreUnavailable("MongoDB returned no operation time")
        return moment.time * 1000 - int(query.settling_seconds * 1000)

    async def summarize(self, query: HistoryQuery, group_by: GroupBy) -> Summary:
        """Return sums of transactions in a span of time: see the port."""
        source = sources.TRANSACTIONS
        if query.user_id is None:
            async with self._clients.causal() as session:
                settled_until = await self._settled_until(session, query)
                first, end = query.positions(settled_until)
                app_id = next(iter(query.apps or ()))
                span = {"$gte": DatetimeMS(first.created_at), "$lt": DatetimeMS(end.created_at)}
                part = {"app_id": app_id, "created_at": span}
                rows = await self._sums(part, schema.BY_APP_AND_TIME, query, group_by, session)
                return Summary(rows, settled_until)
        # All entries of the span are stored when its end is known, so the sums are of one moment.
        async with self._user_reader(source, query, snapshot=False) as reader:
            after, before = await reader.bounds(query)
            user: Document = {"user_id": query.user_id, "sequence": _between(after, before)}
            index = schema.BY_SEQUENCE
            if query.apps is not None:
                user["app_id"], index = {"$in": sorted(query.apps)}, schema.BY_APP_AND_SEQUENCE
            return Summary(await self._sums(user, index, query, group_by, reader.session), None)

    async def _sums(
        self,
        part: Document,
        index: str,
        query: HistoryQuery,
        group_by: GroupBy,
        session: Session | None,
    ) -> list[SummaryRow]:
        found = await aggregate(
            self._listed[schema.CREDIT_TRANSACTIONS],
            pipeline(part, group_by, query.limit),
            hint=index,
            session=session,
        )
        return [summary_row(each) for each in found]

    async def balance_at(
        self, user_id: int, app_id: int, *, end: int, at: datetime | None
    ) -> BalanceAt:
        """Return a user's balance in an app after the last entry that counts: see the port."""
        transactions = self._listed[schema.CREDIT_TRANSACTIONS]
        async with self._clients.causal() as session:
            if end > 1:
                await check_stored(transactions, user_id, end - 1, session)
            reader = _UserReader(transactions, transactions, session, transaction_row)
            return await reader.balance_at(user_id, app_id, end, at)

    async def by_id(self, id_: str) -> TransactionRow | None:
        """Return the transaction with an id."""
        wanted = object_id(id_)
        return None if wanted is None else await self._one({"_id": wanted}, "_id_")

    async def by_key(self, key: AppKey) -> TransactionRow | None:
        """Return the transaction with a key."""
        names = ("user_id", "app_id", "idempotency_key")
        return await self._one(dict(zip(names, key, strict=True)), schema.BY_KEY)

    async def _one(self, query: Document, index: str) -> TransactionRow | None:
        collection = self._listed[schema.CREDIT_TRANSACTIONS]
        found = await collection.find_one(query, NOT_LISTED, hint=index)
        return None if found is None else transaction_row(found)


class _UserReader(Generic[RowT]):
    """Reads pages of one user's history, in the order of the sequence.

    Attributes:
        session: The session of its reads; None: there is none.
    """

    def __init__(
        self,
        collection: Collection,
        transactions: Collection,
        session: Session | None,
        to_row: Callable[[Mapping[str, Any]], RowT],
    ) -> None:
        """Prepare to read.

        Args:
            collection: The entries.
            transactions: The transactions, whose sequences have no gaps.
            session: A causal session or a snapshot; None: none. A snapshot is needed where a query
                is about several apps.
            to_row: Makes a row from a document.
        """
        self._collection = collection
        self._transactions = transactions
        self.session = session
        self._to_row: Callable[[Mapping[str, Any]], RowT] = to_row

    async def page(
        self, query: HistoryQuery, scans: list[Scan], conditions: Document
    ) -> Page[RowT]:
        """Return a page."""
        after, before = await self.bounds(query)
        edge = None
        if conditions:
            edge = await self._edge(scans, query, after, before)
            if edge is not None and query.newest_first:
                after = edge - 1
            elif edge is not None:
                before = edge + 1
        found = await self._find(scans, conditions, query, after, before)
        rows = [self._to_row(document) for document in found[: query.limit]]
        if len(found) > query.limit:
            return Page(rows, rows[-1].sequence)
        return Page(rows, edge)

    async def _find(
        self,
        scans: list[Scan],
        conditions: Document,
        query: HistoryQuery,
        after: int,
        before: int | None,
    ) -> list[Document]:
        """Return the first entries between two sequences: one more than the limit, if there are."""
        wanted = query.limit + 1
        found: list[Document] = []
        for scan, index in scans:
            cursor = self._collection.find(
                {**scan, "sequence": _between(after, before), **conditions},
                NOT_LISTED,
                session=self.session,
            )
            cursor = cursor.hint(index).sort("sequence", _direction(query)).limit(wanted)
            # Without a batch size, mongod returns 101 documents first.
            found += await cursor.batch_size(wanted + 1).to_list(None)
            found.sort(key=lambda document: document["sequence"], reverse=query.newest_first)
            del found[wanted:]
            if len(found) == wanted and query.newest_first:
                after = found[-1]["sequence"]
            elif len(found) == wanted:
                before = found[-1]["sequence"]
        return found

    async def _edge(
        self, scans: list[Scan], query: HistoryQuery, after: int, before: int | None
    ) -> int | None:
        """Return the sequence of the last entry that the page may examine; None: all may be.

        The command reads index keys alone. Each scan has at most `EXAMINED_MAX` entries up to the
        edge.
        """
        edges = []
        for scan, index in scans:
            cursor = self._collection.find(
                {**scan, "sequence": _between(after, before)},
                {"_id": False, "sequence": True},
                session=self.session,
            )
            cursor = cursor.hint(index).sort("sequence", _direction(query))
            edges += await cursor.skip(EXAMINED_MAX - 1).limit(1).to_list(None)
        sequences = [edge["sequence"] for edge in edges]
        nearest = max if query.newest_first else min
        return nearest(sequences, default=None)

    async def bounds(self, query: HistoryQuery) -> tuple[int, int | None]:
        """Return the sequences between which all entries of a query are; None: no bound.

        With a bound in time, the page has no entry that is written from here on: the search does
        not compare its time.
        """
        after, before = query.after_sequence, query.before_sequence
        if query.user_id is None or (query.created_from, query.created_until) == (None, None):
            return after, before
        end = await self._next_sequence(query.user_id)
        first = await self._first_at(query.user_id, query.created_from, 1, end)
        after = max(after, first - 1)
        if query.created_until is not None:
            end = await self._first_at(query.user_id, query.created_until, first, end)
        return after, end if before is None else min(before, end)

    async def balance_at(
        self, user_id: int, app_id: int, end: int, at: datetime | None
    ) -> BalanceAt:
        """Return a user's balance in an app: see the port."""
        # The first entry that was created after the time.
        later = None if at is None else at + timedelta(microseconds=1)
        first = end if later is None else await self._first_at(user_id, later, 1, end)
        in_app = {"user_id": user_id, "app_id": app_id}
        last = await self._transactions.find_one(
            {**in_app, "sequence": {"$lt": first}},
            _BALANCE,
            sort=[("sequence", DESCENDING)],
            hint=schema.BY_APP_AND_SEQUENCE,
            session=self.session,
        )
        # Entries that happen by time are written later than they take effect. No other entry of the
        # app is written in between, so those that count are the first ones.
        written, size = [] if last is None else [last], 1
        while first < end:
            cursor = self._transactions.find(
                {**in_app, "sequence": {"$gte": first, "$lt": end}}, _BALANCE, session=self.session
            )
            cursor = cursor.hint(schema.BY_APP_AND_SEQUENCE).sort("sequence", ASCENDING)
            following = await cursor.limit(size).batch_size(size + 1).to_list(None)
            counted = [each for each in following if at is not None and _took_effect(each, at)]
            written += counted
            if len(counted) < len(following):
                return _balance_of(written, is_latest=False)
            if len(following) < size:
                break
            first, size = following[-1]["sequence"] + 1, _PROBES
        return _balance_of(written, is_latest=True)

    async def _next_sequence(self, user_id: int) -> int:
        latest = await self._transactions.find_one(
            {"user_id": user_id},
            {"sequence": True},
            sort=[("sequence", DESCENDING)],
            hint=schema.BY_SEQUENCE,
            session=self.session,
        )
        return 1 + (0 if latest is None else number_of(latest, "sequence", _SEQUENCE_MAX))

    async def _first_at(self, user_id: int, moment: datetime | None, low: int, high: int) -> int:
        """Return the sequence of a user's first entry at a time or later.

        No index has a user and a time: it would cost every write. The sequences of a user have no
        gaps, so a search with 64 probes at a time finds the position.

        Args:
            user_id: The user.
            moment: The time; None: the beginning.
            low: The least possible result.
            high: The greatest possible result: that of no entry, if there is none before.
        """
        if moment is None:
            return low
        milliseconds = milliseconds_up(moment)
        while low < high:
            probes = list(range(low, high, max(1, (high - low) // _PROBES)))
            cursor = self._transactions.find(
                {"user_id": user_id, "sequence": {"$in": probes}},
                {"sequence": True, "created_at": True},
                session=self.session,
            )
            cursor = cursor.hint(schema.BY_SEQUENCE).sort("sequence", ASCENDING)
            # Without a batch size, more than 101 documents would take another command.
            found = await cursor.batch_size(len(probes) + 1).to_list(None)
            later = [each for each in found if milliseconds_of(each, "created_at") >= milliseconds]
            high = later[0]["sequence"] if later else high
            low = 1 + max((probe for probe in probes if probe < high), default=low - 1)
        return low


def _took_effect(entry: Document, at: datetime) -> bool:
    """Return whether an entry that was created after a time took effect until then."""
    until = milliseconds_up(at + timedelta(microseconds=1))
    return "effective_at" in entry and milliseconds_of(entry, "effective_at") < until


def _balance_of(entries: Sequence[Document], *, is_latest: bool) -> BalanceAt:
    if not entries:
        return BalanceAt(0, 0, is_latest)
    last = entries[-1]
    balance = number_of(last, "balance_after", UINT32_MAX)
    return BalanceAt(number_of(last, "sequence", _SEQUENCE_MAX), balance, is_latest)


class _AppReader(Generic[RowT]):
    """Reads pages of all users' entries in one app, in the order of the time and the id.

    An entry is found by its position alone. The bounds of the index's keys are exact, so that a
    page that continues in the middle of many entries of one millisecond reads none of them again.
    """

    def __init__(
        self,
        collection: Collection,
        session: Session,
        to_row: Callable[[Mapping[str, Any]], RowT],
    ) -> None:
        self._collection = collection
        self._session = session
        self._to_row: Callable[[Mapping[str, Any]], RowT] = to_row

    async def page(
        self, query: HistoryQuery, conditions: Document | None, settled_until: int
    ) -> Page[RowT]:
        """Return a page of entries that were created before a time, at which no more can appear."""
        first, end = query.positions(settled_until)
        if conditions is None or first >= end:
            return Page([], None, settled_until)
        edge = None
        if conditions:
            edge = await self._edge(query, first, end)
            if edge is not None and query.newest_first:
                first = edge
            elif edge is not None:
                end = following(edge)
        found = await self._find(query, conditions, first, end)
        rows = [self._to_row(document) for document in found[: query.limit]]
        if len(found) > query.limit:
            return Page(rows, Position(rows[-1].created_at, rows[-1].id), settled_until)
        return Page(rows, edge, settled_until)

    async def _find(
        self, query: HistoryQuery, conditions: Document, first: Position, end: Position
    ) -> list[Document]:
        """Return the first entries of a range: one more than the limit, if there are."""
        cursor = self._collection.find(
            conditions,
            NOT_LISTED,
            session=self._session,
            **_range(query, first, end),
        )
        wanted = query.limit + 1
        return await cursor.limit(wanted).batch_size(wanted + 1).to_list(None)

    async def _edge(self, query: HistoryQuery, first: Position, end: Position) -> Position | None:
        """Return the position of the last entry that the page may examine; None: all may be.

        The command reads index keys alone.
        """
        cursor = self._collection.find(
            {},
            {"_id": True, "created_at": True},
            session=self._session,
            **_range(query, first, end),
        )
        found = await cursor.skip(EXAMINED_MAX - 1).limit(1).to_list(None)
        return Position(int(found[0]["created_at"]), str(found[0]["_id"])) if found else None


# Any: the arguments of `find` have many types.
def _range(query: HistoryQuery, first: Position, end: Position) -> dict[str, Any]:
    """Return the arguments of a scan from one position up to another one."""
    app_id = next(iter(query.apps or ()))

    def key(position: Position) -> Document:
        moment, id_ = DatetimeMS(position.created_at), ObjectId(position.id)
        return {"app_id": Int64(app_id), "created_at": moment, "_id": id_}

    return {
        "min": key(first),
        "max": key(end),
        "sort": [(name, _direction(query)) for name in ("app_id", "created_at", "_id")],
        "hint": schema.BY_APP_AND_TIME,
    }


def _between(after: int, before: int | None) -> Document:
    return {"$gt": after} if before is None else {"$gt": after, "$lt": before}


def _direction(query: HistoryQuery) -> int:
    return DESCENDING if query.newest_first else ASCENDING
