"""How a command makes calls, shows their answers, and ends with an exit code."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence

import typer
from credit_models import Receipt

from credit_client.cli.connection import Connection
from credit_client.cli.exits import Exit, discard, exit_of
from credit_client.cli.flags import sentence_of
from credit_client.cli.options import client_of, fail, format_of
from credit_client.cli.output import Format, record_of, show, show_stream
from credit_client.cli.waiting import WaitingNotice
from credit_client.cli.write import retryable
from credit_client.client import CreditClient
from credit_client.errors import CreditError, Outcome

# The columns that a table leaves out on a narrow terminal. JSON output always has them.
OPTIONAL = ("id", "created_by")


def make_list(
    rows: Callable[[CreditClient], AsyncGenerator[object, None]],
    fields: Sequence[str],
    noun: str,
    connection: Connection,
    *,
    utc: bool,
    output: Format | None,
) -> None:
    """Show the rows of a list as they arrive."""
    make_reads(
        lambda client, notice: show_stream(
            notice.until_first(rows(client)),
            fields,
            format_of(output),
            noun,
            optional=OPTIONAL,
            utc=utc,
        ),
        connection,
    )


def make_reads(
    call: Callable[[CreditClient, WaitingNotice], Coroutine[None, None, None]],
    connection: Connection,
) -> None:
    """Make calls that change nothing with a new client, and turn an error into an exit code."""
    client = client_of(connection)

    async def made() -> None:
        with WaitingNotice(client.settings.target) as notice:
            async with client:
                await call(client, notice)

    try:
        asyncio.run(made())
        sys.stdout.flush()
    except CreditError as error:
        fail(sentence_of(error), exit_of(error))
    except BrokenPipeError:
        discard(sys.stdout)
        raise typer.Exit(Exit.PIPE_CLOSED) from None


def make_write(
    call: Callable[[CreditClient, str], Coroutine[None, None, Receipt]],
    command: Sequence[object],
    connection: Connection,
    *,
    key: str | None,
    output: Format | None,
) -> None:
    """Make a write and show its receipt.

    Args:
        call: The write.
        command: Its name and its options, without the key and the connection.
        connection: How to reach the server.
        key: The idempotency key; None for a new one.
        output: How to show the receipt.
    """
    client = client_of(connection)
    key = client.new_key() if key is None else key
    shape = [] if output is None else ["--output", output]
    retry = ["credit", *command, "--key", key, *connection.words(client.settings.target), *shape]

    async def made() -> None:
        async with client:
            with WaitingNotice(client.settings.target):
                receipt = await call(client, key)
            write.outcome = Outcome.APPLIED
            show(record_of(receipt), format_of(output))
            sys.stdout.flush()

    with retryable(retry) as write:
        asyncio.run(made())
