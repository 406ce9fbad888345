"""Reverse an entry: refund a use, or take back credits that were added."""

from dataclasses import replace

from credit_models.ledger.app_draft import AppDraft
from credit_models.ledger.burning import of_grant, parts_of, recorded, split
from credit_models.ledger.caps import count_refund
from credit_models.ledger.commands import Lookup, ReverseTransaction
from credit_models.ledger.draft import Draft, Effects
from credit_models.ledger.outcomes import (
    BalanceOverflow,
    InsufficientCredits,
    NotReversible,
    Refunded,
    Refusal,
    ReversalExceeds,
    TransactionNotFound,
)
from credit_models.ledger.records import UINT32_MAX, Grant, Kind, Transaction
from credit_models.ledger.requests import details_of

_ADDING = (Kind.ADD, Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN)


def reverse(draft: Draft, command: ReverseTransaction, lookup: Lookup) -> Effects | Refusal:
    """Reverse an entry, in whole or in part."""
    entry = lookup.referenced
    if entry is None or entry.app_id != command.app_id:
        return TransactionNotFound(transaction_id=command.reversed_id)
    if entry.kind is not Kind.USE and entry.kind not in _ADDING:
        return NotReversible(kind=entry.kind)
    if refusal := draft.revision_changed(command):
        return refusal
    if entry.kind is Kind.USE:
        return _refund(draft, command, entry, lookup)
    return _revoke(draft, command, entry, lookup)


def _reversed_before(lookup: Lookup) -> int:
    """Return how many credits of the entry were reversed before."""
    latest = lookup.latest_related
    return 0 if latest is None else latest.details.related_total


def _refund(
    draft: Draft, command: ReverseTransaction, used: Transaction, lookup: Lookup
) -> Effects | Refusal:
    """Return credits of a USE to the grants that paid, in the order in which they paid."""
    app = draft.app(command.app_id)
    before = _reversed_before(lookup)
    reversible = used.credits - before
    credits_ = command.credits or reversible
    if not 0 < credits_ <= reversible:
        return ReversalExceeds(reversible=reversible, required=command.credits)
    if app.total + credits_ > UINT32_MAX:
        return BalanceOverflow(balance=app.total, credits=credits_)
    _, unpaid = split(parts_of(used.details.allocations, used.credits), before)
    parts, _ = split(unpaid, credits_)
    # A grant that was voided ended then, whatever its recorded terms are.
    parts = tuple(
        replace(part, ends_at=lookup.voided.get(part.grant_id, part.ends_at)) for part in parts
    )
    if refusal := app.cannot_restore(parts, command.restore_until):
        return refusal
    given = app.give_back(
        parts, at=app.at, created_by=command.created_by, restore_until=command.restore_until
    )
    count_refund(app, used, credits_)
    main = draft.record_main(
        app,
        command,
        Kind.REFUND,
        credits_,
        details_of(
            command,
            related_id=used.id,
            related_total=before + credits_,
            allocations=recorded(given),
            ends_at=command.restore_until,
        ),
    )
    refunded = Refunded(purchase_id=used.purchase_id, refunded_credits=before + credits_)
    return Effects(main=main, refunded=refunded)


def _revoke(
    draft: Draft, command: ReverseTransaction, added: Transaction, lookup: Lookup
) -> Effects | Refusal:
    """Take back added credits: what is left of their grant, or base credits."""
    app = draft.app(command.app_id)
    grant, left = _what_is_left(app, added, lookup)
    before = _reversed_before(lookup)
    reversible = added.credits - before if left else 0
    credits_ = command.credits or min(reversible, left)
    if not 0 < credits_ <= reversible:
        return ReversalExceeds(reversible=reversible, required=command.credits)
    if credits_ > left:
        return InsufficientCredits(available=left, required=credits_)
    if grant is not None:
        app.reduce(grant, credits_)
    main = draft.record_main(
        app,
        command,
        Kind.REVOKE,
        credits_,
        details_of(
            command,
            related_id=added.id,
            related_total=before + credits_,
            allocations=() if grant is None else (of_grant(grant, credits_),),
            delta=None if grant is None or grant.starts_at is None else 0,
        ),
    )
    return Effects(main=main)


def _what_is_left(app: AppDraft, added: Transaction, lookup: Lookup) -> tuple[Grant | None, int]:
    """Return the grant that an entry added credits to, and what of it can be taken back.

    The grant is None for base credits. Credits that a refund returned to a grant after its end was
    written cannot be taken back by a reversal, because the history does not show what was taken
    back before.
    """
    ids = [part.grant_id for part in added.details.allocations if part.grant_id]
    if not ids:
        return None, max(0, app.base)
    latest = lookup.latest_related
    if latest is not None and latest.kind in (Kind.EXPIRE, Kind.VOID):
        return None, 0
    grant = app.find_grant(ids[0])
    return grant, 0 if grant is None else grant.left
