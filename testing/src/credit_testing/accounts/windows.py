"""Compute the states that a call can have seen, and the times at which it can have been decided."""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from credit_models import ExtendHoldRequest, GrantCreditsRequest, ReverseTransactionRequest

from credit_testing.accounts.journal import Call, Journal, Read, shown
from credit_testing.accounts.model import Account
from credit_testing.accounts.replay import History
from credit_testing.accounts.rules.holds import HOLD_MAX
from credit_testing.accounts.rules.requests import Write

_MILLISECOND = timedelta(milliseconds=1)
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)


_Value = TypeVar("_Value", int, datetime)


class _Greatest(Generic[_Value]):
    """The greatest of the values that were added before a time."""

    def __init__(self, least: _Value) -> None:
        self._times: list[int] = []
        self._values: list[_Value] = [least]

    def add(self, time: int, value: _Value) -> None:
        """Add a value, at a time that is not before that of an earlier value."""
        self._times.append(time)
        self._values.append(max(self._values[-1], value))

    def before(self, time: int) -> _Value:
        """Return the greatest value that was added before a time."""
        return self._values[bisect_left(self._times, time)]


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
        # When answers had shown the entries of each user up to a sequence, and of all users up to a
        # time.
        self._shown = {user: _Greatest(0) for user in histories}
        self._times = _Greatest(_BEGINNING)
        ended = ((call.ended, call) for call in journal.calls if call.ended is not None)
        for at, call in sorted(ended, key=lambda pair: pair[0]):
            for user, sequence in shown(call):
                self._shown[user].add(at, sequence)
                entries = histories[user].entries
                if 0 < sequence <= len(entries):
                    self._times.add(at, entries[sequence - 1].at)
        # For each entry of a user, the latest request of this entry and those before it. For each
        # request of any user, the earliest time of its entry and of the entries requested after it.
        self._asked = {
            user: list(itertools.accumulate(history.asked, max))
            for user, history in histories.items()
        }
        requested = sorted(
            (asked, entry.at)
            for history in histories.values()
            for asked, entry in zip(history.asked, history.entries, strict=True)
        )
        self._requests = [asked for asked, _ in requested]
        times = itertools.accumulate((at for _, at in reversed(requested)), min, initial=_END)
        self._earliest = list(times)[::-1]

    def bounds(self, call: Call, user: int) -> tuple[int, int]:
        """Return the numbers of entries that a call must and can have seen."""
        least = self._shown[user].before(call.began)
        greatest = len(self._histories[user].entries)
        if call.stale or _is_loose_read(call):
            least = 0
        least = max(least, call.min_revision)
        if call.ended is not None:
            greatest = bisect_right(self._asked[user], call.ended)
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
        self,
        call: Call,
        accounts: Collection[Account],
        apps: Collection[int],
        requests: Collection[Write] = (),
    ) -> list[datetime]:
        """Return one time for each range of times in which the answer is the same.

        Args:
            call: The call.
            accounts: The accounts in one of the states that the call can have seen.
            apps: The apps on which the answer depends.
            requests: The writes of the call.
        """
        first, last = self.time_bounds(call)
        instants = {first}
        for account in accounts:
            for app_id in apps:
                instants.update(account.app(app_id).instants())
        for request in requests:
            instants.update(_instants(request, accounts))
        if requests:
            # A request is not decided before the latest entry of its users, which can differ
            # between the requests of a call.
            instants.update(account.latest_at for account in accounts)
            # A cap counts the credits of an hour; reads do not return counts.
            instants.update(_hours(first, last))
        return sorted(instant for instant in instants if first <= instant <= last)

    def time_bounds(self, call: Call) -> tuple[datetime, datetime]:
        """Return the first and the last time at which a call can have been decided."""
        if _is_loose_read(call):
            return _BEGINNING, _END
        before = self._times.before(call.began)
        after = _END
        if call.ended is not None:
            after = self._earliest[bisect_right(self._requests, call.ended)]
        first = before - self._skew if before != _BEGINNING else _BEGINNING
        last = after + self._skew if after != _END else _END
        return first, last


def _is_loose_read(call: Call) -> bool:
    return call.loose and isinstance(call.question, Read)


def _hours(first: datetime, last: datetime) -> Iterator[datetime]:
    """Yield the starts of hours in a range of times, which can be unbounded.

    A range without a beginning, of a call before the first entry, begins a day before its end. One
    without an end either has no known hour.
    """
    if first == _BEGINNING:
        if last == _END:
            return
        first = last - timedelta(days=1)
    hour = first.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    while hour <= last and hour - first < timedelta(days=62):
        yield hour
        hour += timedelta(hours=1)


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
