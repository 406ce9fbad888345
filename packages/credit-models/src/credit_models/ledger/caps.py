"""Spending caps: how many credits a user may use in an hour, a day or a calendar month of UTC.

The counters are in the account. They begin when the user's own caps are set, or with the first use
under a cap of the app, and count all three periods. So a cap that is changed, or removed and set
again, keeps what was counted. If a month ends without a cap, the next use removes the counters. A
server may have an outdated policy without caps for some seconds. Because the counters stay until
the month ends, it does not remove them.

Credits of open holds count as used. A capture of held credits is not checked, because they were
checked when they were held.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from credit_models.ledger.app_draft import AppDraft
from credit_models.ledger.outcomes import CapExceeded, CapStatus, Refusal
from credit_models.ledger.records import (
    NO_CAPS,
    AppAccount,
    Caps,
    Period,
    PeriodSpending,
    Policy,
    Transaction,
)


def cap_exceeded(app: AppDraft, policy: Policy, required: int) -> Refusal | None:
    """Return the refusal of credits that a cap does not allow; None if all caps allow them.

    Args:
        app: The app.
        policy: The policy of the app.
        required: The credits of the command that are neither spent nor held yet.
    """
    for status in cap_statuses(app, policy, app.at):
        if status.spent + status.held + required > status.cap:
            return CapExceeded(
                period=status.period,
                cap=status.cap,
                spent=status.spent,
                held=status.held,
                required=required,
                resets_at=status.resets_at,
            )
    return None


def cap_statuses(app: AppAccount | AppDraft, policy: Policy, at: datetime) -> list[CapStatus]:
    """Return each cap that applies to a user and what counts for it, the shortest period first."""
    return [
        CapStatus(
            period=period,
            cap=cap,
            spent=_spent_in(app, period, at),
            held=app.held,
            starts_at=period_start(period, at),
            resets_at=period_end(period, at),
        )
        for period, cap in _effective_caps(app.caps, policy)
    ]


def count_use(app: AppDraft, policy: Policy, credits_: int, sequence: int) -> None:
    """Add used credits to the counters; begin to count if there is a cap.

    Args:
        app: The app.
        policy: The policy of the app.
        credits_: The number of used credits.
        sequence: The `sequence` of the entry that uses them. Counting begins with it.
    """
    counted = any(spent.starts_at == period_start(spent.period, app.at) for spent in app.spent)
    if not counted and not _effective_caps(app.caps, policy):
        app.spent = ()
        return
    since = min((spent.since for spent in app.spent), default=sequence)
    app.spent = tuple(
        PeriodSpending(
            period=period,
            starts_at=period_start(period, app.at),
            credits=_spent_in(app, period, app.at) + credits_,
            since=since,
        )
        for period in Period
    )


def count_refund(app: AppDraft, used: Transaction, credits_: int) -> None:
    """Take refunded credits out of the counters that have counted their use."""
    app.spent = tuple(
        replace(spent, credits=spent.credits - credits_)
        if used.sequence >= spent.since
        and spent.starts_at == period_start(spent.period, used.created_at)
        else spent
        for spent in app.spent
    )


def _effective_caps(own: Caps, policy: Policy) -> list[tuple[Period, int]]:
    """Return the periods with a cap. A user's own caps replace those of the app's policy."""
    caps = policy.caps if own is NO_CAPS or own == NO_CAPS else own
    if caps is NO_CAPS:
        return []
    return [(period, cap) for period in Period if (cap := cap_of(caps, period)) is not None]


def cap_of(caps: Caps, period: Period) -> int | None:
    """Return the cap for a period; None if there is none."""
    match period:
        case Period.HOUR:
            return caps.hour
        case Period.DAY:
            return caps.day
        case Period.MONTH:
            return caps.month


def _spent_in(app: AppAccount | AppDraft, period: Period, at: datetime) -> int:
    """Return the credits that are counted in the period that contains a time."""
    starts_at = period_start(period, at)
    for spent in app.spent:
        if spent.period is period and spent.starts_at == starts_at:
            return spent.credits
    return 0


def period_start(period: Period, at: datetime) -> datetime:
    """Return the start of the period that contains a time, UTC."""
    hour = at.replace(minute=0, second=0, microsecond=0)
    match period:
        case Period.HOUR:
            return hour
        case Period.DAY:
            return hour.replace(hour=0)
        case Period.MONTH:
            return hour.replace(hour=0, day=1)


def period_end(period: Period, at: datetime) -> datetime:
    """Return the end of the period that contains a time: the start of the next one, UTC."""
    start = period_start(period, at)
    match period:
        case Period.HOUR:
            return start + timedelta(hours=1)
        case Period.DAY:
            return start + timedelta(days=1)
        case Period.MONTH:
            # The 1st plus 31 days is in the next month, whatever the length of this one.
            return (start + timedelta(days=31)).replace(day=1)
