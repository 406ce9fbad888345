"""The commands that grant, return, move, correct and cap credits."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer
from credit_models import CreditTransaction, GrantCategory

from credit_client.cli.calls import Question, make_ledger_write, make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.exits import Exit
from credit_client.cli.groups import with_groups
from credit_client.cli.ledger_reads import make_policy_call
from credit_client.cli.options import (
    App,
    By,
    Credits,
    Details,
    DryRun,
    NotedDetails,
    Sending,
    User,
    UserId,
    fail,
    number,
    user_option,
)
from credit_client.cli.times import duration, fixed, fixed_or_duration, is_duration, moment
from credit_client.client import CreditClient


class Category(StrEnum):
    """The values of `--category`."""

    PAID = "paid"
    PROMOTIONAL = "promotional"
    OWN = "own"


@with_groups
def grant(
    user: User,
    app_id: App,
    amount: Credits,
    words: list[object],
    sending: Sending,
    details: NotedDetails,
    connection: Connection,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            parser=fixed_or_duration,
            metavar="WHEN",
            help="When the credits expire: after a time such as 30d or 12h, at the beginning of a"
            " day such as 2026-12-31, or at a time such as 2026-12-31T18:00Z. Default: never.",
        ),
    ] = None,
    starts: Annotated[
        str | None,
        typer.Option(
            "--starts",
            parser=fixed,
            metavar="TIME",
            help="When the credits can first be spent, such as 2026-12-31 or 2026-12-31T18:00Z."
            " Default: now.",
        ),
    ] = None,
    priority: Annotated[
        int | None, number("--priority", "0 to 1000: the lowest is spent first. Default: 500.")
    ] = None,
    category: Annotated[
        Category | None, typer.Option("--category", help="Where the credits come from.")
    ] = None,
    by: By = 1,
    dry_run: DryRun = False,
) -> None:
    """Add credits that have an end, a start, a priority or a category."""
    ends_at, ends_after = _when(expires)
    make_ledger_write(
        lambda client, attempt: client.grant(
            user_id=user,
            app_id=app_id,
            credits=amount,
            created_by=by,
            expires_at=ends_at,
            expires_after=ends_after,
            effective_at=None if starts is None else moment(starts),
            priority=priority,
            category=GrantCategory[category.name] if category else GrantCategory.UNSPECIFIED,
            **details.options(attempt),
        ),
        words,
        connection,
        sending,
        details,
        dry_run=dry_run,
        question=Question(action="grant", user_id=user, app_id=app_id, amount=amount),
    )


@with_groups
def void(
    user: User,
    app_id: App,
    grant_id: Annotated[str, typer.Option("--grant", help="The grant's id.")],
    words: list[object],
    sending: Sending,
    details: NotedDetails,
    connection: Connection,
    by: By = 1,
    dry_run: DryRun = False,
) -> None:
    """Take back what is left of a grant."""
    make_ledger_write(
        lambda client, attempt: client.void_grant(
            user_id=user,
            app_id=app_id,
            grant_id=grant_id,
            created_by=by,
            **details.options(attempt),
        ),
        words,
        connection,
        sending,
        details,
        dry_run=dry_run,
        question=Question(action="void", user_id=user, app_id=app_id, amount=None),
    )


@with_groups
def refund(
    user: User,
    app_id: App,
    words: list[object],
    sending: Sending,
    details: NotedDetails,
    connection: Connection,
    transaction: Annotated[
        str | None, typer.Option("--transaction", help="The transaction's id.")
    ] = None,
    sequence: Annotated[
        int | None, number("--sequence", "Or the transaction's sequence, which lists show as SEQ.")
    ] = None,
    amount: Annotated[
        int | None, number("--credits", "The number of credits. Default: all that is left.")
    ] = None,
    restore_until: Annotated[
        str | None,
        typer.Option(
            "--restore-until",
            parser=fixed,
            metavar="TIME",
            help="Until when refunded credits of grants that have ended can be spent, such as"
            " 2026-12-31 or 2026-12-31T18:00Z. Default: they expire at once.",
        ),
    ] = None,
    by: By = 1,
    dry_run: DryRun = False,
) -> None:
    """Return the credits of a purchase, or take back credits that were added."""
    if (transaction is None) == (sequence is None):
        raise typer.BadParameter("give either --transaction or --sequence")
    found = transaction or _transaction_at(sequence or 0, user, app_id, connection)
    make_ledger_write(
        lambda client, attempt: client.reverse(
            user_id=user,
            app_id=app_id,
            transaction_id=found,
            credits=amount,
            restore_until=None if restore_until is None else moment(restore_until),
            created_by=by,
            **details.options(attempt),
        ),
        words,
        connection,
        sending,
        details,
        dry_run=dry_run,
        question=Question(action="refund", user_id=user, app_id=app_id, amount=amount),
    )


@with_groups
def transfer(
    user: User,
    app_id: App,
    amount: Credits,
    words: list[object],
    sending: Sending,
    details: NotedDetails,
    connection: Connection,
    to_user: Annotated[
        UserId | None,
        user_option("--to-user", "The user who receives the credits. Default: the same user."),
    ] = None,
    to_app: Annotated[
        int | None,
        number("--to-app", "The app in which the credits are received. Default: the same app."),
    ] = None,
    by: By = 1,
    dry_run: DryRun = False,
) -> None:
    """Move credits to another user, another app, or both."""
    if to_user is None and to_app is None:
        raise typer.BadParameter("pass --to-user or --to-app")
    make_ledger_write(
        lambda client, attempt: client.transfer(
            user_id=user,
            app_id=app_id,
            credits=amount,
            to_user_id=to_user,
            to_app_id=to_app,
            created_by=by,
            **details.options(attempt),
        ),
        words,
        connection,
        sending,
        details,
        dry_run=dry_run,
        question=Question(action="transfer", user_id=user, app_id=app_id, amount=amount),
    )


@with_groups
def adjust(
    user: User,
    app_id: App,
    delta: Annotated[int, number("--delta", "The change of the balance, such as 5 or -5.")],
    note: Annotated[str, typer.Option("--note", help="The reason. It is stored with the write.")],
    words: list[object],
    sending: Sending,
    details: Details,
    connection: Connection,
    by: By = 1,
    dry_run: DryRun = False,
) -> None:
    """Correct a balance, where no other command can."""
    make_ledger_write(
        lambda client, attempt: client.adjust(
            user_id=user,
            app_id=app_id,
            delta=delta,
            note=note,
            created_by=by,
            **details.options(attempt),
        ),
        words,
        connection,
        sending,
        details,
        dry_run=dry_run,
        question=Question(action="adjust by", user_id=user, app_id=app_id, amount=abs(delta)),
    )


@with_groups
def cap(
    app_id: App,
    words: list[object],
    sending: Sending,
    details: NotedDetails,
    connection: Connection,
    user: Annotated[
        UserId | None,
        user_option("--user", "The user. Default: all users without caps of their own."),
    ] = None,
    hour: Annotated[int | None, number("--hour", "The cap of each hour (UTC).")] = None,
    day: Annotated[int | None, number("--day", "The cap of each day.")] = None,
    month: Annotated[int | None, number("--month", "The cap of each calendar month.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove all caps.")] = False,
    by: By = 1,
    dry_run: DryRun = False,
) -> None:
    """Limit what a user, or each user of an app, can spend. Caps that are not given are removed."""
    if remove == ((hour, day, month) != (None, None, None)):
        raise typer.BadParameter("give the caps (--hour, --day, --month), or --remove")
    caps = {"per_hour": hour, "per_day": day, "per_month": month}
    if user is not None:
        make_ledger_write(
            lambda client, attempt: client.set_spending_cap(
                user_id=user, app_id=app_id, created_by=by, **caps, **details.options(attempt)
            ),
            words,
            connection,
            sending,
            details,
            dry_run=dry_run,
        )
        return
    if details.note or details.metadata or details.min_available_after or sending.key:
        raise typer.BadParameter(
            "--key, --note, --metadata and --min-available-after need --user: setting the caps of"
            " an app writes no transaction"
        )
    make_policy_call(
        lambda client: client.set_app_spending_cap(
            app_id=app_id,
            created_by=by,
            **caps,
            validate_only=dry_run,
            expected_revision=details.expected_revision,
        ),
        connection,
        output=sending.output,
    )


def _when(text: str | None) -> tuple[datetime | None, timedelta | None]:
    """Return the moment or the duration that a text names."""
    if text is None:
        return None, None
    return (None, duration(text)) if is_duration(text) else (moment(text), None)


def _transaction_at(sequence: int, user: int | str, app_id: int, connection: Connection) -> str:
    """Return the id of a user's transaction, or end the command."""
    found: list[str] = []

    def rows_of(client: CreditClient) -> AsyncGenerator[CreditTransaction, None]:
        after = max(0, sequence - 1)
        if isinstance(user, int):
            return client.transactions(user_id=user, after_sequence=after)
        # A query has the app, whose directory has the user. Servers before 0.4.0 have neither.
        return aiter(
            client.query_transactions(
                user_id=user,
                app_id=app_id,
                after_sequence=after,
                before_sequence=sequence + 1,
                page_size=1,
            )
        )

    async def find(client: CreditClient) -> None:
        rows = rows_of(client)
        async with aclosing(rows):
            async for row in rows:
                found.extend([row.id] if row.sequence == sequence else [])
                return

    make_reads(lambda client, _: find(client), connection)
    if not found:
        fail(f"user {user} has no transaction {sequence}; no change was made", Exit.NOT_FOUND)
    return found[0]
