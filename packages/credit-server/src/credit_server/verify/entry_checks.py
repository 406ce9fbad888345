"""The checks of one entry that need only the entry and the previous one."""

from collections.abc import Callable, Iterator

from credit_models.ledger import Kind, Transaction

from credit_server.verify.findings import Code

# A fault: the kind of the finding, and a sentence with the values.
Fault = tuple[Code, str]

EntryCheck = Callable[[Transaction | None, Transaction], Iterator[Fault]]
"""Yields the faults of an entry. The arguments are the user's previous entry, None for the first
one, and the entry."""

# The kinds whose entries can have no effect: of a grant that has not started.
_BEFORE_START = (Kind.VOID, Kind.REVOKE)


# The name in the metadata of an ADJUST that `credit-server repair` has written.
REPAIR = "repair"


def is_repair(entry: Transaction) -> bool:
    """Return whether an entry was written by a repair."""
    return entry.kind is Kind.ADJUST and any(name == REPAIR for name, _ in entry.details.metadata)


def _effect(_: Transaction | None, entry: Transaction) -> Iterator[Fault]:
    delta = entry.details.delta
    if entry.kind is Kind.ADJUST:
        # The ADJUST of a rebuilt account has no effect.
        is_mark = delta == 0 and is_repair(entry)
        sound = is_mark or (delta is not None and abs(delta) == entry.credits)
    else:
        sound = delta is None or (delta == 0 and entry.kind in _BEFORE_START)
    if not sound:
        yield Code.EFFECT, f"{entry.kind.name} of {entry.credits} has the effect {entry.effect}"


def _allocations(_: Transaction | None, entry: Transaction) -> Iterator[Fault]:
    parts = entry.details.allocations
    if parts and (allocated := sum(part.credits for part in parts)) != entry.credits:
        yield (
            Code.ALLOCATION,
            f"{entry.kind.name} of {entry.credits} has allocations of {allocated}",
        )


ENTRY_CHECKS: tuple[EntryCheck, ...] = (_effect, _allocations)


def entry_faults(previous: Transaction | None, entry: Transaction) -> Iterator[Fault]:
    """Run all checks on an entry, and yield its faults."""
    for check in ENTRY_CHECKS:
        yield from check(previous, entry)
