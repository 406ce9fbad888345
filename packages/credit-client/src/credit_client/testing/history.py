"""The history of the fake: pages of transactions, and single ones."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from credit_models import (
    CreditTransaction,
    GetTransactionRequest,
    GetTransactionResponse,
    QueryTransactionsRequest,
    QueryTransactionsResponse,
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


def page_of(
    request: QueryTransactionsRequest, history: Sequence[CreditTransaction]
) -> QueryTransactionsResponse:
    """Return a page of a user's history. Unlike the server's, each but the last one is full.

    Args:
        request: The request.
        history: All transactions of the user, oldest first.

    Raises:
        Refused: The page token was not made for this request.
    """
    found = [each for each in history if _satisfies(request, each)]
    if not request.oldest_first:
        found.reverse()
    if request.page_token:
        start = _position(request)
        sequences = [each.sequence for each in found]
        found = found[sequences.index(start) + 1 :]
    size = min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MAX)
    token = f"{found[size - 1].sequence}-{_hash(request)}" if len(found) > size else ""
    return QueryTransactionsResponse(transactions=found[:size], next_page_token=token)


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


def _satisfies(request: QueryTransactionsRequest, each: CreditTransaction) -> bool:
    least, greatest = request.credits_min or 0, request.credits_max
    created_at, created_from = each.created_at, request.created_from
    created_until, before = request.created_until, request.before_sequence
    return (
        (request.app_id is None or each.app_id == request.app_id)
        and (not request.types or each.type in request.types)
        and (created_from is None or (created_at is not None and created_at >= created_from))
        and (created_until is None or (created_at is not None and created_at < created_until))
        and each.sequence > request.after_sequence
        and (before is None or each.sequence < before)
        and least <= each.credits <= (UINT32_MAX if greatest is None else greatest)
        and request.report_id in ("", each.report_id)
        and request.related_id in ("", each.related_id)
        and (not request.grant_id or request.grant_id in {at.grant_id for at in each.allocations})
        and (request.created_by is None or each.created_by == request.created_by)
        and request.metadata.items() <= each.metadata.items()
    )


def _position(request: QueryTransactionsRequest) -> int:
    """Return the sequence in the token of a request: that of the last transaction before."""
    sequence, _, found = request.page_token.partition("-")
    if not sequence.isdecimal() or found != _hash(request):
        raise Refused(*page_token_invalid())
    return int(sequence)


def _hash(request: QueryTransactionsRequest) -> str:
    return sha256(repr(replace(request, page_size=0, page_token="")).encode()).hexdigest()[:16]
