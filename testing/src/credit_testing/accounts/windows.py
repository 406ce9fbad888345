"""Compute the states that a call can have seen, and the times at which it can have been decided."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from credit_models import (
    CreditTransaction,
    ExtendHoldRequest,
    GrantCreditsRequest,
    Receipt,
    ReverseTransactionRequest,
    UserCredits,
)

from credit_testing.accounts.journal import Call, Journal, Read
from credit_testing.accounts.model import Account
from credit_testing.accounts.replay import History
from credit_testing.accounts.rules.holds import HOLD_MAX
from credit_testing.accounts.rules.requests import Write, users_of

_MILLISECOND = timedelta(milliseconds=1)
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)


class Windows:
    """The states that a call can have seen.

    The earliest state of a user is after the latest entry that an answer showed before the call
    began. The latest state is before the first entry that was requested after the call ended. The
    times of the same entries limit the time of the decision.
    """

    def __init__(
        self,
        journal: Journal,
        histories: Mapping[int, History],
        skew: timedelta = timedelta(0),
    ) -> None:
        """Determine when answers have shown entries.

        Args:
            journal: All calls.
            histories: The replayed histories.
            skew: How far the clocks of two servers may differ.
        """
        self._histories = histories
        self._skew = skew
        # When an answer had shown an entry of a user.
        self._shown: list[tuple[int, int, int]] = []
        for call in journal.calls:
            if call.ended is not None:
                self._shown += [
                    (call.ended, user, sequence) for user, sequence in _shown(call, histories)
                ]

    def bounds(self, call: Call, user: int) -> tuple[int, int]:
        """Return the numbers of entries that a call must and can have seen."""
        history = self._histories[user]
        seen = (
            sequence for ended, of, sequence in self._shown if of == user and ended < call.began
        )
        least, greatest = max(seen, default=0), len(history.entries)
        if call.ended is not None:
            later = (place for place, asked in enumerate(history.asked) if asked > call.ended)
            greatest = next(later, greatest)
        return least, greatest

    def accounts(self, call: Call, users: Sequence[int]) -> Iterator[Mapping[int, Account]]:
        """Yield all combinations of the users' states that a call can have seen, latest first."""
        choices = []
        for user in users:
            least, greatest = self.bounds(call, user)
            states = self._histories[user].states[least : greatest + 1]
            choices.append([state for state in reversed(states) if state is not None])
        for chosen in itertools.product(*choices):
            yield dict(zip(users, chosen, strict=True))

    def times(
        self, call: Call, accounts: Collection[Account], requests: Iterable[Write]
    ) -> list[datetime]:
        """Return one time for each range of times in which the answer is the same."""
        first, last = self.time_bounds(call)
        instants = {first}
        for account in accounts:
            for app in account.apps.values():
                instants.update(app.instants())
        for request in requests:
            instants.update(_instants(request, accounts))
        hour = first.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        while hour <= last and hour - first < timedelta(days=62):
            instants.add(hour)
            hour += timedelta(hours=1)
        return sorted(instant for instant in instants if first <= instant <= last)

    def time_bounds(self, call: Call) -> tuple[datetime, datetime]:
        """Return the first and the last time at which a call can have been decided."""
        entries = {user: history.entries for user, history in self._histories.items()}
        before = [
            entries[user][sequence - 1].at
            for ended, user, sequence in self._shown
            if ended < call.began and 0 < sequence <= len(entries[user])
        ]
        after = [
            entry.at
            for history in self._histories.values()
            for entry, asked in zip(history.entries, history.asked, strict=True)
            if call.ended is not None and asked > call.ended
        ]
        first = max(before) - self._skew if before else _BEGINNING
        last = min(after) + self._skew if after else _END
        return first, last


def _instants(request: Write, accounts: Collection[Account]) -> Iterator[datetime]:
    """Yield the times at which the answer to a request can change."""
    if isinstance(request, GrantCreditsRequest):
        yield from (time for time in (request.expires_at, request.effective_at) if time is not None)
    elif isinstance(request, ReverseTransactionRequest):
        if request.restore_until is not None:
            yield request.restore_until
        # A grant that paid may no longer be in the account. Credits that return to it may expire.
        for account in accounts:
            fact = account.facts.get(request.transaction_id)
            ends = (terms.ends_at for terms, _ in (fact.pieces if fact is not None else ()))
            yield from (end for end in ends if end is not None)
    elif isinstance(request, ExtendHoldRequest):
        latest = HOLD_MAX - timedelta(seconds=request.expires_after_seconds)
        for account in accounts:
            for hold in account.app(request.app_id).holds.values():
                yield from (hold.placed_at + latest, hold.placed_at + latest + _MILLISECOND)


def _shown(call: Call, histories: Mapping[int, History]) -> Iterator[tuple[int, int]]:
    """Yield the entries that an answer certainly shows."""
    question = call.question
    if not isinstance(question, Read):
        for request, answer in call.writes():
            if isinstance(answer, Receipt) and not answer.validated:
                yield users_of(request)[0], answer.sequence
        return
    match call.answer:
        case [UserCredits(revision=revision)]:
            yield question.user_id, revision
        case [*_, CreditTransaction(sequence=sequence)]:
            yield question.user_id, sequence
