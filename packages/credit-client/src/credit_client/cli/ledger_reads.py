"""The commands that show grants, holds, forecasts, spending caps and the policies of apps."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from credit_models import AppPolicy, ForecastStep, Grant, Hold, SpendingCapStatus

from credit_client.cli.calls import OPTIONAL, make_list, make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.groups import with_groups
from credit_client.cli.options import (
    After,
    App,
    By,
    Display,
    DryRun,
    MinRevision,
    Output,
    User,
    format_of,
    number,
)
from credit_client.cli.output import (
    Format,
    Layout,
    fields_of,
    record_of,
    show,
    show_json,
    show_rows,
)
from credit_client.cli.table import Record
from credit_client.cli.times import moment, read_option
from credit_client.client import CreditClient

_GRANTS = Layout(
    noun="grants",
    fields=fields_of(Grant),
    columns=("id", "left", "credits", "priority"),
    optional=("category",),
)
_GRANTS_SELDOM = ("category", "effective_at", "expires_at")
_HOLDS = Layout(
    noun="holds",
    fields=fields_of(Hold),
    columns=("id", "held", "expires_at", "created_by", "purpose"),
    optional=OPTIONAL,
)
_ALL_HOLDS = replace(
    _HOLDS,
    columns=("id", "state", "credits", "held", "captured", "released", "placed_at", "purpose"),
)
_CAPS = Layout(
    noun="caps",
    fields=fields_of(SpendingCapStatus),
    columns=("period", "cap", "spent", "held", "left", "resets_at"),
)
_STEPS = Layout(
    noun="steps",
    fields=fields_of(ForecastStep),
    columns=("at", "type", "effect", "balance_after", "related_id"),
)


@with_groups
def grants(
    user: User,
    app_id: App,
    connection: Connection,
    display: Display,
    min_revision: MinRevision = None,
) -> None:
    """List what is left of a user's grants in an app."""

    async def listed(client: CreditClient) -> None:
        found = await client.grants(user_id=user, app_id=app_id, min_revision=min_revision)
        records = [record_of(one) for one in found]
        columns = (*_GRANTS.columns, *filled(records, _GRANTS_SELDOM))
        show_rows(records, replace(_GRANTS, columns=columns), display.form, utc=display.utc)

    make_reads(lambda client, _: listed(client), connection, paging=display.paged)


@with_groups
def holds(
    user: User,
    app_id: App,
    connection: Connection,
    display: Display,
    everything: Annotated[bool, typer.Option("--all", help="List settled holds too.")] = False,
    after: After = 0,
    min_revision: MinRevision = None,
) -> None:
    """List a user's open holds in an app, oldest first."""
    make_list(
        lambda client: client.holds(
            user_id=user,
            app_id=app_id,
            include_settled=everything,
            after_sequence=after,
            min_revision=min_revision,
        ),
        _ALL_HOLDS if everything else _HOLDS,
        connection,
        display,
    )


@with_groups
def forecast(
    user: User,
    app_id: App,
    connection: Connection,
    display: Display,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="TIME",
            help="The end, such as 2026-12-31 or 2026-12-31T18:00Z. Default: without an end.",
        ),
    ] = None,
    min_revision: MinRevision = None,
) -> None:
    """Show when credits start, expire and are released, if nothing is spent."""
    end = None
    if until is not None:
        end = read_option("--until", until, lambda text: moment(text, utc=display.utc))

    async def shown(client: CreditClient) -> None:
        found = await client.forecast(
            user_id=user, app_id=app_id, until=end, min_revision=min_revision
        )
        if display.form is Format.JSON:
            show_json(record_of(found))
            return
        if display.form is Format.TABLE:
            show({"balance": found.balance}, Format.TABLE)
            if not found.steps:
                return
            typer.echo()
        show_rows(map(record_of, found.steps), _STEPS, display.form, utc=display.utc)

    make_reads(lambda client, _: shown(client), connection, paging=display.paged)


@with_groups
def caps(
    user: User,
    app_id: App,
    connection: Connection,
    display: Display,
    min_revision: MinRevision = None,
) -> None:
    """Show a user's spending caps in an app, what is spent and held, and when each period ends."""

    async def shown(client: CreditClient) -> None:
        found = await client.spending_cap(user_id=user, app_id=app_id, min_revision=min_revision)
        if display.form is Format.JSON:
            show_json(record_of(found))
        else:
            show_rows(map(record_of, found.statuses), _CAPS, display.form, utc=display.utc)

    make_reads(lambda client, _: shown(client), connection)


@with_groups
def policy(
    app_id: App,
    connection: Connection,
    allow_negative: Annotated[
        bool | None,
        typer.Option(
            "--allow-negative/--no-negative",
            help="Set whether an adjustment can take a balance below 0.",
        ),
    ] = None,
    expected_revision: Annotated[
        int | None,
        number("--expected-revision", "Reject the change unless the policy's revision is this."),
    ] = None,
    by: By = 1,
    dry_run: DryRun = False,
    output: Output = None,
) -> None:
    """Show the policy of an app, or set whether its balances may be negative.

    The command cap sets the spending caps that the policy shows.
    """
    if allow_negative is None:
        make_policy_call(lambda client: client.app_policy(app_id=app_id), connection, output=output)
        return
    make_policy_call(
        lambda client: client.set_app_policy(
            app_id=app_id,
            created_by=by,
            allow_negative=allow_negative,
            validate_only=dry_run,
            expected_revision=expected_revision,
        ),
        connection,
        output=output,
    )


def make_policy_call(
    call: Callable[[CreditClient], Coroutine[Any, Any, AppPolicy]],
    connection: Connection,
    *,
    output: Format | None,
) -> None:
    """Make a call that returns a policy, and show it. It can be repeated: it has no key.

    Any: what a coroutine yields and is sent.
    """

    async def shown(client: CreditClient) -> None:
        record = dict(record_of(await call(client)))
        if format_of(output) is Format.TABLE:
            caps = record.pop("caps")
            caps = caps if isinstance(caps, dict) else {}
            record = {"app_id": record.pop("app_id"), **caps, **record}
        show(record, format_of(output))

    make_reads(lambda client, _: shown(client), connection)


def filled(records: Iterable[Record], fields: Sequence[str]) -> list[str]:
    """Return those of the fields that have a value in any record."""
    rows = list(records)
    return [
        field for field in fields if any(row[field] not in (None, 0, "UNSPECIFIED") for row in rows)
    ]
