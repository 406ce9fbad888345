"""Leaving out the calls of a failing sequence that the failure does not need.

Hypothesis shrinks what it draws, but a server remembers what it was sent while shrinking. Here each
attempt plays the whole sequence anew, with the values that this time's answers give.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from grpc_fuzz.model import Binding, Case, Failure

if TYPE_CHECKING:
    from grpc_fuzz.session import Session


def shorten(session: "Session", failure: Failure) -> Failure:
    """Leaves out each call without which the sequence still fails, the latest first."""
    for position in reversed(range(len(failure.case.before))):
        shorter = without(failure.case, position)
        if shorter is not None:
            again = (entry for entry in session.attempt(shorter) if entry.key == failure.key)
            failure = next(again, failure)
    return failure


def without(case: Case, position: int) -> Case | None:
    """The case without one of the calls before it; None where a later call needs its answer.

    Args:
        case: The last call of a sequence.
        position: Which call of `case.before` to leave out, from 0.
    """
    later = (*case.before[position + 1 :], case)
    if any(binding.call == position for call in later for binding in call.bindings):
        return None
    kept = (
        *case.before[:position],
        *(_moved(call, position) for call in case.before[position + 1 :]),
    )
    return replace(_moved(case, position), before=kept)


def _moved(call: Case, position: int) -> Case:
    """The call with its bindings counted without the call that is left out."""

    def moved(binding: Binding) -> Binding:
        return replace(binding, call=binding.call - (binding.call > position))

    return replace(call, bindings=tuple(map(moved, call.bindings)))
