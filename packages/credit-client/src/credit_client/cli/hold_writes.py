"""The commands that reserve credits, and buy with reserved credits or release them."""

from datetime import timedelta
from typing import Annotated

import typer

from credit_client.cli.calls import Question, make_ledger_write
from credit_client.cli.connection import Connection
from credit_client.cli.groups import with_groups
from credit_client.cli.options import (
    App,
    By,
    Credits,
    DryRun,
    NotedDetails,
    ReportId,
    ReportName,
    Sending,
    User,
    number,
)
from credit_client.cli.times import duration

HoldId = Annotated[str, typer.Option("--hold", help="The hold's id.")]


@with_groups
def hold(
    user: User,
    app_id: App,
    amount: Credits,
    words: list[object],
    sending: Sending,
    details: NotedDetails,
    connection: Connection,
    expires: Annotated[
        timedelta | None,
        typer.Option(
            "--expires",
            parser=duration,
            metavar="TIME",
            help="The time until the hold ends, such as 90s or 2h. Default: 15m.",
        ),
    ] = None,
    purpose: Annotated[
        str, typer.Option("--purpose", help="What the credits are reserved for.")
    ] = "",
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Reserve the whole balance if it is less than --credits."),
    ] = False,
    by: By = 1,
    dry_run: DryRun = False,
) -> None:
    """Reserve credits for a purchase whose price is not known yet."""
    make_ledger_write(
        lambda client, attempt: client.place_hold(
            user_id=user,
            app_id=app_id,
            credits=amount,
            created_by=by,
            expires_after=expires,
            purpose=purpose,
            allow_partial=partial,
            **details.options(attempt),
        ),
        words,
        connection,
        sending,
        details,
        dry_run=dry_run,
        question=Question(action="hold", user_id=user, app_id=app_id, amount=amount),
    )


@with_groups
def capture(
    user: User,
    app_id: App,
    hold_id: HoldId,
    report: ReportId,
    name: ReportName,
    words: list[object],
    sending: Sending,
    details: NotedDetails,
    connection: Connection,
    amount: Annotated[
        int | None, number("--credits", "The price. Default: all that the hold holds.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the rest held, for more captures.")
    ] = False,
    excess: Annotated[
        bool, typer.Option("--excess", help="Pay from the balance what exceeds the hold.")
    ] = False,
    by: By = 1,
    dry_run: DryRun = False,
) -> None:
    """Buy a report with reserved credits."""
    make_ledger_write(
        lambda client, attempt: client.capture_hold(
            user_id=user,
            app_id=app_id,
            hold_id=hold_id,
            report_id=report,
            report_name=name,
            credits=amount,
            final=not keep,
            allow_excess=excess,
            created_by=by,
            **details.options(attempt),
        ),
        words,
        connection,
        sending,
        details,
        dry_run=dry_run,
        question=Question(action="capture", user_id=user, app_id=app_id, amount=amount),
    )


@with_groups
def release(
    user: User,
    app_id: App,
    hold_id: HoldId,
    words: list[object],
    sending: Sending,
    details: NotedDetails,
    connection: Connection,
    by: By = 1,
    dry_run: DryRun = False,
) -> None:
    """Release what a hold still holds."""
    make_ledger_write(
        lambda client, attempt: client.release_hold(
            user_id=user,
            app_id=app_id,
            hold_id=hold_id,
            created_by=by,
            **details.options(attempt),
        ),
        words,
        connection,
        sending,
        details,
        dry_run=dry_run,
    )


@with_groups
def extend(
    user: User,
    app_id: App,
    hold_id: HoldId,
    expires: Annotated[
        timedelta,
        typer.Option(
            "--expires",
            parser=duration,
            metavar="TIME",
            help="The time from now to the hold's new end, such as 90s or 2h.",
        ),
    ],
    words: list[object],
    sending: Sending,
    details: NotedDetails,
    connection: Connection,
    by: By = 1,
    dry_run: DryRun = False,
) -> None:
    """Change when a hold ends."""
    make_ledger_write(
        lambda client, attempt: client.extend_hold(
            user_id=user,
            app_id=app_id,
            hold_id=hold_id,
            expires_after=expires,
            created_by=by,
            **details.options(attempt),
        ),
        words,
        connection,
        sending,
        details,
        dry_run=dry_run,
    )
