"""Add up transactions in MongoDB: the stages of an aggregation, and the rows of its result."""

from datetime import UTC, datetime
from typing import Any

from credit_models.ledger import UINT32_MAX, Kind

from credit_server.store.driver import Document
from credit_server.store.errors import report
from credit_server.store.history import SUMMARIZED_MAX, GroupBy, SummaryRow
from credit_server.store.port import Unreadable

_GROUPS: dict[GroupBy, object] = {
    GroupBy.NOTHING: "",
    GroupBy.DAY: {"$dateToString": {"format": "%Y-%m-%d", "date": "$created_at"}},
    GroupBy.MONTH: {"$dateToString": {"format": "%Y-%m", "date": "$created_at"}},
    GroupBy.KIND: "$type",
    GroupBy.REPORT: {"$ifNull": ["$fingerprint.report_id", ""]},
    GroupBy.APP: "$app_id",
}

# The group of malformed entries. It sorts before all other groups.
_MALFORMED = None


def _is_number(path: str, least: int) -> Document:
    # MongoDB compares values of different types by the order of the types, so the type comes first.
    return {
        "$and": [
            {"$eq": [{"$type": path}, "long"]},
            {"$gte": [path, least]},
            {"$lte": [path, UINT32_MAX]},
        ]
    }


def _is_absent_or(path: str, condition: Document) -> Document:
    return {"$or": [{"$eq": [{"$type": path}, "missing"]}, condition]}


_HAS_CREDITS = _is_number("$credits", 1)
_HAS_DELTA = _is_absent_or("$delta", _is_number("$delta", -UINT32_MAX))
_IS_SOUND = {
    "$and": [
        _HAS_CREDITS,
        _HAS_DELTA,
        _is_number("$app_id", 1),
        {"$in": ["$type", [kind.value for kind in Kind]]},
        {"$eq": [{"$type": "$created_at"}, "date"]},
        {"$lte": ["$created_at", datetime.max.replace(tzinfo=UTC)]},
        {"$in": [{"$type": "$fingerprint.report_id"}, ["missing", "string"]]},
    ]
}


def _of_sign(sign: int) -> list[str]:
    return [kind.value for kind in Kind if kind.sign == sign]


def _if(kinds: list[str], value: object, otherwise: object) -> Document:
    return {"$cond": [{"$in": ["$type", kinds]}, value, otherwise]}


# If an expression reads a value of another type, the whole aggregation fails.
_CREDITS = {"$cond": [_HAS_CREDITS, "$credits", 0]}
_DELTA = {"$cond": [_HAS_DELTA, "$delta", 0]}
_LESS = {"$multiply": [-1, _CREDITS]}
_BY_SIGN = _if(_of_sign(1), _CREDITS, _if(_of_sign(-1), _LESS, 0))
_EFFECT = {"$ifNull": [_DELTA, _BY_SIGN]}


def _credits_of(kind: Kind) -> Document:
    return {"$sum": _if([kind.value], _CREDITS, 0)}


def pipeline(part: Document, group_by: GroupBy, groups_max: int) -> list[Document]:
    """Return the stages that add up the entries of a part of an index.

    Args:
        part: The conditions that select the part.
        group_by: The groups.
        groups_max: The most groups; the result can have one more.
    """
    sums = {
        "entries": {"$sum": 1},
        "credits_in": {"$sum": {"$max": [_EFFECT, 0]}},
        "credits_out": {"$sum": {"$max": [{"$multiply": [-1, _EFFECT]}, 0]}},
        "spent": _credits_of(Kind.USE),
        "expired": _credits_of(Kind.EXPIRE),
        "refunded": _credits_of(Kind.REFUND),
    }
    return [
        {"$match": part},
        {"$limit": SUMMARIZED_MAX + 1},
        {"$group": {"_id": {"$cond": [_IS_SOUND, _GROUPS[group_by], _MALFORMED]}, **sums}},
        {"$sort": {"_id": 1}},
        {"$limit": groups_max + 1},
    ]


# Any: a document holds values of many types.
def summary_row(document: dict[str, Any]) -> SummaryRow:
    """Return the sums of a group.

    Raises:
        Unreadable: The group has a malformed entry, or its name is not UTF-8.
    """
    group = document["_id"]
    if group is _MALFORMED or not _is_text(group):
        fault = Unreadable("a transaction is not valid, so sums cannot be computed")
        report(fault)
        raise fault
    numbers = (int(document[name]) for name in SummaryRow._fields[1:])
    return SummaryRow(group, *numbers)


def _is_text(group: str | int) -> bool:
    """Return whether a name can be sent: bytes that are not UTF-8 were decoded as surrogates."""
    return isinstance(group, int) or not any("\ud800" <= each <= "\udfff" for each in group)
