"""Predict how holds are placed, captured, released and extended."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from credit_models import TransactionType

from credit_testing.accounts.book import shown
from credit_testing.accounts.model import BASE, LIVE_MAX, Entry, OpenHold, split, total
from credit_testing.accounts.rules.decision import Decision, milliseconds, reject, short

HOLD_DEFAULT, HOLD_MAX = timedelta(minutes=15), timedelta(days=7)


# Any, in all rules: the request has the type of the rule.
def place(on: Decision) -> Entry:
    """Reserve credits."""
    request: Any = on.request
    on.revision()
    available = on.app.available
    held = min(request.credits, available) if request.allow_partial else request.credits
    on.within_caps(held)
    if not held:
        raise short(available, request.credits)
    on.enough(held)
    if len(on.app.holds) >= LIVE_MAX:
        raise reject("HOLDS_FULL", limit=LIVE_MAX)
    after = request.expires_after_seconds
    ends_at = on.now + (HOLD_DEFAULT if after is None else timedelta(seconds=after))
    hold = OpenHold(
        id=on.book.next_id(on.user),
        age=on.book.accounts[on.user].sequence + 1,
        pieces=on.app.take(held),
        placed_at=on.now,
        ends_at=ends_at,
        created_by=request.created_by,
        purpose=request.purpose,
    )
    on.app.holds[hold.id] = hold
    return on.write(
        TransactionType.HOLD,
        held,
        -held,
        allocations=shown(hold.pieces),
        expires_at=ends_at,
        held=held,
    )


def _open_hold(on: Decision, id_: str) -> OpenHold:
    hold = on.app.holds.get(id_)
    if hold is not None:
        return hold
    fact = on.fact(id_, "HOLD_NOT_FOUND", "hold_id")
    if fact.type is not TransactionType.HOLD:
        raise reject("HOLD_NOT_FOUND", hold_id=id_)
    assert fact.settled is not None
    reason, captured, released, at = fact.settled
    raise reject(reason, captured=captured, released=released, settled_at=milliseconds(at))


def capture(on: Decision) -> Entry:
    """Buy with held credits."""
    request: Any = on.request
    hold = _open_hold(on, request.hold_id)
    on.revision()
    price = request.credits or hold.held
    excess = max(0, price - hold.held)
    if excess and not request.allow_excess:
        raise reject("HOLD_EXCEEDED", held=hold.held, required=price)
    if excess:
        on.within_caps(excess)
    on.enough(excess)
    captured, rest = split(hold.pieces, price)
    # The terms of a grant may have changed since the hold. A held grant stays in the account.
    captured = tuple(
        (terms if terms.id == BASE else on.app.lots[terms.id].terms, credits_)
        for terms, credits_ in captured
    )
    keeps = request.final is False and bool(rest)
    more = on.app.take(excess)
    freed = () if keeps else rest
    if keeps:
        on.app.holds[hold.id] = replace(hold, pieces=rest, captured=hold.captured + total(captured))
    else:
        del on.app.holds[hold.id]
    kept = total(rest) if keeps else 0
    given = on.app.put(freed, on.now, request.created_by)
    back = total(captured) + total(given)
    on.book.write(
        *(on.user, request.app_id, on.app, TransactionType.RELEASE, back, back),
        related_id=hold.id,
        allocations=shown([*captured, *given]),
        created_by=request.created_by,
    )
    main = on.buy((*captured, *more), price, related_id=hold.id, held=kept, released=total(freed))
    if not keeps:
        so_far = hold.captured + total(captured)
        placed = on.book.accounts[on.user].facts[hold.id].credits
        settled = ("HOLD_ALREADY_CAPTURED", so_far, placed - so_far, on.now)
        on.book.note(on.user, hold.id, settled=settled)
    return main


def release(on: Decision) -> Entry:
    """Return held credits."""
    request: Any = on.request
    hold = _open_hold(on, request.hold_id)
    on.revision()
    del on.app.holds[hold.id]
    given = on.app.put(hold.pieces, on.now, request.created_by)
    settled = ("HOLD_ALREADY_RELEASED", hold.captured, hold.held, on.now)
    on.book.note(on.user, hold.id, settled=settled)
    return on.write(
        TransactionType.RELEASE,
        hold.held,
        hold.held,
        related_id=hold.id,
        allocations=shown(given),
        released=hold.held,
    )


def extend(on: Decision) -> Entry:
    """Give a hold a later end."""
    request: Any = on.request
    hold = _open_hold(on, request.hold_id)
    ends_at = on.now + timedelta(seconds=request.expires_after_seconds)
    if ends_at > hold.placed_at + HOLD_MAX:
        limit = int(HOLD_MAX.total_seconds())
        raise reject(
            "HOLD_LIFE_EXCEEDED", limit_seconds=limit, placed_at=milliseconds(hold.placed_at)
        )
    on.revision()
    on.app.holds[hold.id] = replace(hold, ends_at=ends_at)
    return on.write(
        TransactionType.EXTEND,
        hold.held,
        0,
        related_id=hold.id,
        expires_at=ends_at,
        held=hold.held,
    )
