"""The order in which credits are used, and the parts of entries and holds that follow from it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from credit_models.ledger.invariants import invariant
from credit_models.ledger.records import PRIORITY_DEFAULT, Allocation, Grant

_NEVER = datetime.max.replace(tzinfo=UTC)

Allocations = tuple[Allocation, ...]


def burn_key(grant: Grant) -> tuple[int, datetime, int]:
    """Return the key that orders grants: priority, then the soonest end, then age."""
    return grant.priority, grant.ends_at or _NEVER, grant.sequence


def of_grant(grant: Grant, credits_: int) -> Allocation:
    """Return a part that consists of some credits of a grant."""
    return Allocation(
        credits=credits_,
        grant_id=grant.id,
        sequence=grant.sequence,
        priority=grant.priority,
        category=grant.category,
        ends_at=grant.ends_at,
    )


def plan_taking(grants: Sequence[Grant], base: int, credits_: int) -> Allocations:
    """Return the parts in which credits are taken, in burn order.

    Args:
        grants: The grants that have started, in burn order.
        base: The base credits, at least 0. They count as the oldest credits of their rank.
        credits_: The number of credits, at most all there are.
    """
    parts: list[Allocation] = []
    missing = credits_
    base_waits = base > 0
    for grant in grants:
        if base_waits and not _before_base(grant):
            base_waits = False
            missing -= _append(parts, Allocation(credits=min(base, missing)))
        if not missing:
            break
        if grant.left:
            missing -= _append(parts, of_grant(grant, min(grant.left, missing)))
    if missing and base_waits:
        missing -= _append(parts, Allocation(credits=min(base, missing)))
    invariant(not missing, "no more credits are taken than there are")
    return tuple(parts)


def _before_base(grant: Grant) -> bool:
    """Return whether credits of a grant are used before base credits.

    Base credits have the default priority, no end, and the sequence 0.
    """
    return grant.priority < PRIORITY_DEFAULT or (
        grant.priority == PRIORITY_DEFAULT and grant.ends_at is not None
    )


def _append(parts: list[Allocation], part: Allocation) -> int:
    """Append a part unless it is empty; return its credits."""
    if part.credits:
        parts.append(part)
    return part.credits


def recorded(parts: Iterable[Allocation]) -> Allocations:
    """Return the parts as entries and holds record them: none if all are base credits."""
    parts = tuple(parts)
    for part in parts:
        if part.grant_id:
            return parts
    return ()


def parts_of(allocations: Allocations, credits_: int) -> Allocations:
    """Return the parts of an entry or a hold; the inverse of `recorded`."""
    return allocations or (Allocation(credits=credits_),)


def split(parts: Iterable[Allocation], credits_: int) -> tuple[Allocations, Allocations]:
    """Split parts into those of the first credits and those of the rest."""
    first: list[Allocation] = []
    rest: list[Allocation] = []
    missing = credits_
    for part in parts:
        taken = min(part.credits, missing)
        missing -= taken
        _append(first, _resized(part, taken))
        _append(rest, _resized(part, part.credits - taken))
    return tuple(first), tuple(rest)


def _resized(part: Allocation, credits_: int) -> Allocation:
    return Allocation(
        credits=credits_,
        grant_id=part.grant_id,
        sequence=part.sequence,
        priority=part.priority,
        category=part.category,
        ends_at=part.ends_at,
    )
