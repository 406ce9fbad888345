"""Predict additions, uses, transfers, adjustments and spending caps."""

from dataclasses import replace
from typing import Any

from credit_models import SpendingCaps, TransactionType

from credit_testing.accounts.book import shown
from credit_testing.accounts.model import (
    BASE,
    LIVE_MAX,
    UINT32_MAX,
    Entry,
    Lot,
    Piece,
    Terms,
    total,
)
from credit_testing.accounts.rules.decision import Decision, reject, short
from credit_testing.accounts.rules.grants import home_of


# Any, in all rules: the request has the type of the rule.
def add(on: Decision) -> Entry:
    """Add credits."""
    request: Any = on.request
    on.revision()
    on.room(on.user, request.app_id, on.app, request.credits)
    on.app.base += request.credits
    return on.write(TransactionType.ADD, request.credits, request.credits)


def use(on: Decision) -> Entry:
    """Buy a report."""
    request: Any = on.request
    on.revision()
    if request.once:
        owned = [
            bought
            for bought in on.stored.bought.values()
            if bought.entry.app_id == request.app_id
            and bought.entry.report[0] == request.report_id
            and bought.refunded < bought.entry.credits
        ]
        if owned:
            raise reject("ALREADY_PURCHASED", purchase_of=owned[-1].entry.id)
    on.within_caps(request.credits)
    on.enough(request.credits)
    return on.buy(on.app.take(request.credits), request.credits)


def transfer(on: Decision) -> Entry:
    """Move credits to another user or app."""
    request: Any = on.request
    to_user = request.to_user_id or request.user_id
    to_app = request.to_app_id or request.app_id
    on.book.settle(to_user, to_app)
    on.revision()
    on.enough(request.credits)
    there = on.book.app(to_user, to_app)
    on.room(to_user, to_app, there, request.credits)
    pieces = on.app.take(request.credits)
    main = on.write(
        TransactionType.TRANSFER_OUT,
        request.credits,
        -request.credits,
        related_id=on.book.next_id(to_user, 2 if to_user == on.user else 1),
        allocations=shown(pieces),
    )
    for terms, credits_ in pieces:
        id_, age = on.book.next_id(to_user), on.book.accounts[to_user].sequence + 1
        given: list[Piece] | None
        if terms.id == BASE:
            there.base += credits_
            given = [(terms, credits_)]
        else:
            lot = Lot(
                terms=replace(terms, id=id_, age=age),
                credits=credits_,
                left=credits_,
                created_by=request.created_by,
            )
            given = there.place(lot)
        if given is None:
            raise reject("GRANTS_FULL", limit=LIVE_MAX)
        received = on.book.write(
            *(to_user, to_app, there, TransactionType.TRANSFER_IN, credits_, credits_),
            related_id=main.id,
            allocations=shown(given),
            expires_at=terms.ends_at,
            created_by=request.created_by,
        )
        on.book.note(to_user, received.id, lot=home_of(given))
    return main


def adjust(on: Decision) -> Entry:
    """Correct a balance; it may become a debt."""
    request: Any = on.request
    on.revision()
    credits_ = abs(request.delta)
    pieces: tuple[Piece, ...] = ()
    if request.delta > 0:
        on.room(on.user, request.app_id, on.app, credits_)
        on.app.base += credits_
    else:
        least = -UINT32_MAX if on.rules.allow_negative else 0
        if on.app.balance - credits_ < least:
            raise short(on.app.available, credits_)
        on.new_app(on.user, request.app_id)
        pieces = on.app.take(min(credits_, on.app.available))
        debt = credits_ - total(pieces)
        on.app.base -= debt
        pieces += ((Terms(), debt),) if debt else ()
    return on.write(TransactionType.ADJUST, credits_, request.delta, allocations=shown(pieces))


def set_cap(on: Decision) -> Entry:
    """Set or remove the caps of a user."""
    request: Any = on.request
    on.revision()
    on.new_app(on.user, request.app_id)
    caps = request.caps or SpendingCaps()
    on.app.caps = caps_of(caps)
    on.count(0)
    least = min(on.app.caps.values(), default=UINT32_MAX)
    return on.write(TransactionType.CAP, least, 0)


def caps_of(caps: SpendingCaps) -> dict[str, int]:
    """Return the caps of a message by period."""
    given = {"hour": caps.per_hour, "day": caps.per_day, "month": caps.per_month}
    return {period: cap for period, cap in given.items() if cap is not None}
