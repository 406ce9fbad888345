"""Compute the states of a user that a call can have seen.

Calls overlap, so that a call cannot be told exactly which writes came before it. But it saw a state
between two bounds:

* the least: the latest entry that anybody had been told of before the call began;
* the greatest: the entry before the first one that nobody had asked for when the call had ended.
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
        self._told: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for call in journal.calls:
            if call.ended is not None:
                user, sequence = call.question.user_id, _told(call, histories)
                self._told[user].append((call.ended, sequence))

    def states(self, call: Call, user: int) -> Sequence[State]:
        """Return the states of a user that a call can have seen; none if no state fits."""
        history = self._histories[user]
        told = (sequence for moment, sequence in self._told[user] if moment < call.began)
        least = max(told, default=0)
        greatest = len(history.entries)
        if call.ended is not None:
            later = (place for place, asked in enumerate(history.asked) if asked > call.ended)
            greatest = next(later, greatest)
        return history.states[least : greatest + 1]


def _told(call: Call, histories: Mapping[int, History]) -> int:
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
