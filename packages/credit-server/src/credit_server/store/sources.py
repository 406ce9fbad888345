"""The collections of histories, and the translation of queries for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bson.errors import InvalidId
from bson.objectid import ObjectId
from credit_models.ledger import UINT32_MAX

from credit_server.store import schema
from credit_server.store.driver import Document
from credit_server.store.history import (
    HistoryQuery,
    PurchaseQuery,
    PurchaseRow,
    RowT,
    TransactionQuery,
    TransactionRow,
)
from credit_server.store.rows import purchase_row, transaction_row

# How many scans of an index mongod merges: its parameter `internalQueryMaxScansToExplode`. For more
# values of `$in` it sorts everything that it finds (6.0.5: 10,001 keys for a page of 1,000).
SCANS_MAX = 200

# A part of an index: the conditions that select it, and the name of the index.
Scan = tuple[Document, str]

QueryT = TypeVar("QueryT", bound=HistoryQuery)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source(Generic[QueryT, RowT]):
    """A collection of entries, and how a query is translated for it.

    Attributes:
        collection: The name of the collection.
        scans: Returns the parts of an index that have the entries of a user, each in the order of
            the sequence; None: no entry satisfies the query.
        conditions: Returns the conditions that no index serves; None: no entry satisfies them.
        to_row: Makes a row from a document.
    """

    collection: str
    scans: Callable[[QueryT], list[Scan] | None]
    conditions: Callable[[QueryT], Document | None]
    # Any: a document holds values of many types.
    to_row: Callable[[Mapping[str, Any]], RowT]


def _history_scans(query: HistoryQuery) -> list[Scan]:
    """Return the parts of an index that have the entries of a user.

    An index that is read for several apps is merged by mongod, one scan for each.
    """
    user: Document = {"user_id": query.user_id}
    if query.apps is None:
        return [(user, schema.BY_SEQUENCE)]
    apps = sorted(query.apps)
    return [
        ({**user, "app_id": {"$in": apps[start : start + SCANS_MAX]}}, schema.BY_APP_AND_SEQUENCE)
        for start in range(0, len(apps), SCANS_MAX)
    ]


def _transaction_scans(query: TransactionQuery) -> list[Scan] | None:
    if not query.related_id:
        return _history_scans(query)
    related = object_id(query.related_id)
    if related is None:
        return None
    return [({"user_id": query.user_id, "related_id": related}, schema.BY_RELATED_ID)]


def _purchase_scans(query: PurchaseQuery) -> list[Scan] | None:
    if not query.uses_report_index:
        return _history_scans(query)
    app_id = next(iter(query.apps or ()))
    report = {"user_id": query.user_id, "app_id": app_id, "report_id": query.report_id}
    return [(report, schema.BY_REPORT)]


def _history_conditions(query: HistoryQuery) -> Document:
    """Return the conditions on fields that all entries have."""
    conditions: Document = {}
    if query.credits_min > 0 or query.credits_max < UINT32_MAX:
        conditions["credits"] = {"$gte": query.credits_min, "$lte": query.credits_max}
    if query.created_by is not None:
        conditions["created_by"] = query.created_by
    return conditions


def _transaction_conditions(query: TransactionQuery) -> Document | None:
    conditions = _history_conditions(query)
    if query.related_id and query.apps is not None:
        conditions["app_id"] = {"$in": sorted(query.apps)}
    if query.kinds:
        conditions["type"] = {"$in": sorted(kind.value for kind in query.kinds)}
    if query.report_id:
        conditions["fingerprint.report_id"] = query.report_id
    if query.metadata:
        pairs = [{"$elemMatch": {"name": name, "value": text}} for name, text in query.metadata]
        conditions["metadata"] = {"$all": pairs}
    if query.grant_id:
        grant = object_id(query.grant_id)
        if grant is None:
            return None
        conditions["allocations.grant_id"] = grant
    return conditions


def _purchase_conditions(query: PurchaseQuery) -> Document:
    conditions = _history_conditions(query)
    if query.report_id and not query.uses_report_index:
        conditions["report_id"] = query.report_id
    if query.refunded is not None:
        # Absent before the first refund.
        conditions["refunded_credits"] = {"$exists": query.refunded}
    return conditions


TRANSACTIONS: Source[TransactionQuery, TransactionRow] = Source(
    collection=schema.CREDIT_TRANSACTIONS,
    scans=_transaction_scans,
    conditions=_transaction_conditions,
    to_row=transaction_row,
)
PURCHASES: Source[PurchaseQuery, PurchaseRow] = Source(
    collection=schema.PURCHASES,
    scans=_purchase_scans,
    conditions=_purchase_conditions,
    to_row=purchase_row,
)


def object_id(id_: str) -> ObjectId | None:
    """Return an id as MongoDB stores it; None: no document has it."""
    try:
        return ObjectId(id_)
    except InvalidId:
        return None
