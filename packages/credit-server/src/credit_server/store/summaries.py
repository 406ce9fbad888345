"""Add up transactions in MongoDB: the stages of an aggregation, and the rows of its result."""

from typing import Any

from credit_models.ledger import Kind

from credit_server.store.driver import Document
from credit_server.store.history import SUMMARIZED_MAX, GroupBy, SummaryRow

_GROUPS: dict[GroupBy, object] = {
    GroupBy.NOTHING: "",
    GroupBy.DAY: {"$dateToString": {"format": "%Y-%m-%d", "date": "$created_at"}},
    GroupBy.MONTH: {"$dateToString": {"format": "%Y-%m", "date": "$created_at"}},
    GroupBy.KIND: "$type",
    GroupBy.REPORT: {"$ifNull": ["$fingerprint.report_id", ""]},
    GroupBy.APP: "$app_id",
}


def _of_sign(sign: int) -> list[str]:
    return [kind.value for kind in Kind if kind.sign == sign]


def _if(kinds: list[str], value: object, otherwise: object) -> Document:
    return {"$cond": [{"$in": ["$type", kinds]}, value, otherwise]}


_LESS = {"$multiply": [-1, "$credits"]}
_BY_SIGN = _if(_of_sign(1), "$credits", _if(_of_sign(-1), _LESS, 0))
_EFFECT = {"$ifNull": ["$delta", _BY_SIGN]}


def _credits_of(kind: Kind) -> Document:
    return {"$sum": _if([kind.value], "$credits", 0)}


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
        {"$group": {"_id": _GROUPS[group_by], **sums}},
        {"$sort": {"_id": 1}},
        {"$limit": groups_max + 1},
    ]


# Any: a document holds values of many types.
def summary_row(document: dict[str, Any]) -> SummaryRow:
    """Return the sums of a group."""
    numbers = (int(document[name]) for name in SummaryRow._fields[1:])
    return SummaryRow(document["_id"], *numbers)
