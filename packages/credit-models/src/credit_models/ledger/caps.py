"""Spending caps: how many credits a user may use in an hour, a day or a calendar month of UTC.

The counters are in the account, and exist only for periods with a cap. Credits of open holds count
as used. A capture of held credits is not checked, because they were checked when they were held.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from credit_models.ledger.app_draft import AppDraft
from credit_models.ledger.outcomes import CapExceeded, Refusal
from credit_models.ledger.records import NO_CAPS, Caps, Period, PeriodSpending, Policy


def cap_exceeded(app: AppDraft, policy: Policy, required: int) -> Refusal | None:
    """Return the refusal of credits that a cap does not allow; None if all caps allow them.

    Args:
        app: The app.
        policy: The policy of the app.
        required: The credits of the command that are neither spent nor held yet.
    """
    for period, cap in _capped(app, policy):
        spent, held = _spent_in(app, period), app.held
        if spent + held + required > cap:
            return CapExceeded(
                period=period,
                cap=cap,
                spent=spent,
                held=held,
                required=required,
                resets_at=period_end(period, app.at),
            )
    return None


def count_use(app: AppDraft, policy: Policy, credits_: int) -> None:
    """Add used credits to the counters of all periods with a cap, and drop other counters."""
    app.spent = tuple(
        PeriodSpending(
            period=period,
            starts_at=period_start(period, app.at),
            credits=_spent_in(app, period) + credits_,
        )
        for period, _ in _capped(app, policy)
    )


def count_refund(app: AppDraft, used_at: datetime, credits_: int) -> None:
    """Take refunded credits out of the counters of the periods in which they were used."""
    app.spent = tuple(
        replace(spent, credits=max(0, spent.credits - credits_))
        if spent.starts_at == period_start(spent.period, used_at)
        else spent
        for spent in app.spent
    )


def _capped(app: AppDraft, policy: Policy) -> list[tuple[Period, int]]:
    """Return the periods with a cap. A user's own caps replace those of the app's policy."""
    caps = policy.caps if app.caps is NO_CAPS or app.caps == NO_CAPS else app.caps
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


def _spent_in(app: AppDraft, period: Period) -> int:
    """Return the credits used in the period of the decision."""
    starts_at = period_start(period, app.at)
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
