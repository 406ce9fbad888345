"""The commands `credit alert`: set alerts, which are limits of balances, and show their events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer
from credit_models import Alert, AlertDirection, AlertEvent

from credit_client.cli.calls import make_list, make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.groups import with_groups
from credit_client.cli.help import Command, application
from credit_client.cli.options import App, By, Display, MinRevision, UserId, number, user_option
from credit_client.cli.output import (
    Format,
    Layout,
    fields_of,
    record_of,
    show,
    show_json,
    show_rows,
    show_stream,
)
from credit_client.cli.table import Record
from credit_client.cli.waiting import WaitingNotice
from credit_client.cli.watching import show_continuation
from credit_client.client import CreditClient

_ALERTS = Layout(noun="alerts", fields=fields_of(Alert), columns=("credits", "direction"))
_ALL_ALERTS = Layout(
    noun="alerts",
    fields=("of", *_ALERTS.fields),
    columns=("of", *_ALERTS.columns),
)
_EVENTS = Layout(
    noun="events",
    fields=(*(name for name in fields_of(AlertEvent) if name != "alert"), *_ALERTS.fields),
    columns=(
        "position",
        "created_at",
        "user_id",
        "credits",
        "direction",
        "balance",
        "transaction_id",
    ),
)

alert = application(
    help="Set and list alerts, which are limits of balances, and show their events.", epilog=""
)


class Direction(StrEnum):
    """The values of `--direction`."""

    BELOW = "below"
    RISES = "rises"


_DIRECTIONS = {
    Direction.BELOW: AlertDirection.FALLS_BELOW,
    Direction.RISES: AlertDirection.RISES_TO,
}

MaybeUser: TypeAlias = Annotated[
    UserId | None, user_option("--user", "The user. Default: every user of the app.")
]
OnlyUser: TypeAlias = Annotated[UserId | None, user_option("--user", "Only events of this user.")]
Limit: TypeAlias = Annotated[int, number("--credits", "The limit, in credits.")]
Way: TypeAlias = Annotated[
    Direction,
    typer.Option(
        "--direction",
        help="The direction of the crossing: the balance falls below the limit, or rises to it.",
    ),
]


@alert.command("set", cls=Command)
@with_groups
def set_(
    app_id: App,
    limit: Limit,
    connection: Connection,
    display: Display,
    user: MaybeUser = None,
    direction: Way = Direction.BELOW,
    by: By = 1,
) -> None:
    """Set an alert, and show all alerts of the user or the app."""

    async def shown(client: CreditClient) -> None:
        alerts = await client.set_alert(
            app_id=app_id,
            credits=limit,
            created_by=by,
            user_id=user,
            direction=_DIRECTIONS[direction],
        )
        show_rows(map(record_of, alerts), _ALERTS, display.form, utc=display.utc)

    # A retry is safe without a key.
    make_reads(lambda client, _: shown(client), connection)


@alert.command("remove", cls=Command)
@with_groups
def remove(
    app_id: App,
    limit: Limit,
    connection: Connection,
    display: Display,
    user: MaybeUser = None,
    direction: Way = Direction.BELOW,
    by: By = 1,
) -> None:
    """Remove an alert, and show how many alerts of the user or the app are left."""

    async def removed(client: CreditClient) -> None:
        left = await client.remove_alert(
            app_id=app_id,
            credits=limit,
            created_by=by,
            user_id=user,
            direction=_DIRECTIONS[direction],
        )
        which = {"credits": limit, "direction": _DIRECTIONS[direction].name}
        of = {"app_id": app_id, "user_id": user}
        show({**of, **which, "alerts_left": len(left)}, display.form, utc=display.utc)

    make_reads(lambda client, _: removed(client), connection)


@alert.command("list", cls=Command)
@with_groups
def list_(
    app_id: App,
    connection: Connection,
    display: Display,
    user: MaybeUser = None,
    min_revision: MinRevision = None,
) -> None:
    """List the alerts of an app and, with --user, also those of the user."""

    async def listed(client: CreditClient) -> None:
        found = await client.alerts(app_id=app_id, user_id=user, min_revision=min_revision)
        if display.form is Format.JSON:
            show_json(record_of(found))
            return
        rows = [
            {**record_of(each), "of": of}
            for of, alerts in (("user", found.user_alerts), ("app", found.app_alerts))
            for each in alerts
        ]
        show_rows(rows, _ALL_ALERTS, display.form, utc=display.utc)

    make_reads(lambda client, _: listed(client), connection, paging=display.paged)


@alert.command("events", cls=Command)
@with_groups
def events(
    app_id: App,
    connection: Connection,
    display: Display,
    user: OnlyUser = None,
    after: Annotated[int, number("--after", "Only events after this position.")] = 0,
) -> None:
    """List the events of an app's alerts of the last 30 days, oldest first."""
    make_list(
        lambda client: client.alert_events(app_id=app_id, user_id=user, after_position=after),
        _EVENTS,
        connection,
        display,
        record=_event_record,
    )


@alert.command("watch", cls=Command)
@with_groups
def watch(
    app_id: App,
    connection: Connection,
    display: Display,
    user: OnlyUser = None,
    after: Annotated[
        int | None, number("--after", "Only events after this position. Default: only new events.")
    ] = None,
) -> None:
    """Show the events of an app's alerts as they arrive. Ctrl-C ends it."""
    last = after

    async def watched(client: CreditClient, position: int) -> AsyncGenerator[AlertEvent, None]:
        nonlocal last
        async with aclosing(
            client.watch_alerts(app_id=app_id, user_id=user, after_position=position)
        ) as coming:
            async for event in coming:
                yield event
                last = event.position

    async def shown(client: CreditClient, notice: WaitingNotice) -> None:
        nonlocal last
        now = await client.alert_position(app_id=app_id)
        notice.answered()  # it may take long until the first event
        last = now if after is None else after
        await show_stream(
            watched(client, last),
            _EVENTS,
            display.form,
            utc=display.utc,
            record=_event_record,
            live=True,
        )

    try:
        make_reads(shown, connection)
    except KeyboardInterrupt:
        raise typer.Exit from None
    finally:
        if last is not None:
            ids = {"--app": app_id, "--user": user, "--users-app": connection.users_app}
            show_continuation(["alert", "watch"], ids, ["--after", str(last)])


def _event_record(event: object) -> Record:
    """Return the record of an event, which has the fields of its alert too."""
    record = record_of(event)
    found = record["alert"]
    return {**record, **found} if isinstance(found, dict) else record
