"""Find the entries of a query in memory, with the steps of the MongoDB store.

These are: take the entries in the range of an index, then those that may be examined, then those
that satisfy the conditions that no index serves.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from credit_models.ledger import NO_DETAILS, UINT32_MAX, Kind, Purchase, Transaction

from credit_server.store.history import (
    EXAMINED_MAX,
    SUMMARIZED_MAX,
    GroupBy,
    HistoryQuery,
    Page,
    Position,
    PurchaseQuery,
    PurchaseRow,
    RowDetails,
    RowT,
    Summary,
    SummaryRow,
    TransactionQuery,
    TransactionRow,
    milliseconds_up,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Entry = TypeVar("_Entry", Transaction, Purchase)


def find_page(
    query: HistoryQuery, entries: Collection[_Entry], now: float, to_row: Callable[[_Entry], RowT]
) -> Page[RowT]:
    """Return a page of a query.

    Args:
        query: The query.
        entries: All entries of the store.
        now: The store's time, in seconds since 1970.
        to_row: Makes a row from an entry.
    """
    scanned, settled_until = _scanned(query, entries, now)
    if query.user_id is not None:
        return _page(query, scanned, to_row, lambda entry: entry.sequence, None)
    return _page(query, scanned, to_row, _position, settled_until)


def _scanned(
    query: HistoryQuery, entries: Collection[_Entry], now: float
) -> tuple[list[_Entry], int | None]:
    """Return the entries in the range of an index, and the end of the settled ones in an app."""
    if query.user_id is not None:
        scanned = [entry for entry in entries if _in_history(query, entry)]
        scanned.sort(key=lambda entry: entry.sequence, reverse=query.newest_first)
        return scanned, None
    settled_until = int((now - query.settling_seconds) * 1000)
    first, end = query.positions(settled_until)
    scanned = [
        entry
        for entry in entries
        if entry.app_id in (query.apps or ()) and first <= _position(entry) < end
    ]
    scanned.sort(key=_position, reverse=query.newest_first)
    return scanned, settled_until


def summary_of(
    query: HistoryQuery, entries: Collection[Transaction], now: float, group_by: GroupBy
) -> Summary:
    """Return sums of transactions; see `find_page`."""
    scanned, settled_until = _scanned(query, entries, now)
    groups: dict[str | int, list[Transaction]] = {}
    for entry in scanned[: SUMMARIZED_MAX + 1]:
        groups.setdefault(_group_of(entry, group_by), []).append(entry)
    ordered = sorted(groups.items())[: query.limit + 1]
    return Summary([_sums_of(group, some) for group, some in ordered], settled_until)


def _group_of(entry: Transaction, group_by: GroupBy) -> str | int:
    return {
        GroupBy.NOTHING: "",
        GroupBy.DAY: f"{entry.created_at:%Y-%m-%d}",
        GroupBy.MONTH: f"{entry.created_at:%Y-%m}",
        GroupBy.KIND: entry.kind.value,
        GroupBy.REPORT: entry.report_id,
        GroupBy.APP: entry.app_id,
    }[group_by]


def _sums_of(group: str | int, entries: Sequence[Transaction]) -> SummaryRow:
    def credits_of(kind: Kind) -> int:
        return sum(entry.credits for entry in entries if entry.kind is kind)

    return SummaryRow(
        group=group,
        entries=len(entries),
        credits_in=sum(max(0, entry.effect) for entry in entries),
        credits_out=sum(max(0, -entry.effect) for entry in entries),
        spent=credits_of(Kind.USE),
        expired=credits_of(Kind.EXPIRE),
        refunded=credits_of(Kind.REFUND),
    )


def _page(
    query: HistoryQuery,
    scanned: Sequence[_Entry],
    to_row: Callable[[_Entry], RowT],
    place: Callable[[_Entry], int | Position],
    settled_until: int | None,
) -> Page[RowT]:
    conditions = _conditions(query)
    examined = scanned[:EXAMINED_MAX] if conditions else scanned
    found = [entry for entry in examined if all(each(entry) for each in conditions)]
    rows = [to_row(entry) for entry in found[: query.limit]]
    if len(found) > query.limit:
        return Page(rows, place(found[query.limit - 1]), settled_until)
    full = bool(conditions) and len(examined) == EXAMINED_MAX
    return Page(rows, place(examined[-1]) if full else None, settled_until)


def _position(entry: _Entry) -> Position:
    return Position(_milliseconds(entry.created_at), entry.id)


def _in_history(query: HistoryQuery, entry: _Entry) -> bool:
    """Return whether an entry is in the part of an index that a query of a user scans."""
    before, created_at = query.before_sequence, _milliseconds(entry.created_at)
    related = query.related_id if isinstance(query, TransactionQuery) else ""
    refers_to = entry.details.related_id if isinstance(entry, Transaction) else ""
    return (
        entry.user_id == query.user_id
        and entry.sequence > query.after_sequence
        and (before is None or entry.sequence < before)
        and (query.created_from is None or created_at >= milliseconds_up(query.created_from))
        and (query.created_until is None or created_at < milliseconds_up(query.created_until))
        and related in ("", refers_to)
        and (bool(related) or query.apps is None or entry.app_id in query.apps)
        and (not _uses_report_index(query) or entry.report_id == query.report_id)
    )


def _uses_report_index(query: HistoryQuery) -> bool:
    return isinstance(query, PurchaseQuery) and query.uses_report_index


# Any: transactions and purchases have conditions of their own.
def _conditions(query: HistoryQuery) -> list[Callable[[Any], bool]]:
    """Return the conditions of a query that no index serves."""
    conditions: list[Callable[[Any], bool]] = []
    if query.credits_min > 0 or query.credits_max < UINT32_MAX:
        conditions.append(lambda entry: query.credits_min <= entry.credits <= query.credits_max)
    if query.report_id and not _uses_report_index(query):
        conditions.append(lambda entry: entry.report_id == query.report_id)
    if query.created_by is not None:
        conditions.append(lambda entry: entry.created_by == query.created_by)
    if isinstance(query, TransactionQuery):
        conditions += _transaction_conditions(query)
    elif isinstance(query, PurchaseQuery) and query.refunded is not None:
        conditions.append(lambda entry: (entry.refunded_credits > 0) == query.refunded)
    return conditions


def _transaction_conditions(query: TransactionQuery) -> list[Callable[[Transaction], bool]]:
    conditions: list[Callable[[Transaction], bool]] = []
    apps = query.apps
    if query.related_id and apps is not None:
        conditions.append(lambda entry: entry.app_id in apps)
    if query.kinds:
        conditions.append(lambda entry: entry.kind in query.kinds)
    if query.metadata:
        conditions.append(lambda entry: set(query.metadata) <= set(entry.details.metadata))
    if query.grant_id:
        conditions.append(
            lambda entry: query.grant_id in (part.grant_id for part in entry.details.allocations)
        )
    return conditions


def effective_at(entry: Transaction) -> datetime:
    """Return the time at which an entry took effect: it can be written later."""
    return min(entry.details.effective_at or entry.created_at, entry.created_at)


def transaction_row(entry: Transaction) -> TransactionRow:
    """Return the row of a transaction."""
    return TransactionRow(
        id=entry.id,
        user_id=entry.user_id,
        app_id=entry.app_id,
        credits=entry.credits,
        created_at=_milliseconds(entry.created_at),
        created_by=entry.created_by,
        kind=entry.kind,
        balance_after=entry.balance_after,
        sequence=entry.sequence,
        purchase_id=entry.purchase_id,
        key=entry.key,
        report_id=entry.report_id,
        report_name=entry.report_name,
        details=_row_details(entry),
        previous_hash=entry.previous_hash,
        hash=entry.hash,
    )


def _row_details(entry: Transaction) -> RowDetails | None:
    details = entry.details
    # A list does not contain the recorded request.
    if entry.kind in (Kind.ADD, Kind.USE) and replace(details, request=()) == NO_DETAILS:
        return None
    return RowDetails(
        effect=entry.effect,
        related_id=details.related_id,
        effective_at=None if details.effective_at is None else _milliseconds(details.effective_at),
        ends_at=None if details.ends_at is None else _milliseconds(details.ends_at),
        allocations=tuple((part.grant_id, part.credits) for part in details.allocations),
        metadata=details.metadata,
        note=details.note,
    )


def purchase_row(purchase: Purchase) -> PurchaseRow:
    """Return the row of a purchase."""
    return PurchaseRow(
        id=purchase.id,
        user_id=purchase.user_id,
        app_id=purchase.app_id,
        report_id=purchase.report_id,
        report_name=purchase.report_name,
        credits=purchase.credits,
        created_at=_milliseconds(purchase.created_at),
        created_by=purchase.created_by,
        transaction_id=purchase.transaction_id,
        sequence=purchase.sequence,
        refunded_credits=purchase.refunded_credits,
    )


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)
