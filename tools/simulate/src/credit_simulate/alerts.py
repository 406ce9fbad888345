"""Change alerts of users, and compare the events of all alerts with the crossings."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from random import Random
from typing import Any

from credit_client import methods
from credit_client.call import Caller
from credit_client.transport import Method
from credit_models import AlertDirection, AlertEvent, RemoveAlertRequest, SetAlertRequest
from credit_testing.accounts.journal import Journal, shown
from credit_testing.accounts.model import Account, Entry, Limit
from credit_testing.accounts.replay import AlertChange, History

from credit_simulate.history import Queries
from credit_simulate.policies import StoredPolicies

_LIMITS: Sequence[Limit] = (
    (10, AlertDirection.FALLS_BELOW),
    (25, AlertDirection.RISES_TO),
    # The apps have these alerts too. A crossing of both still has one event.
    (20, AlertDirection.FALLS_BELOW),
    (30, AlertDirection.RISES_TO),
)
_FIRST_CALLER = 1000
"""`created_by` of the first change, which is greater than in all other writes."""

_Crossing = tuple[int, int, int, Limit, int]


class UserAlerts:
    """Sets and removes alerts of users.

    Attributes:
        changes: All changes that were sent.
    """

    def __init__(self, journal: Journal, queries: Queries, connect: Callable[[], Caller]) -> None:
        """Prepare to change alerts.

        Args:
            journal: The journal whose clock is used. It does not record the changes.
            queries: Records the answers.
            connect: Returns a client of the SDK.
        """
        self.changes: list[AlertChange] = []
        self._journal = journal
        self._queries = queries
        self._connect = connect

    async def change(self, random: Random, user: int, app_id: int) -> None:
        """Set or remove an alert of a user."""
        credits_, direction = random.choice(_LIMITS)
        sets = random.random() < 0.7
        values: dict[str, Any] = {  # Any: the fields have several types
            "user_id": user,
            "app_id": app_id,
            "created_by": _FIRST_CALLER + len(self.changes),
            "credits": credits_,
            "direction": direction,
        }
        request = SetAlertRequest(**values) if sets else RemoveAlertRequest(**values)
        change = AlertChange(began=self._journal.now(), request=request)
        self.changes.append(change)
        method: Method[Any, Any] = methods.SET_ALERT if sets else methods.REMOVE_ALERT
        caller = self._connect()

        async def send() -> object:
            await caller.unary(method, values)
            return True

        def took_effect(history: History, count: int) -> object:
            state = history.states[count]
            alerts = frozenset() if state is None else state.app(app_id).alerts
            return state is not None and change.applied(alerts) == alerts

        await self._queries.ask(user, f"the change {request}", send, took_effect, writes=True)


def event_findings(
    events: Sequence[AlertEvent],
    journal: Journal,
    histories: Mapping[int, History],
    policies: StoredPolicies,
) -> Iterator[str]:
    """Yield crossings without an event, and events without a crossing.

    Args:
        events: All events of all apps.
        journal: All calls.
        histories: The replayed histories.
        policies: The policies that servers may have applied, with the alerts of apps.
    """
    found: dict[tuple[int, int, int], Counter[_Crossing]] = {}
    for event in events:
        place = event.user_id, event.app_id, event.sequence
        found.setdefault(place, Counter()).update([_of_event(event)])
    for user, history in histories.items():
        earlier: Sequence[Entry] = ()
        finding = ""
        for app_id, entries, before, times in _changes(user, history, journal):
            there = found.pop((user, app_id, entries[-1].sequence), Counter())
            alerts = [
                before.app(app_id).alerts | of_app
                for of_app in policies.alerts(app_id, *times) or {frozenset()}
            ]
            if finding:
                # The earlier entries may belong to this write, as one change.
                one = [*earlier, *entries]
                if there in [Counter(_crossings(one, each)) for each in alerts]:
                    finding = ""
                    continue
                yield finding
                finding = ""
            allowed = [Counter(_crossings(entries, each)) for each in alerts]
            if there in allowed:
                continue
            finding = f"alerts: the events of {entries[-1]} are {there}, not one of {allowed}"
            earlier = entries
            # The history does not show whether entries that are due at the time of the next write
            # were written before it.
            if entries[-1].effective_at != entries[-1].at:
                yield finding
                finding = ""
        if finding:
            yield finding
    if found:
        yield f"alerts: no change of a balance belongs to {found}"
    positions = sorted(event.position for event in events)
    if positions != list(range(1, len(events) + 1)):
        yield f"alerts: the positions are {positions}"
    if len({event.id for event in events}) < len(events):
        yield f"alerts: events share an id: {events}"


def _of_event(event: AlertEvent) -> _Crossing:
    assert event.alert is not None  # noqa: S101 - for the type checker
    limit = (event.alert.credits, event.alert.direction)
    return event.user_id, event.app_id, event.sequence, limit, event.balance


def _changes(
    user: int, history: History, journal: Journal
) -> Iterator[tuple[int, Sequence[Entry], Account, tuple[int, int]]]:
    """Yield the changes of a user's balances.

    Each change has its app, its entries, the account before its write, and the two times between
    which it was decided, on the journal's clock.
    """
    seen = sorted(
        (call.ended, sequence)
        for call in journal.calls
        if call.ended is not None
        for of_user, sequence in shown(call)
        if of_user == user
    )
    asked = 0
    for together, before in _writes(history):
        asked = max(asked, *(history.asked[entry.sequence - 1] for entry in together))
        last = together[-1].sequence
        ended = next((at for at, sequence in seen if sequence >= last), journal.now())
        for (app_id, _), change in groupby(together, _change):
            yield app_id, list(change), before, (asked, ended)


def _writes(history: History) -> Iterator[tuple[list[Entry], Account]]:
    """Yield the entries that were written together, and the account before them."""
    together: list[Entry] = []
    before = history.states[0]
    for entry, state in zip(history.entries, history.states[1:], strict=True):
        together.append(entry)
        if state is not None:
            assert before is not None  # noqa: S101 - for the type checker
            yield together, before
            together, before = [], state


def _crossings(entries: Sequence[Entry], alerts: frozenset[Limit]) -> Iterator[_Crossing]:
    """Yield the crossings of one change."""
    last = entries[-1]
    before, after = max(0, entries[0].balance - entries[0].effect), max(0, last.balance)
    for limit in alerts:
        if _is_crossed(limit, before, after):
            yield last.user_id, last.app_id, last.sequence, limit, after


def _change(entry: Entry) -> tuple[int, object]:
    return entry.app_id, entry.effective_at or entry.at


def _is_crossed(limit: Limit, before: int, after: int) -> bool:
    credits_, direction = limit
    if direction is AlertDirection.FALLS_BELOW:
        return after < credits_ <= before
    return before < credits_ <= after
