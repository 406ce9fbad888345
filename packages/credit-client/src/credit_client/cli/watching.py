"""The command that shows transactions as they are written."""

import shlex
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated

import typer
from credit_models import Balance
from credit_models import WatchResponse as WatchEvent

from credit_client.cli.calls import OPTIONAL, make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.exits import complain
from credit_client.cli.groups import with_groups
from credit_client.cli.options import Display, UserId, number, user_option
from credit_client.cli.output import Format, Layout, fields_of, record_of, show_json, show_rows
from credit_client.cli.table import Table

_TRANSACTION = ("created_at", "user_id", "app_id", "effect", "type", "balance_after", "id")
_BALANCES = Layout(noun="balances", fields=fields_of(Balance), columns=("app_id", "balance"))


@with_groups
def watch(
    connection: Connection,
    display: Display,
    user: Annotated[
        UserId | None, user_option("--user", "The user. Default: all of the app.")
    ] = None,
    app_id: Annotated[int | None, number("--app", "The app. Default: all of the user.")] = None,
    token: Annotated[
        str,
        typer.Option(
            "--from", metavar="TOKEN", help="Continue after the event with this resume token."
        ),
    ] = "",
    once: Annotated[
        bool, typer.Option("--once", help="End when everything up to now has been shown.")
    ] = False,
) -> None:
    """Show transactions of a user or of an app as they are written. Ctrl-C ends it."""
    if user is None and app_id is None:
        raise typer.BadParameter("name a user, an app, or both: --user, --app")
    if display.form is Format.CSV:
        raise typer.BadParameter("use table or json: watch has no csv", param_hint="'--output'")
    shown = _Shown(display.form, utc=display.utc)
    try:
        make_reads(
            lambda client, notice: shown.show(
                notice.until_first(
                    client.watch(
                        user_id=user,
                        app_id=app_id,
                        resume_token=token,
                        progress=True,
                        end_when_current=once,
                    )
                )
            ),
            connection,
        )
    except KeyboardInterrupt:
        raise typer.Exit from None
    finally:
        if shown.token:
            ids = {"--user": user, "--app": app_id, "--users-app": connection.users_app}
            position = ["--from", shown.token, *(["--once"] if once else [])]
            show_continuation(["watch"], ids, position)


def show_continuation(
    command: Sequence[str], ids: Mapping[str, int | str | None], position: Sequence[str]
) -> None:
    """Show the command that continues a watch on standard error.

    Args:
        command: The words of the command.
        ids: What is watched, by option; None: the option is not given.
        position: The option with the last position that was shown, and the text after it.
    """
    words = [word for name, id_ in ids.items() if id_ is not None for word in (name, str(id_))]
    line = shlex.join(["credit", *command, *words, *position])
    complain(f"credit: to continue: {line}\n")


class _Shown:
    """Writes events as they arrive: JSON lines, or rows of a table.

    Attributes:
        token: The token of the last event; empty before the first.
    """

    def __init__(self, output: Format, *, utc: bool) -> None:
        self.token = ""
        self._output = output
        self._table = Table(_TRANSACTION, optional=OPTIONAL, utc=utc)

    async def show(self, events: AsyncGenerator[WatchEvent, None]) -> None:
        async with aclosing(events):
            async for event in events:
                if self._output is Format.JSON:
                    if event.transaction is not None or event.snapshot is not None:
                        show_json(record_of(event))
                else:
                    self._show_in_table(event)
                sys.stdout.flush()
                self.token = event.resume_token

    def _show_in_table(self, event: WatchEvent) -> None:
        if event.snapshot is not None and event.snapshot.balances:
            show_rows(map(record_of, event.snapshot.balances), _BALANCES, Format.TABLE)
            sys.stdout.write("\n")
        if event.transaction is not None:
            self._table.add(record_of(event.transaction))
            self._table.end()  # each row is shown at once
