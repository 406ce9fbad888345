"""Predict refunds of uses, and reversals of credits that were added."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from credit_models import TransactionType

from credit_testing.accounts.book import shown
from credit_testing.accounts.model import (
    BASE,
    LIVE_MAX,
    UINT32_MAX,
    Entry,
    Fact,
    Terms,
    period_start,
    split,
)
from credit_testing.accounts.rules.decision import Decision, reject, short
from credit_testing.accounts.rules.grants import PLACING

_ADDED = (TransactionType.ADD, *PLACING)


# Any, in all rules: the request has the type of the rule.
def reverse(on: Decision) -> Entry:
    """Take back an addition, or refund a purchase."""
    request: Any = on.request
    fact = on.fact(request.transaction_id, "TRANSACTION_NOT_FOUND", "transaction_id")
    if fact.type is not TransactionType.USE and fact.type not in _ADDED:
        raise reject("NOT_REVERSIBLE", type=fact.type.name)
    on.revision()
    if fact.type is TransactionType.USE:
        return _refund(on, request, fact)
    return _revoke(on, request, fact)


def _refund(on: Decision, request: Any, fact: Fact) -> Entry:
    left = fact.credits - fact.taken_back
    credits_ = request.credits or left
    if not 0 < credits_ <= left:
        raise reject("REVERSAL_EXCEEDS", reversible=left, required=request.credits or 0)
    if on.app.coming + credits_ > UINT32_MAX:
        raise reject("BALANCE_OVERFLOW", balance=on.app.coming, credits=credits_)
    _, open_ = split(fact.pieces, fact.taken_back)
    back, _ = split(open_, credits_)
    until = request.restore_until
    gone = {
        terms.id
        for terms, _ in back
        if terms.id != BASE and terms.id not in on.app.lots and not _ended(terms, on.now, until)
    }
    if gone and len(on.app.lots) + len(gone) > LIVE_MAX:
        raise reject("GRANTS_FULL", limit=LIVE_MAX)
    given = on.app.put(back, on.now, request.created_by, until)
    if fact.sequence >= on.app.since:
        used_at = on.stored.bought[request.transaction_id].entry.at
        on.app.spent = {
            period: (start, spent - credits_ * (start == period_start(period, used_at)))
            for period, (start, spent) in on.app.spent.items()
        }
    refunded = fact.taken_back + credits_
    on.book.note(on.user, request.transaction_id, taken_back=refunded)
    bought = on.book.accounts[on.user].bought
    bought[request.transaction_id] = replace(bought[request.transaction_id], refunded=refunded)
    return on.write(
        TransactionType.REFUND,
        credits_,
        credits_,
        related_id=request.transaction_id,
        allocations=shown(given),
    )


def _ended(terms: Terms, now: datetime, until: datetime | None) -> bool:
    ends_at = terms.ends_at
    if ends_at is None or ends_at > now:
        return False
    return until is None or until <= now


def _revoke(on: Decision, request: Any, fact: Fact) -> Entry:
    lot = None
    if fact.lot == BASE:
        there = max(0, on.app.base)
    else:
        lot = None if fact.closed else on.app.lots.get(fact.lot)
        there = 0 if lot is None else lot.left
    left = fact.credits - fact.taken_back if there else 0
    credits_ = request.credits or min(left, there)
    if not 0 < credits_ <= left:
        raise reject("REVERSAL_EXCEEDS", reversible=left, required=request.credits or 0)
    if credits_ > there:
        raise short(there, credits_)
    later = lot is not None and lot.starts_at is not None
    if lot is None:
        on.app.base -= credits_
    else:
        on.app.lots[fact.lot] = replace(lot, left=lot.left - credits_)
    on.book.note(on.user, request.transaction_id, taken_back=fact.taken_back + credits_)
    return on.write(
        TransactionType.REVOKE,
        credits_,
        0 if later else -credits_,
        related_id=request.transaction_id,
        allocations=() if lot is None else ((fact.lot, credits_),),
    )
