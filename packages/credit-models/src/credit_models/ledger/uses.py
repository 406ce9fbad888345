"""Add credits without terms, and use credits."""

from credit_models.ledger.app_draft import AppDraft
from credit_models.ledger.burning import recorded
from credit_models.ledger.caps import cap_exceeded, count_use
from credit_models.ledger.commands import Add, Lookup, Use
from credit_models.ledger.draft import Draft, Effects
from credit_models.ledger.outcomes import (
    AlreadyPurchased,
    BalanceOverflow,
    InsufficientCredits,
    Refusal,
)
from credit_models.ledger.records import UINT32_MAX, Kind, Purchase, Transaction
from credit_models.ledger.requests import details_of


def add(draft: Draft, command: Add) -> Effects | Refusal:
    """Add credits. They pay debt first, because a debt is a negative number of base credits."""
    app = draft.app(command.app_id)
    if refusal := draft.revision_changed(command):
        return refusal
    if refusal := no_room(draft, app, command.credits):
        return refusal
    main = draft.record_main(app, command, Kind.ADD, command.credits, details_of(command))
    return Effects(main=main)


def no_room(draft: Draft, app: AppDraft, credits_: int) -> Refusal | None:
    """Return why credits cannot be added to an app; None if they can.

    Held and scheduled credits count too, because time adds them to the balance.
    """
    total = app.total
    if total + credits_ > UINT32_MAX:
        return BalanceOverflow(balance=total, credits=credits_)
    return draft.too_many_apps(app)


def use(draft: Draft, command: Use, lookup: Lookup) -> Effects | Refusal:
    """Use credits for a report."""
    app = draft.app(command.app_id)
    if refusal := draft.revision_changed(command):
        return refusal
    if command.once and lookup.owned_purchase is not None:
        return AlreadyPurchased(purchase_id=lookup.owned_purchase.id)
    if refusal := cap_exceeded(app, command.policy, command.credits):
        return refusal
    if app.available < command.credits:
        return InsufficientCredits(available=app.available, required=command.credits)
    parts = app.plan(command.credits)
    app.take(parts)
    count_use(app, command.policy, command.credits, draft.sequence + 1)
    main = draft.record_main(
        app,
        command,
        Kind.USE,
        command.credits,
        details_of(command, allocations=recorded(parts)),
        purchase=(command.purchase_id, command.report_id, command.report_name),
    )
    return Effects(main=main, purchase=purchase_of(main))


def purchase_of(paid: Transaction) -> Purchase:
    """Return the purchase that a USE pays for."""
    return Purchase(
        id=paid.purchase_id,
        user_id=paid.user_id,
        app_id=paid.app_id,
        report_id=paid.report_id,
        report_name=paid.report_name,
        credits=paid.credits,
        created_at=paid.created_at,
        created_by=paid.created_by,
        transaction_id=paid.id,
        sequence=paid.sequence,
    )
