"""Compute the states of a user that a call can have seen.

Calls overlap, so it is not certain which writes came before a call. But the call saw a state
between two bounds:

* the least: the latest entry that any answer had shown before the call began;
* the greatest: the entry before the first one that was requested after the call had ended.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from credit_client import CreditTransaction, Purchase, UserCredits

from tests.fuzz.history import History
from tests.fuzz.journal import Acknowledged, Call, Journal
from tests.fuzz.ledger_model import State


class Windows:
    """The states of a user that a call can have seen."""

    def __init__(self, journal: Journal, histories: Mapping[int, History]) -> None:
        self._histories = histories
        self._shown: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for call in journal.calls:
            if call.ended is not None:
                user, sequence = call.question.user_id, _shown(call, histories)
                self._shown[user].append((call.ended, sequence))

    def states(self, call: Call, user: int) -> Sequence[State]:
        """Return the states of a user that a call can have seen; none if no state fits."""
        history = self._histories[user]
        shown = (sequence for moment, sequence in self._shown[user] if moment < call.began)
        least = max(shown, default=0)
        greatest = len(history.entries)
        if call.ended is not None:
            later = (place for place, asked in enumerate(history.asked) if asked > call.ended)
            greatest = next(later, greatest)
        return history.states[least : greatest + 1]


def _shown(call: Call, histories: Mapping[int, History]) -> int:
    """Return the latest entry of the user that an answer certainly shows; 0 for none."""
    match call.answer:
        case Acknowledged(done=done):
            return done.sequence
        case UserCredits(revision=revision):
            return revision
        case [*_, CreditTransaction(sequence=sequence)]:
            return sequence
        case [*_, Purchase(transaction_id=transaction_id)]:
            entries = histories[call.question.user_id].entries
            return next((entry.sequence for entry in entries if entry.id == transaction_id), 0)
        case _:
            return 0
