"""Settle an account: decide what is due by time.

A scheduled grant starts, a grant ends, and a hold ends at an instant. The entries for that are
written by the next write for the user in the app, or by the server's sweeper. Reads compute them,
so that balances are correct at any moment.
"""

from collections.abc import Collection
from datetime import UTC, datetime

from credit_models.ledger.app_draft import AppDraft
from credit_models.ledger.burning import of_grant, parts_of, recorded
from credit_models.ledger.draft import Draft
from credit_models.ledger.outcomes import Settled
from credit_models.ledger.records import Account, Details, Grant, Hold, Kind

_BEGINNING = datetime.min.replace(tzinfo=UTC)

# At one instant grants start first, then holds end, then grants end. So a single EXPIRE covers what
# was left of a grant and what a hold returns to it.
_START, _HOLD_END, _END = range(3)


def settle(account: Account, now: datetime, apps: Collection[int] | None = None) -> Settled:
    """Return the account as it is at a time. A time in the future gives a forecast.

    Args:
        account: The account, as it is stored.
        now: The time, UTC.
        apps: The apps that are settled; None: all.

    Returns:
        The account, and the entries that are due. It keeps its stored revision and dates, because
        the entries are not written. They have provisional ids and sequences.
    """
    due = [
        app_id
        for app_id, app in account.apps.items()
        if app.due_at is not None and app.due_at <= now and (apps is None or app_id in apps)
    ]
    if not due:
        return Settled(account=account, entries=())
    draft = Draft(account, now)
    for app_id in sorted(due):
        settle_app(draft, draft.app(app_id))
    return Settled(account=draft.unwritten_account(), entries=tuple(draft.entries))


def settle_app(draft: Draft, app: AppDraft, since: datetime = _BEGINNING) -> None:
    """Add the entries that are due in an app.

    Args:
        draft: The account.
        app: The app.
        since: The earliest time at which the entries can have taken effect. What a command returns
            to a grant that has ended expires at the time of the command.
    """
    if not app.is_due():
        return
    for instant, event, _, id_ in _events(app):
        effective_at = max(instant, since)
        if event == _HOLD_END:
            hold = app.find_hold(id_)
            if hold is not None:
                _end_hold(draft, app, hold, effective_at)
            continue
        grant = app.find_grant(id_)
        if grant is not None and event == _START:
            _start(draft, app, grant, effective_at)
        elif grant is not None:
            _expire(draft, app, grant, effective_at)


def _events(app: AppDraft) -> list[tuple[datetime, int, int, str]]:
    """Return what may be due, ordered by the instant, the event, the age, and the id."""
    at = app.at
    events = [
        (grant.starts_at, _START, grant.sequence, grant.id)
        for grant in app.scheduled
        if grant.starts_at is not None and grant.starts_at <= at
    ]
    events += [
        (grant.ends_at, _END, grant.sequence, grant.id)
        for grant in (*app.grants, *app.scheduled)
        if grant.ends_at is not None and grant.ends_at <= at
    ]
    events += [
        (hold.ends_at, _HOLD_END, age, hold.id)
        for age, hold in enumerate(app.holds)
        if hold.ends_at <= at
    ]
    return sorted(events)


def _start(draft: Draft, app: AppDraft, grant: Grant, effective_at: datetime) -> None:
    added = app.start(grant)
    draft.record(
        app,
        Kind.ACTIVATE,
        grant.left,
        Details(
            related_id=grant.id,
            # Before the start, credits leave a grant only by reversals.
            related_total=grant.credits - grant.left,
            allocations=recorded(added),
            effective_at=effective_at,
        ),
        created_by=grant.created_by,
    )


def _expire(draft: Draft, app: AppDraft, grant: Grant, effective_at: datetime) -> None:
    app.reduce(grant, grant.left)
    draft.record(
        app,
        Kind.EXPIRE,
        grant.left,
        Details(
            related_id=grant.id,
            allocations=(of_grant(grant, grant.left),),
            effective_at=effective_at,
        ),
        created_by=grant.created_by,
    )


def _end_hold(draft: Draft, app: AppDraft, hold: Hold, effective_at: datetime) -> None:
    """Return what a hold still holds; what returns to a grant that has ended expires at once."""
    app.drop_hold(hold)
    parts = parts_of(hold.allocations, hold.credits)
    given = app.give_back(parts, at=effective_at, created_by=hold.created_by)
    draft.record(
        app,
        Kind.RELEASE,
        hold.credits,
        Details(
            related_id=hold.id,
            related_total=hold.captured,
            allocations=recorded(given),
            effective_at=effective_at,
        ),
        created_by=hold.created_by,
    )
    app.drop_unneeded(parts)
    for part in given:
        grant = app.find_grant(part.grant_id) if part.grant_id else None
        if grant is not None and grant.ends_at is not None and grant.ends_at < effective_at:
            _expire(draft, app, grant, effective_at)
