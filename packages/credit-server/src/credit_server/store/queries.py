"""Find the transactions of a query in MongoDB: each page has a bounded cost.

Every command uses an index in its order, so mongod neither scans a collection nor sorts in memory.
"""

from bson.errors import InvalidId
from bson.objectid import ObjectId
from credit_models.ledger import UINT32_MAX
from pymongo import ASCENDING, DESCENDING

from credit_server.store import schema
from credit_server.store.driver import Collection, Document, Session
from credit_server.store.port import (
    EXAMINED_MAX,
    AppKey,
    TransactionPage,
    TransactionQuery,
    TransactionRow,
    milliseconds_up,
)
from credit_server.store.rows import transaction_row

# The fields of a document that no list returns, as a projection.
NOT_LISTED = {"request": False}

# How many scans of an index mongod merges: its parameter `internalQueryMaxScansToExplode`. For more
# values of `$in` it sorts everything that it finds (6.0.5: 10,001 keys for a page of 1,000).
SCANS_MAX = 200

# The number of positions that one command of the search for a time reads. A million transactions
# take four commands.
_PROBES = 64

# A part of an index: the conditions that select it, and the name of the index.
_Scan = tuple[Document, str]


class Finder:
    """Finds transactions."""

    def __init__(self, collection: Collection, session: Session | None = None) -> None:
        """Prepare to find.

        Args:
            collection: The transactions.
            session: A snapshot, whose read concern the collection then has. It is needed where a
                query is about several apps.
        """
        self._collection = collection
        self._session = session

    async def page(self, query: TransactionQuery) -> TransactionPage:
        """Return a page of a query: see the port."""
        scans, conditions = _scans(query), _conditions(query)
        if scans is None or conditions is None:
            return TransactionPage([], None)
        after, before = await self._bounds(query)
        edge = None
        if conditions:
            edge = await self._edge(scans, query, after, before)
            if edge is not None and query.newest_first:
                after = edge - 1
            elif edge is not None:
                before = edge + 1
        found = await self._find(scans, conditions, query, after, before)
        rows = [transaction_row(document) for document in found[: query.limit]]
        if len(found) > query.limit:
            return TransactionPage(rows, rows[-1].sequence)
        return TransactionPage(rows, edge)

    async def _find(
        self,
        scans: list[_Scan],
        conditions: Document,
        query: TransactionQuery,
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
                session=self._session,
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
        self,
        scans: list[_Scan],
        query: TransactionQuery,
        after: int,
        before: int | None,
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
                session=self._session,
            )
            cursor = cursor.hint(index).sort("sequence", _direction(query))
            edges += await cursor.skip(EXAMINED_MAX - 1).limit(1).to_list(None)
        sequences = [edge["sequence"] for edge in edges]
        nearest = max if query.newest_first else min
        return nearest(sequences, default=None)

    async def _bounds(self, query: TransactionQuery) -> tuple[int, int | None]:
        """Return the sequences between which all entries of a query are; None: no bound."""
        after, before = query.after_sequence, query.before_sequence
        if query.created_from is not None:
            first = await self._first_at(query.user_id, milliseconds_up(query.created_from))
            after = max(after, first - 1)
        if query.created_until is not None:
            first = await self._first_at(query.user_id, milliseconds_up(query.created_until))
            before = first if before is None else min(before, first)
        return after, before

    async def _first_at(self, user_id: int, milliseconds: int) -> int:
        """Return the sequence of a user's first entry at a time or later, or the next free one.

        No index has the time: it would cost every write. The sequences of a user have no gaps, so
        a search with 64 probes at a time finds the position.
        """
        latest = await self._collection.find_one(
            {"user_id": user_id},
            {"_id": False, "sequence": True},
            sort=[("sequence", DESCENDING)],
            hint=schema.BY_SEQUENCE,
            session=self._session,
        )
        low, high = 1, 1 + (0 if latest is None else latest["sequence"])
        while low < high:  # the result is one of low to high
            probes = list(range(low, high, max(1, (high - low) // _PROBES)))
            cursor = self._collection.find(
                {"user_id": user_id, "sequence": {"$in": probes}},
                {"_id": False, "sequence": True, "created_at": True},
                session=self._session,
            )
            cursor = cursor.hint(schema.BY_SEQUENCE).sort("sequence", ASCENDING)
            # Without a batch size, more than 101 documents would take another command.
            found = await cursor.batch_size(len(probes) + 1).to_list(None)
            later = [each for each in found if int(each["created_at"]) >= milliseconds]
            high = later[0]["sequence"] if later else high
            low = 1 + max((probe for probe in probes if probe < high), default=low - 1)
        return low

    async def by_id(self, id_: str) -> TransactionRow | None:
        """Return the transaction with an id."""
        object_id = _object_id(id_)
        return None if object_id is None else await self._one({"_id": object_id}, "_id_")

    async def by_key(self, key: AppKey) -> TransactionRow | None:
        """Return the transaction with a key."""
        names = ("user_id", "app_id", "idempotency_key")
        return await self._one(dict(zip(names, key, strict=True)), schema.BY_KEY)

    async def _one(self, query: Document, index: str) -> TransactionRow | None:
        found = await self._collection.find_one(
            query, NOT_LISTED, hint=index, session=self._session
        )
        return None if found is None else transaction_row(found)


def _scans(query: TransactionQuery) -> list[_Scan] | None:
    """Return the parts of an index to scan, each in the order of the sequence; None: none has any.

    An index that is read for several apps is merged by mongod, one scan for each.
    """
    user: Document = {"user_id": query.user_id}
    if query.related_id:
        related = _object_id(query.related_id)
        return (
            None if related is None else [({**user, "related_id": related}, schema.BY_RELATED_ID)]
        )
    if query.apps is None:
        return [(user, schema.BY_SEQUENCE)]
    apps = sorted(query.apps)
    return [
        ({**user, "app_id": {"$in": apps[start : start + SCANS_MAX]}}, schema.BY_APP_AND_SEQUENCE)
        for start in range(0, len(apps), SCANS_MAX)
    ]


def _conditions(query: TransactionQuery) -> Document | None:
    """Return the conditions that no index serves; None if no entry satisfies them."""
    conditions: Document = {}
    if query.related_id and query.apps is not None:
        conditions["app_id"] = {"$in": sorted(query.apps)}
    if query.kinds:
        conditions["type"] = {"$in": sorted(kind.value for kind in query.kinds)}
    if query.credits_min > 0 or query.credits_max < UINT32_MAX:
        conditions["credits"] = {"$gte": query.credits_min, "$lte": query.credits_max}
    if query.report_id:
        conditions["fingerprint.report_id"] = query.report_id
    if query.created_by is not None:
        conditions["created_by"] = query.created_by
    if query.metadata:
        pairs = [{"$elemMatch": {"name": name, "value": text}} for name, text in query.metadata]
        conditions["metadata"] = {"$all": pairs}
    if query.grant_id:
        grant = _object_id(query.grant_id)
        if grant is None:
            return None
        conditions["allocations.grant_id"] = grant
    return conditions


def _between(after: int, before: int | None) -> Document:
    return {"$gt": after} if before is None else {"$gt": after, "$lt": before}


def _direction(query: TransactionQuery) -> int:
    return DESCENDING if query.newest_first else ASCENDING


def _object_id(id_: str) -> ObjectId | None:
    """Return an id as MongoDB stores it; None: no document has it."""
    try:
        return ObjectId(id_)
    except InvalidId:
        return None
