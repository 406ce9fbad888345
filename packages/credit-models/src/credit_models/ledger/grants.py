"""Grant credits with terms of their own, and take back what is left of a grant."""

from datetime import datetime

from credit_models.ledger.burning import of_grant, recorded
from credit_models.ledger.commands import GrantCredits, Lookup, VoidGrant
from credit_models.ledger.draft import Draft, Effects
from credit_models.ledger.outcomes import (
    ExpiresTooEarly,
    GrantEmpty,
    GrantNotFound,
    Refusal,
)
from credit_models.ledger.records import Grant, Kind
from credit_models.ledger.requests import details_of
from credit_models.ledger.uses import no_room

# The kinds of the entries that place a grant.
PLACING = (Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN)


def grant(draft: Draft, command: GrantCredits) -> Effects | Refusal:
    """Grant credits, at once or at a later start."""
    app = draft.app(command.app_id)
    starts_at = max(command.effective_at or draft.at, draft.at)
    ends_at = _end(command, starts_at)
    if ends_at is not None and ends_at <= starts_at:
        return ExpiresTooEarly(expires_at=ends_at, starts_at=starts_at)
    if refusal := draft.revision_changed(command):
        return refusal
    if refusal := no_room(draft, app, command.credits):
        return refusal
    placed = Grant(
        id=command.transaction_id,
        sequence=draft.sequence + 1,
        credits=command.credits,
        left=command.credits,
        priority=command.priority,
        category=command.category,
        starts_at=starts_at if starts_at > draft.at else None,
        ends_at=ends_at,
        created_by=command.created_by,
    )
    added = app.place(placed) if placed.starts_at is None else app.schedule(placed)
    if added is None:
        return app.no_grant()
    main = draft.record_main(
        app,
        command,
        Kind.GRANT if placed.starts_at is None else Kind.SCHEDULE,
        command.credits,
        details_of(
            command, allocations=recorded(added), effective_at=placed.starts_at, ends_at=ends_at
        ),
    )
    return Effects(main=main)


def _end(command: GrantCredits, starts_at: datetime) -> datetime | None:
    """Return the end of a grant; None: never. An end after the year 9999 is never."""
    if command.expires_after is None:
        return command.expires_at
    try:
        return starts_at + command.expires_after
    except OverflowError:
        return None


def void(draft: Draft, command: VoidGrant, lookup: Lookup) -> Effects | Refusal:
    """Take back what is left of a grant. What open holds return to it later expires."""
    app = draft.app(command.app_id)
    placing = lookup.referenced
    if placing is None or placing.app_id != command.app_id or placing.kind not in PLACING:
        return GrantNotFound(grant_id=command.grant_id)
    voided = app.find_grant(command.grant_id)
    if voided is None:
        return GrantEmpty(grant_id=command.grant_id)
    if refusal := draft.revision_changed(command):
        return refusal
    app.reduce(voided, voided.left, voided=True)
    main = draft.record_main(
        app,
        command,
        Kind.VOID,
        voided.left,
        details_of(
            command,
            related_id=voided.id,
            allocations=(of_grant(voided, voided.left),),
            delta=None if voided.starts_at is None else 0,
        ),
    )
    return Effects(main=main)
