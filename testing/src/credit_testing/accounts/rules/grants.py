"""Predict how grants are made and voided."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from credit_models import TransactionType

from credit_testing.accounts.book import shown
from credit_testing.accounts.model import BASE, LIVE_MAX, Entry, Lot, Piece, Terms
from credit_testing.accounts.rules.decision import Decision, milliseconds, reject


# Any, in all rules: the request has the type of the rule.
def grant(on: Decision) -> Entry:
    """Add a grant."""
    request: Any = on.request
    starts_at = max(request.effective_at or on.now, on.now)
    ends_at = request.expires_at
    if request.expires_after_seconds is not None:
        ends_at = starts_at + timedelta(seconds=request.expires_after_seconds)
    if ends_at is not None and ends_at <= starts_at:
        raise reject(
            "EXPIRES_TOO_EARLY",
            expires_at=milliseconds(ends_at),
            starts_at=milliseconds(starts_at),
        )
    on.revision()
    on.room(on.user, request.app_id, on.app, request.credits)
    terms = Terms(
        id=on.book.next_id(on.user),
        age=on.book.accounts[on.user].sequence + 1,
        priority=500 if request.priority is None else request.priority,
        category=request.category,
        ends_at=ends_at,
    )
    lot = Lot(
        terms=terms,
        credits=request.credits,
        left=request.credits,
        created_by=request.created_by,
        starts_at=starts_at if starts_at > on.now else None,
    )
    given: list[Piece] | None
    if lot.starts_at is None:
        given = on.app.place(lot)
    elif len(on.app.lots) >= LIVE_MAX:
        given = None
    else:
        on.app.lots[terms.id] = lot
        given = [(terms, lot.left)]
    if given is None:
        raise reject("GRANTS_FULL", limit=LIVE_MAX)
    later = lot.starts_at is not None
    main = on.write(
        TransactionType.SCHEDULE if later else TransactionType.GRANT,
        request.credits,
        0 if later else request.credits,
        allocations=shown(given),
        effective_at=lot.starts_at,
        expires_at=ends_at,
    )
    on.book.note(on.user, main.id, lot=home_of(given))
    return main


def home_of(given: list[Piece]) -> str:
    """Return the grant to which credits were added; `BASE` for none."""
    return next((terms.id for terms, _ in given if terms.id != BASE), BASE)


PLACING = (TransactionType.GRANT, TransactionType.SCHEDULE, TransactionType.TRANSFER_IN)


def void(on: Decision) -> Entry:
    """Take back what is left of a grant."""
    request: Any = on.request
    fact = on.fact(request.grant_id, "GRANT_NOT_FOUND", "grant_id")
    if fact.type not in PLACING:
        raise reject("GRANT_NOT_FOUND", grant_id=request.grant_id)
    lot = on.app.lots.get(request.grant_id)
    if lot is None or not lot.left:
        raise reject("GRANT_EMPTY", grant_id=request.grant_id)
    on.revision()
    later = lot.starts_at is not None
    # Credits that holds return to the grant expire at once, so the grant counts as ended.
    ended = replace(lot.terms, ends_at=on.now)
    on.app.lots[request.grant_id] = replace(lot, left=0, terms=ended, starts_at=None)
    on.book.note(on.user, request.grant_id, closed=True)
    facts = on.book.accounts[on.user].facts
    for id_, used in facts.items():
        if any(terms.id == request.grant_id for terms, _ in used.pieces):
            # A refund of a purchase that it paid for treats it as ended.
            facts[id_] = replace(used, pieces=_ended_pieces(used.pieces, ended))
    return on.write(
        TransactionType.VOID,
        lot.left,
        0 if later else -lot.left,
        related_id=request.grant_id,
        allocations=((request.grant_id, lot.left),),
    )


def _ended_pieces(pieces: tuple[Piece, ...], ended: Terms) -> tuple[Piece, ...]:
    return tuple(
        (replace(terms, ends_at=ended.ends_at) if terms.id == ended.id else terms, credits_)
        for terms, credits_ in pieces
    )
