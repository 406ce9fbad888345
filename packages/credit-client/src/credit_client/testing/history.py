"""The history of the fake: pages of transactions and purchases, and single transactions."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar

from credit_models import (
    CreditTransaction,
    GetBalanceAtRequest,
    GetBalanceAtResponse,
    GetTransactionRequest,
    GetTransactionResponse,
    Purchase,
    QueryPurchasesRequest,
    QueryPurchasesResponse,
    QueryTransactionsRequest,
    QueryTransactionsResponse,
    SummarizeRequest,
    SummarizeResponse,
    Summary,
    SummaryGroup,
    TransactionType,
)
from credit_models.ledger import UINT32_MAX
from credit_models.translation.refusals import (
    key_not_found,
    page_token_invalid,
    transaction_not_found,
)

from credit_client.testing.ledger import Refused

# The sizes of pages: those of the contract.
_PAGE_SIZE = 100
_PAGE_SIZE_MAX = 1000

_Request = QueryTransactionsRequest | QueryPurchasesRequest
_RowT = TypeVar("_RowT", CreditTransaction, Purchase)


def page_of(
    request: QueryTransactionsRequest, history: Sequence[CreditTransaction], now: datetime
) -> QueryTransactionsResponse:
    """Return a page of transactions. Unlike the server's, each but the last one is full.

    A page of an app has the latest transactions too, since nothing can appear before them.

    Args:
        request: The request.
        history: All transactions, of the request's user if it has one, the oldest first.
        now: The time.
    """
    found = [each for each in history if _satisfies(request, each)]
    rows, token = _page(request, found)
    return QueryTransactionsResponse(
        transactions=rows, next_page_token=token, complete_until=_complete_until(request, now)
    )


def purchase_page_of(
    request: QueryPurchasesRequest, history: Sequence[Purchase], now: datetime
) -> QueryPurchasesResponse:
    """Return a page of purchases; see `page_of`."""
    found = [
        each
        for each in history
        if _satisfies_all(request, each) and request.refunded in (None, each.refunded_credits > 0)
    ]
    rows, token = _page(request, found)
    return QueryPurchasesResponse(
        purchases=rows, next_page_token=token, complete_until=_complete_until(request, now)
    )


def _complete_until(request: _Request | SummarizeRequest, now: datetime) -> datetime | None:
    if request.user_id is not None or _is_later_page(request):
        return None
    # A transaction of this millisecond is returned, so the next one begins the rest.
    return now + timedelta(milliseconds=1)


def _is_later_page(request: _Request | SummarizeRequest) -> bool:
    """Return whether a page does not contain what was written since the first page."""
    if isinstance(request, SummarizeRequest):
        return False
    return bool(request.page_token) and not request.oldest_first


def _page(request: _Request, found: list[_RowT]) -> tuple[list[_RowT], str]:
    """Return the rows of a page, and the token of the next one.

    Args:
        request: The request.
        found: All rows that satisfy it, the oldest first.

    Raises:
        Refused: The page token was not made for this request.
    """
    if request.user_id is None:
        found = sorted(found, key=_position)
    if not request.oldest_first:
        found = found[::-1]
    if request.page_token:
        id_, _, hash_ = request.page_token.partition("-")
        ids = [each.id for each in found]
        if id_ not in ids or hash_ != _hash(request):
            raise Refused(*page_token_invalid())
        found = found[ids.index(id_) + 1 :]
    size = min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MAX)
    token = f"{found[size - 1].id}-{_hash(request)}" if len(found) > size else ""
    return found[:size], token


def _position(row: CreditTransaction | Purchase) -> tuple[datetime, str]:
    assert row.created_at is not None  # noqa: S101 - the contract requires it
    return row.created_at, row.id


def one_of(
    request: GetTransactionRequest, entries: Sequence[CreditTransaction]
) -> GetTransactionResponse:
    """Return the transaction that a request names.

    Args:
        request: The request.
        entries: All transactions, of the request's user if it has one.

    Raises:
        Refused: There is no such transaction.
    """
    key = (request.app_id, request.idempotency_key)
    for each in entries:
        if request.transaction_id == each.id or key == (each.app_id, each.idempotency_key):
            return GetTransactionResponse(transaction=each)
    if request.transaction_id:
        raise Refused(*transaction_not_found(request.transaction_id))
    raise Refused(*key_not_found(request.idempotency_key))


def summaries_of(
    request: SummarizeRequest, history: Sequence[CreditTransaction], now: datetime
) -> SummarizeResponse:
    """Return sums of transactions. Unlike the server's, their number has no limit.

    Args:
        request: The request.
        history: All transactions, of the request's user if it has one.
        now: The time.
    """
    query = QueryTransactionsRequest(
        app_id=request.app_id,
        created_from=request.created_from,
        created_until=request.created_until,
    )
    groups: dict[Any, list[CreditTransaction]] = {}
    for each in history:
        if _satisfies(query, each):
            groups.setdefault(_group_of(each, request.group_by), []).append(each)
    return SummarizeResponse(
        summaries=[_sums_of(groups[key], request.group_by) for key in sorted(groups)],
        complete_until=_complete_until(request, now),
    )


# Any: the value by which groups are ordered.
def _group_of(each: CreditTransaction, group_by: SummaryGroup) -> Any:
    return {
        SummaryGroup.DAY: f"{each.created_at:%Y-%m-%d}",
        SummaryGroup.MONTH: f"{each.created_at:%Y-%m}",
        SummaryGroup.TYPE: each.type.name,
        SummaryGroup.REPORT: each.report_id if each.type is TransactionType.USE else "",
        SummaryGroup.APP: each.app_id,
    }.get(group_by, "")


def _sums_of(entries: Sequence[CreditTransaction], group_by: SummaryGroup) -> Summary:
    def credits_of(type_: TransactionType) -> int:
        return sum(each.credits for each in entries if each.type is type_)

    first, effects = entries[0], [each.effect for each in entries]
    found = Summary(
        transactions=len(entries),
        credits_in=sum(effect for effect in effects if effect > 0),
        credits_out=-sum(effect for effect in effects if effect < 0),
        spent=credits_of(TransactionType.USE),
        expired=credits_of(TransactionType.EXPIRE),
        refunded=credits_of(TransactionType.REFUND),
    )
    created_at, _ = _position(first)
    midnight = created_at.replace(hour=0, minute=0, second=0, microsecond=0)
    match group_by:
        case SummaryGroup.DAY:
            found.starts_at = midnight
        case SummaryGroup.MONTH:
            found.starts_at = midnight.replace(day=1)
        case SummaryGroup.TYPE:
            found.type = first.type
        case SummaryGroup.REPORT:
            found.report_id = first.report_id if first.type is TransactionType.USE else ""
        case SummaryGroup.APP:
            found.app_id = first.app_id
        case _:
            pass
    return found


def balance_at(
    request: GetBalanceAtRequest, history: Sequence[CreditTransaction], now: datetime
) -> GetBalanceAtResponse:
    """Return the balance of a user in an app at an earlier time, or after a transaction.

    Args:
        request: The request.
        history: All transactions of the user, oldest first, with all that is due by time.
        now: The time.
    """
    at = None if request.at is None else min(request.at, now)
    counted = [
        each
        for each in history
        if each.app_id == request.app_id
        and (each.sequence <= (request.sequence or 0) if at is None else _effective_at(each) <= at)
    ]
    if not counted:
        return GetBalanceAtResponse(as_of=at)
    last = counted[-1]
    return GetBalanceAtResponse(
        balance=last.balance_after, owed=last.owed_after, sequence=last.sequence, as_of=at
    )


def _effective_at(each: CreditTransaction) -> datetime:
    assert each.created_at is not None  # noqa: S101 - the contract requires it
    return min(each.effective_at or each.created_at, each.created_at)


def _satisfies(request: QueryTransactionsRequest, each: CreditTransaction) -> bool:
    return (
        _satisfies_all(request, each)
        and (not request.types or each.type in request.types)
        and request.related_id in ("", each.related_id)
        and (not request.grant_id or request.grant_id in {at.grant_id for at in each.allocations})
        and request.metadata.items() <= each.metadata.items()
    )


def _satisfies_all(request: _Request, each: CreditTransaction | Purchase) -> bool:
    """Return whether a row satisfies the conditions that both queries have."""
    least, greatest = request.credits_min or 0, request.credits_max
    created_at, created_from = each.created_at, request.created_from
    created_until, before = request.created_until, request.before_sequence
    return (
        (request.app_id is None or each.app_id == request.app_id)
        and (created_from is None or (created_at is not None and created_at >= created_from))
        and (created_until is None or (created_at is not None and created_at < created_until))
        and each.sequence > request.after_sequence
        and (before is None or each.sequence < before)
        and least <= each.credits <= (UINT32_MAX if greatest is None else greatest)
        and request.report_id in ("", each.report_id)
        and (request.created_by is None or each.created_by == request.created_by)
    )


def _hash(request: _Request) -> str:
    return sha256(repr(replace(request, page_size=0, page_token="")).encode()).hexdigest()[:16]
