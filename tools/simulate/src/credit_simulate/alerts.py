"""Compare the events of alerts with the crossings in the histories."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from credit_models import AlertDirection, AlertEvent
from credit_testing.accounts.model import Entry
from credit_testing.accounts.replay import History

Limit = tuple[int, AlertDirection]
"""The credits and the direction of an alert."""

_Crossing = tuple[int, int, int, Limit, int]


def event_findings(
    events: Sequence[AlertEvent], histories: Mapping[int, History], limits: Mapping[int, Limit]
) -> Iterator[str]:
    """Yield crossings without an event, and events without a crossing.

    Args:
        events: All events of all apps.
        histories: The replayed histories.
        limits: The alert of each app that has one.
    """
    found = Counter(map(_of_event, events))
    expected = Counter(
        crossing
        for user, history in histories.items()
        for crossing in _crossings(user, history, limits)
    )
    if found != expected:
        yield f"alerts: no event of {expected - found}, and no crossing of {found - expected}"
    positions = sorted(event.position for event in events)
    if positions != list(range(1, len(events) + 1)):
        yield f"alerts: the positions are {positions}"


def _of_event(event: AlertEvent) -> _Crossing:
    assert event.alert is not None  # noqa: S101 - for the type checker
    limit = (event.alert.credits, event.alert.direction)
    return event.user_id, event.app_id, event.sequence, limit, event.balance


def _crossings(user: int, history: History, limits: Mapping[int, Limit]) -> Iterator[_Crossing]:
    for together in _writes(history):
        for (app_id, _), change in groupby(together, _change):
            entries = list(change)
            limit = limits.get(app_id)
            before = max(0, entries[0].balance - entries[0].effect)
            after = max(0, entries[-1].balance)
            if limit is not None and _is_crossed(limit, before, after):
                yield user, app_id, entries[-1].sequence, limit, after


def _writes(history: History) -> Iterator[list[Entry]]:
    """Yield the entries that were written together."""
    together: list[Entry] = []
    for entry, state in zip(history.entries, history.states[1:], strict=True):
        together.append(entry)
        if state is not None:
            yield together
            together = []


def _change(entry: Entry) -> tuple[int, object]:
    return entry.app_id, entry.effective_at or entry.at


def _is_crossed(limit: Limit, before: int, after: int) -> bool:
    credits_, direction = limit
    if direction is AlertDirection.FALLS_BELOW:
        return after < credits_ <= before
    return before < credits_ <= after
