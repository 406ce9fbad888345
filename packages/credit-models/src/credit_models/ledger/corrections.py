"""What an operator does to an account: adjust a balance, and set spending caps."""

from credit_models.ledger.app_draft import AppDraft
from credit_models.ledger.burning import Allocations, recorded
from credit_models.ledger.caps import count_use
from credit_models.ledger.commands import AdjustBalance, SetSpendingCap
from credit_models.ledger.draft import Draft, Effects
from credit_models.ledger.outcomes import InsufficientCredits, Refusal
from credit_models.ledger.records import UINT32_MAX, Allocation, Kind
from credit_models.ledger.requests import details_of
from credit_models.ledger.uses import no_room


def adjust(draft: Draft, command: AdjustBalance) -> Effects | Refusal:
    """Change a balance. Credits are added to the base credits, and taken in burn order."""
    app = draft.app(command.app_id)
    if refusal := draft.revision_changed(command):
        return refusal
    if refusal := _not_adjustable(draft, app, command):
        return refusal
    parts = _take(app, -command.delta) if command.delta < 0 else ()
    main = draft.record_main(
        app,
        command,
        Kind.ADJUST,
        abs(command.delta),
        details_of(command, allocations=recorded(parts), delta=command.delta),
    )
    return Effects(main=main)


def _not_adjustable(draft: Draft, app: AppDraft, command: AdjustBalance) -> Refusal | None:
    if command.delta > 0:
        return no_room(draft, app, command.delta)
    least = -UINT32_MAX if command.policy.allow_negative else 0
    if app.balance + command.delta < least:
        return InsufficientCredits(available=app.available, required=-command.delta)
    return draft.too_many_apps(app)


def _take(app: AppDraft, credits_: int) -> Allocations:
    """Take credits. What the user does not have becomes debt: negative base credits."""
    parts = app.plan(min(credits_, app.available))
    app.take(parts)
    debt = credits_ - sum(part.credits for part in parts)
    return (*parts, Allocation(credits=debt)) if debt else parts


def set_cap(draft: Draft, command: SetSpendingCap) -> Effects | Refusal:
    """Set a user's own caps."""
    app = draft.app(command.app_id)
    if refusal := draft.revision_changed(command):
        return refusal
    if refusal := draft.too_many_apps(app):
        return refusal
    app.caps = command.caps
    count_use(app, command.policy, 0, draft.sequence + 1)
    caps = (command.caps.hour, command.caps.day, command.caps.month)
    least = min((cap for cap in caps if cap is not None), default=UINT32_MAX)
    main = draft.record_main(app, command, Kind.CAP, least, details_of(command))
    return Effects(main=main)
