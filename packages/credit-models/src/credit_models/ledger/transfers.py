"""Move credits to another app or another user, with their terms."""

from credit_models.ledger.app_draft import AppDraft
from credit_models.ledger.burning import Allocations, recorded
from credit_models.ledger.commands import TransferCredits
from credit_models.ledger.draft import Draft, Effects, entry_id
from credit_models.ledger.outcomes import InsufficientCredits, Refusal
from credit_models.ledger.records import Allocation, Details, Grant, Kind
from credit_models.ledger.requests import details_of
from credit_models.ledger.uses import no_room


def transfer(draft: Draft, target: Draft, command: TransferCredits) -> Effects | Refusal:
    """Move credits in burn order; each grant that they come from makes a grant of the target.

    Args:
        draft: The account that pays.
        target: The account that gets the credits; the same draft for a transfer between apps.
        command: The command.
    """
    app, to_app = draft.app(command.app_id), target.app(command.to_app_id)
    if refusal := draft.revision_changed(command):
        return refusal
    if app.available < command.credits:
        return InsufficientCredits(available=app.available, required=command.credits)
    if refusal := no_room(target, to_app, command.credits):
        return refusal
    parts = app.plan(command.credits)
    app.take(parts)
    # The entries of the target follow the TRANSFER_OUT, so the first one has this sequence.
    first = target.sequence + (2 if target is draft else 1)
    main = draft.record_main(
        app,
        command,
        Kind.TRANSFER_OUT,
        command.credits,
        details_of(
            command,
            related_id=entry_id(target.source.user_id, first, target.at),
            allocations=recorded(parts),
        ),
    )
    for part in parts:
        added = _place(target, to_app, command, part)
        if added is None:
            return to_app.no_grant()
        target.record(
            to_app,
            Kind.TRANSFER_IN,
            part.credits,
            Details(related_id=main.id, allocations=recorded(added), ends_at=part.ends_at),
            created_by=command.created_by,
        )
    return Effects(main=main)


def _place(
    target: Draft, app: AppDraft, command: TransferCredits, part: Allocation
) -> Allocations | None:
    """Add credits to the target; None if it has no room for one more grant."""
    if not part.grant_id:
        return (part,)
    sequence = target.sequence + 1
    return app.place(
        Grant(
            id=entry_id(target.source.user_id, sequence, target.at),
            sequence=sequence,
            credits=part.credits,
            left=part.credits,
            priority=part.priority,
            category=part.category,
            ends_at=part.ends_at,
            created_by=command.created_by,
        )
    )
