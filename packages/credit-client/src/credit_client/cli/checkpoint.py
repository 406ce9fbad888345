"""`credit checkpoint`: show and save a checkpoint that the operator has signed."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from credit_client.checkpoint import Checkpoint
from credit_client.cli.calls import make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.exits import Exit
from credit_client.cli.groups import with_groups
from credit_client.cli.options import App, Display, UserId, check_key, fail, user_option
from credit_client.cli.output import Format, plain, show
from credit_client.cli.times import past, read_option
from credit_client.client import CreditClient

_TIME = "such as 2026-11-30, 2026-11-30T18:00Z or 2d for two days ago."


@with_groups
def checkpoint(
    app_id: App,
    key: Annotated[
        Path,
        typer.Option(
            "--key",
            metavar="FILE",
            dir_okay=False,
            exists=True,
            help="The operator's public key for checkpoints, in PEM.",
        ),
    ],
    connection: Connection,
    display: Display,
    user: Annotated[
        UserId | None,
        user_option("--user", "The user whose history is compared with the checkpoint."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            dir_okay=False,
            help="Write the checkpoint and its proof into a new file.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIME",
            help=f"The newest checkpoint of this time or earlier, {_TIME} Default: the newest.",
        ),
    ] = None,
    not_before: Annotated[
        str | None,
        typer.Option(
            "--not-before",
            metavar="TIME",
            help=f"Reject an older checkpoint, {_TIME} Default: 2 days before --at.",
        ),
    ] = None,
) -> None:
    """Show the operator's signed checkpoint of an app, and check it with the operator's key."""

    def time_of(name: str, text: str | None) -> datetime | None:
        if text is None:
            return None
        return read_option(name, text, lambda given: past(given, utc=display.utc))

    latest, oldest = time_of("--at", at), time_of("--not-before", not_before)

    async def shown(client: CreditClient) -> None:
        found = await client.checkpoint(
            app_id=app_id, key=key, user_id=user, at=latest, not_before=oldest
        )
        if file is not None:
            _save(found, file)
        record = {"app_id": found.app_id, "time": plain(found.time), "users": found.size}
        if user is not None:
            head = next(iter(found.heads.values()), None)
            # Of a user without a hash, JSON and CSV have no value.
            absent = None if display.form is not Format.TABLE else "none: no transaction has a hash"
            record["hash"] = absent if head is None else plain(head)
        show(record, display.form, utc=display.utc)

    try:
        check_key(key)
        make_reads(lambda client, _: shown(client), connection)
    except ImportError as error:
        fail(str(error), Exit.OTHER)


def _save(found: Checkpoint, file: Path) -> None:
    try:
        found.save(file)
    except OSError as error:
        fail(
            f"the file {file} cannot be written: {error.strerror}; the checkpoint was not saved",
            Exit.OTHER,
        )
