"""Alerts: a limit of a balance, and an event each time the balance crosses it.

An alert has no state. It compares the balance before and after each change. So it has one event for
each crossing, and is armed again when the balance crosses back.

Entries that take effect at one instant are one change. A capture first releases the credits of its
hold and then uses them, and the end of a hold can return credits to a grant that has ended: no
write could ever spend the balance in between.

A change by time crosses a limit when its entry is written: with the next write, or by the sweeper.
So each event belongs to an entry, and both are written together or not at all.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from itertools import groupby

from credit_models.ledger.commands import Command, SetAlert, TransferCredits
from credit_models.ledger.draft import Draft, Effects
from credit_models.ledger.outcomes import Accepted, AlertUnchanged, Refusal, TooManyAlerts
from credit_models.ledger.records import (
    ALERTS_MAX,
    NO_POLICY,
    Account,
    Alert,
    AlertEvent,
    Kind,
    Transaction,
)
from credit_models.ledger.requests import details_of

Alerts = tuple[Alert, ...]


def changed_alerts(alerts: Alerts, alert: Alert, *, remove: bool) -> Alerts | TooManyAlerts:
    """Return alerts with one added or removed. If nothing changes, return the same object."""
    if remove == (alert not in alerts):
        return alerts
    if remove:
        return tuple(each for each in alerts if each != alert)
    if len(alerts) >= ALERTS_MAX:
        return TooManyAlerts(limit=ALERTS_MAX)
    return tuple(sorted((*alerts, alert), key=lambda each: (each.credits, each.direction.value)))


def set_alert(draft: Draft, command: SetAlert) -> Effects | Refusal:
    """Set or remove an alert of a user."""
    app = draft.app(command.app_id)
    if refusal := draft.revision_changed(command):
        return refusal
    alert = Alert(credits=command.credits, direction=command.direction)
    alerts = changed_alerts(app.alerts, alert, remove=command.remove)
    if isinstance(alerts, TooManyAlerts):
        return alerts
    if alerts == app.alerts:
        return AlertUnchanged(revision=draft.source.revision)
    if refusal := draft.too_many_apps(app):
        return refusal
    app.alerts = alerts
    return Effects(
        main=draft.record_main(app, command, Kind.ALERT, command.credits, details_of(command))
    )


def with_events(accepted: Accepted, command: Command, accounts: Sequence[Account]) -> Accepted:
    """Return the effects of a command with the events of the alerts that it crosses.

    Args:
        accepted: The effects without events.
        command: The command, with the policies of its apps.
        accounts: The accounts before the command. An alert that it sets has no events yet.
    """
    of_apps = _alerts_of_apps(command)
    own = {
        (account.user_id, app_id): app.alerts
        for account in accounts
        for app_id, app in account.apps.items()
        if app.alerts
    }
    if not own and not any(of_apps.values()):
        return accepted
    events = tuple(
        event
        for (user_id, app_id, _), entries in groupby(accepted.transactions, _change)
        for event in _crossings(
            tuple(entries), (*own.get((user_id, app_id), ()), *of_apps.get(app_id, ()))
        )
    )
    return accepted._replace(events=events)


def _alerts_of_apps(command: Command) -> dict[int, Alerts]:
    alerts = {}
    if isinstance(command, TransferCredits):
        alerts[command.to_app_id] = command.to_policy.alerts
    if command.policy is not NO_POLICY:
        alerts[command.app_id] = command.policy.alerts
    return alerts


def _change(entry: Transaction) -> tuple[int, int, datetime]:
    """Return what the entries of one change have in common."""
    return entry.user_id, entry.app_id, entry.details.effective_at or entry.created_at


def _crossings(entries: Sequence[Transaction], alerts: Alerts) -> Iterator[AlertEvent]:
    """Yield the events of one change. An alert that is set for both user and app has one."""
    first, last = entries[0], entries[-1]
    before = max(0, first.balance_after - first.effect)
    after = max(0, last.balance_after)
    for alert in dict.fromkeys(alerts):
        if alert.is_crossed(before, after):
            yield AlertEvent(
                id=event_id(last.id, alert),
                user_id=last.user_id,
                app_id=last.app_id,
                alert=alert,
                balance=after,
                transaction_id=last.id,
                sequence=last.sequence,
                created_at=last.created_at,
            )


def event_id(transaction_id: str, alert: Alert) -> str:
    """Return the id of an event. It begins with the time, like the ids of entries."""
    text = f"alert event {transaction_id} {alert.credits} {alert.direction.value}"
    return transaction_id[:8] + sha256(text.encode()).hexdigest()[:16]
