"""The commands `credit webhook`: URLs that receive the events of alerts."""

from typing import Annotated, TypeAlias

import typer
from credit_models import AlertEvent, DeadLetter, Webhook

from credit_client.cli.calls import make_list, make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.groups import with_groups
from credit_client.cli.help import Command, application
from credit_client.cli.options import App, By, Display, Output, format_of
from credit_client.cli.output import Layout, fields_of, record_of, show, show_rows
from credit_client.cli.table import Record
from credit_client.client import CreditClient

_WEBHOOKS = Layout(
    noun="webhooks", fields=fields_of(Webhook), columns=("url", "created_at", "created_by")
)
_DEAD = Layout(
    noun="dead letters",
    fields=tuple(
        dict.fromkeys(
            name for name in (*fields_of(AlertEvent), *fields_of(DeadLetter)) if name != "event"
        )
    ),
    columns=("id", "failed_at", "user_id", "balance", "attempts", "url", "error"),
)

webhook = application(help="Send the events of alerts to URLs, as signed messages.", epilog="")

Url: TypeAlias = Annotated[str, typer.Option("--url", help="The URL of the webhook.")]


@webhook.command("set", cls=Command)
@with_groups
def set_(app_id: App, url: Url, connection: Connection, by: By = 1, output: Output = None) -> None:
    """Set a webhook with a new secret, and show the secret. No other command shows it."""

    async def made(client: CreditClient) -> None:
        secret = await client.set_webhook(app_id=app_id, url=url, created_by=by)
        show({"url": url, "secret": secret}, format_of(output))

    make_reads(lambda client, _: made(client), connection)


@webhook.command("list", cls=Command)
@with_groups
def list_(app_id: App, connection: Connection, display: Display) -> None:
    """List the webhooks of an app."""

    async def listed(client: CreditClient) -> None:
        records = [record_of(each) for each in await client.webhooks(app_id=app_id)]
        show_rows(records, _WEBHOOKS, display.form, utc=display.utc)

    make_reads(lambda client, _: listed(client), connection, paging=display.paged)


@webhook.command("remove", cls=Command)
@with_groups
def remove(
    app_id: App, url: Url, connection: Connection, by: By = 1, output: Output = None
) -> None:
    """Remove a webhook, and drop the messages that it has not acknowledged.

    Shows whether the webhook was set, and how many webhooks of the app are left.
    """

    async def removed(client: CreditClient) -> None:
        before = {each.url for each in await client.webhooks(app_id=app_id)}
        await client.remove_webhook(app_id=app_id, url=url, created_by=by)
        numbers = {"removed": url in before, "webhooks_left": len(before - {url})}
        show({"app_id": app_id, "url": url, **numbers}, format_of(output))

    make_reads(lambda client, _: removed(client), connection)


@webhook.command("dead", cls=Command)
@with_groups
def dead(app_id: App, connection: Connection, display: Display) -> None:
    """List the dead letters of an app: the messages that no attempt has delivered."""
    make_list(
        lambda client: client.dead_letters(app_id=app_id),
        _DEAD,
        connection,
        display,
        record=_dead_record,
    )


@webhook.command("resend", cls=Command)
@with_groups
def resend(
    app_id: App,
    connection: Connection,
    dead_letter: Annotated[
        str | None, typer.Option("--id", help="The dead letter's id. Default: all of the app.")
    ] = None,
    by: By = 1,
    output: Output = None,
) -> None:
    """Send dead letters again, and show how many."""

    async def resent(client: CreditClient) -> None:
        number = await client.resend_dead_letters(
            app_id=app_id, created_by=by, dead_letter_id=dead_letter
        )
        show({"resent": number}, format_of(output))

    make_reads(lambda client, _: resent(client), connection)


def _dead_record(letter: object) -> Record:
    """Return the record of a dead letter, which has the fields of its event too."""
    record = record_of(letter)
    event = record["event"]
    return {**event, **record} if isinstance(event, dict) else record
