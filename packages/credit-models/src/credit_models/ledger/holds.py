"""Place, capture, release and extend holds.

A capture is a RELEASE of the held credits followed by a USE of them. Credits that were held before
their grant ended can be captured until the hold ends, because they were taken in time.
"""

from dataclasses import replace

from credit_models.ledger.app_draft import AppDraft
from credit_models.ledger.burning import Allocations, parts_of, recorded, split
from credit_models.ledger.caps import cap_exceeded, count_use
from credit_models.ledger.commands import (
    HOLD_DEFAULT,
    HOLD_MAX,
    CaptureHold,
    ExtendHold,
    Lookup,
    PlaceHold,
    ReleaseHold,
)
from credit_models.ledger.draft import Draft, Effects
from credit_models.ledger.invariants import invariant
from credit_models.ledger.outcomes import (
    AccountFull,
    HoldAlreadyCaptured,
    HoldAlreadyReleased,
    HoldExceeded,
    HoldExpired,
    HoldLifeExceeded,
    HoldNotFound,
    HoldsFull,
    InsufficientCredits,
    Refusal,
)
from credit_models.ledger.records import (
    ACCOUNT_ITEMS_MAX,
    HOLDS_MAX,
    Details,
    Hold,
    Kind,
    Transaction,
)
from credit_models.ledger.requests import details_of
from credit_models.ledger.uses import purchase_of


def place_hold(draft: Draft, command: PlaceHold) -> Effects | Refusal:
    """Reserve credits in burn order."""
    app = draft.app(command.app_id)
    if refusal := draft.revision_changed(command):
        return refusal
    available = app.available
    credits_ = min(command.credits, available) if command.allow_partial else command.credits
    if refusal := cap_exceeded(app, command.policy, credits_):
        return refusal
    if not 0 < credits_ <= available:
        return InsufficientCredits(available=available, required=command.credits)
    if len(app.holds) >= HOLDS_MAX:
        return HoldsFull(limit=HOLDS_MAX)
    parts = app.plan(credits_)
    if not app.has_items(1 + len(recorded(parts))):
        return AccountFull(limit=ACCOUNT_ITEMS_MAX)
    hold = Hold(
        id=command.transaction_id,
        sequence=draft.sequence + 1,
        credits=credits_,
        allocations=recorded(parts),
        placed_at=draft.at,
        ends_at=draft.at + (command.expires_after or HOLD_DEFAULT),
        purpose=command.purpose,
        created_by=command.created_by,
    )
    app.open_hold(hold)
    app.take(parts)
    main = draft.record_main(
        app,
        command,
        Kind.HOLD,
        credits_,
        details_of(
            command, allocations=hold.allocations, ends_at=hold.ends_at, held_after=credits_
        ),
    )
    return Effects(main=main)


def capture_hold(draft: Draft, command: CaptureHold, lookup: Lookup) -> Effects | Refusal:
    """Use held credits for a report; the balance pays what exceeds the hold."""
    app = draft.app(command.app_id)
    hold = _open_hold(draft, app, command.hold_id, lookup)
    if not isinstance(hold, Hold):
        return hold
    if refusal := draft.revision_changed(command):
        return refusal
    price = command.credits or hold.credits
    excess = max(0, price - hold.credits)
    if excess and not command.allow_excess:
        return HoldExceeded(held=hold.credits, required=price)
    if excess and (refusal := cap_exceeded(app, command.policy, excess)):
        return refusal
    if excess > app.available:
        return InsufficientCredits(available=app.available, required=excess)

    captured, rest = split(parts_of(hold.allocations, hold.credits), price)
    captured = app.of_present_terms(captured)
    kept = replace(
        hold,
        credits=0 if command.final else hold.credits - (price - excess),
        allocations=() if command.final else recorded(rest),
        captured=hold.captured + price - excess,
    )
    freed = hold.credits - kept.credits - (price - excess)
    app.change_hold(hold, kept)
    paid_by_balance = app.plan(excess)
    app.take(paid_by_balance)
    given = app.give_back(rest, at=app.at, created_by=command.created_by) if freed else ()
    _release(draft, app, command, hold, kept, (*captured, *given))
    count_use(app, command.policy, price, draft.sequence + 1)
    main = draft.record_main(
        app,
        command,
        Kind.USE,
        price,
        details_of(
            command,
            related_id=hold.id,
            related_total=kept.captured,
            allocations=recorded((*captured, *paid_by_balance)),
            ends_at=hold.ends_at,
            released=freed,
            held_after=kept.credits,
        ),
        purchase=(command.purchase_id, command.report_id, command.report_name),
    )
    app.drop_unneeded(hold.allocations)
    return Effects(main=main, purchase=purchase_of(main))


def _release(
    draft: Draft, app: AppDraft, command: CaptureHold, hold: Hold, kept: Hold, parts: Allocations
) -> None:
    """Add the RELEASE before the USE of a capture."""
    draft.record(
        app,
        Kind.RELEASE,
        sum(part.credits for part in parts),
        Details(
            related_id=hold.id,
            related_total=hold.captured,
            allocations=recorded(parts),
            held_after=kept.credits,
        ),
        created_by=command.created_by,
    )


def release_hold(draft: Draft, command: ReleaseHold, lookup: Lookup) -> Effects | Refusal:
    """Return all credits of a hold to the grants that they are from."""
    app = draft.app(command.app_id)
    hold = _open_hold(draft, app, command.hold_id, lookup)
    if not isinstance(hold, Hold):
        return hold
    if refusal := draft.revision_changed(command):
        return refusal
    app.drop_hold(hold)
    parts = parts_of(hold.allocations, hold.credits)
    given = app.give_back(parts, at=app.at, created_by=command.created_by)
    main = draft.record_main(
        app,
        command,
        Kind.RELEASE,
        hold.credits,
        details_of(
            command,
            related_id=hold.id,
            related_total=hold.captured,
            allocations=recorded(given),
            ends_at=hold.ends_at,
            released=hold.credits,
        ),
    )
    app.drop_unneeded(parts)
    return Effects(main=main)


def extend_hold(draft: Draft, command: ExtendHold, lookup: Lookup) -> Effects | Refusal:
    """Set a new end of a hold, which may be earlier."""
    app = draft.app(command.app_id)
    hold = _open_hold(draft, app, command.hold_id, lookup)
    if not isinstance(hold, Hold):
        return hold
    ends_at = draft.at + command.expires_after
    if ends_at > hold.placed_at + HOLD_MAX:
        limit_seconds = int(HOLD_MAX.total_seconds())
        return HoldLifeExceeded(limit_seconds=limit_seconds, placed_at=hold.placed_at)
    if refusal := draft.revision_changed(command):
        return refusal
    app.change_hold(hold, replace(hold, ends_at=ends_at))
    main = draft.record_main(
        app,
        command,
        Kind.EXTEND,
        hold.credits,
        details_of(
            command,
            related_id=hold.id,
            related_total=hold.captured,
            ends_at=ends_at,
            held_after=hold.credits,
        ),
    )
    return Effects(main=main)


_Settlement = HoldNotFound | HoldAlreadyCaptured | HoldAlreadyReleased | HoldExpired


def _open_hold(draft: Draft, app: AppDraft, hold_id: str, lookup: Lookup) -> Hold | _Settlement:
    """Return a hold that is open, or why it is not."""
    hold = app.find_hold(hold_id)
    if hold is not None:
        return hold
    placed = lookup.referenced
    if placed is None or placed.kind is not Kind.HOLD or placed.app_id != app.app_id:
        return HoldNotFound(hold_id=hold_id)
    # It may have ended just now: then its RELEASE is not written yet.
    due = (entry for entry in draft.entries if entry.details.related_id == hold_id)
    return _settlement(placed, next(due, lookup.latest_related))


def _settlement(placed: Transaction, latest: Transaction | None) -> _Settlement:
    """Return how a hold was settled, by the latest entry that is related to it."""
    invariant(latest is not None, "a hold that is not open was settled by an entry")
    assert latest is not None  # noqa: S101 - for the type checker
    details = latest.details
    captured = details.related_total
    released = placed.credits - captured
    settled_at = details.effective_at or latest.created_at
    if latest.kind is Kind.USE:
        return HoldAlreadyCaptured(captured=captured, released=released, settled_at=settled_at)
    if details.effective_at is None:
        return HoldAlreadyReleased(captured=captured, released=released, settled_at=settled_at)
    return HoldExpired(captured=captured, released=released, settled_at=settled_at)
