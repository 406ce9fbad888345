"""Decide whether an atomic batch is aborted. The server and the SDK's fake share these rules."""

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import NamedTuple

from credit_models.ledger.outcomes import AlreadyPurchased, Refusal


class Decided(NamedTuple):
    """The decision about a command of an atomic batch.

    Attributes:
        refused: Whether the command is rejected.
        replayed: Whether the command took effect earlier.
        dry_run: Whether the command is only validated.
    """

    refused: bool
    replayed: bool
    dry_run: bool


def aborting(batch: Sequence[Decided]) -> int | None:
    """Return the index of the command that aborts a batch; None: the batch is not aborted.

    The first rejected command aborts the batch. A batch that took effect earlier, for example in an
    attempt with an unknown outcome, is not aborted. Its dry runs are then decided again, on the
    balances after the batch.
    """
    writes = [command for command in batch if not command.dry_run]
    if writes and all(command.replayed for command in writes):
        return None
    return next((index for index, command in enumerate(batch) if command.refused), None)


def refusal_of_aborted(refusal: Refusal, purchases: Container[str]) -> Refusal:
    """Return the refusal of a command in an aborted batch, without an id from `purchases`.

    Args:
        refusal: The refusal, which assumes the effects of the commands before it.
        purchases: The ids of the batch's own purchases. None of these purchases exists.
    """
    if isinstance(refusal, AlreadyPurchased) and refusal.purchase_id in purchases:
        return replace(refusal, purchase_id="")
    return refusal
