"""How a command makes calls, shows their answers, and ends with an exit code."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeAlias

import typer
from credit_models import Receipt

from credit_client.cli.connection import Connection
from credit_client.cli.exits import Exit, complain, discard, exit_of
from credit_client.cli.flags import sentence_of
from credit_client.cli.groups import words_of
from credit_client.cli.options import (
    Attempt,
    Details,
    Display,
    Sending,
    client_of,
    fail,
    format_of,
)
from credit_client.cli.output import Layout, record_of, show_receipt, show_stream
from credit_client.cli.pager import paged
from credit_client.cli.table import Record
from credit_client.cli.waiting import WaitingNotice
from credit_client.cli.write import retryable
from credit_client.client import CreditClient
from credit_client.errors import CreditError, Outcome

Write: TypeAlias = Callable[[CreditClient, Attempt], Coroutine[None, None, Receipt]]

# The columns that a table leaves out on a narrow terminal. JSON and CSV always have them.
OPTIONAL = ("id", "created_by")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """The question before a large write.

    Attributes:
        action: The write as a verb, such as "grant".
        user_id: The user.
        app_id: The app.
        amount: The number of credits; None if only a preview shows it.
    """

    action: str
    user_id: int | str
    app_id: int
    amount: int | None


def make_list(
    rows: Callable[[CreditClient], AsyncGenerator[object, None]],
    layout: Layout,
    connection: Connection,
    display: Display,
    *,
    record: Callable[[object], Record] = record_of,
    row: Callable[[Record], Record] | None = None,
) -> None:
    """Show the rows of a list as they arrive.

    Args:
        rows: The list.
        layout: Its form.
        connection: How to reach the server.
        display: How to show the rows.
        record: Makes the record of a row.
        row: Makes the row of the table from a record; None changes nothing.
    """
    make_reads(
        lambda client, notice: show_stream(
            notice.until_first(rows(client)),
            layout,
            display.form,
            utc=display.utc,
            record=record,
            row=row,
        ),
        connection,
        paging=display.paged,
    )


def make_reads(
    call: Callable[[CreditClient, WaitingNotice], Coroutine[None, None, None]],
    connection: Connection,
    *,
    paging: bool = False,
) -> None:
    """Make calls that change nothing with a new client, and turn an error into an exit code.

    Args:
        call: Makes the calls, and shows what they return.
        connection: How to reach the server.
        paging: Whether an output that is longer than the terminal goes to a pager.
    """
    client = client_of(connection)

    async def made() -> None:
        with WaitingNotice(client.settings.target) as notice:
            async with client:
                await call(client, notice)

    try:
        with paged() if paging else nullcontext():
            asyncio.run(made())
        sys.stdout.flush()
    except CreditError as error:
        fail(sentence_of(error), exit_of(error))
    except BrokenPipeError:
        discard(sys.stdout)
        raise typer.Exit(Exit.PIPE_CLOSED) from None


def make_write(
    write: Write,
    words: Sequence[object],
    connection: Connection,
    sending: Sending,
    *,
    question: Question | None = None,
) -> None:
    """Make a write and show its receipt; ask first if it is large.

    Args:
        write: The write.
        words: The command's name and its options, without the key and the connection.
        connection: How to reach the server.
        sending: How to send the write.
        question: What to ask; None asks nothing.
    """
    if question is not None and question.amount is not None and sending.asks(question.amount):
        _confirm(question, question.amount)
        words = [*words, "--yes"]
    _make_write(write, words, connection, sending)


def make_ledger_write(
    write: Write,
    words: Sequence[object],
    connection: Connection,
    sending: Sending,
    details: Details,
    *,
    dry_run: bool,
    question: Question | None = None,
) -> None:
    """Make a write that can be only validated; see `make_write`.

    Args:
        write: The write.
        words: The command's name and its own options.
        connection: How to reach the server.
        sending: How to send the write.
        details: The conditions of the write, and what is stored with it.
        dry_run: Whether to show only what the write would do.
        question: What to ask; None asks nothing.
    """
    if dry_run:
        show_receipt(_preview(write, connection, sending), format_of(sending.output))
        return
    words = [*words, *words_of(details)]
    if question is not None and sending.asks(question.amount):
        receipt = _preview(write, connection, sending)
        if sending.asks(receipt.credits) and receipt.validated:
            _confirm(question, receipt.credits, receipt)
            words = [*words, "--yes"]
    _make_write(write, words, connection, sending)


def _preview(write: Write, connection: Connection, sending: Sending) -> Receipt:
    """Return the receipt that a write would have."""
    receipts: list[Receipt] = []

    async def validate(client: CreditClient, _: WaitingNotice) -> None:
        receipts.append(await write(client, Attempt(key=sending.key, validate_only=True)))

    make_reads(validate, connection)
    return receipts[0]


def _confirm(question: Question, amount: int, preview: Receipt | None = None) -> None:
    """Ask a person at the terminal; end the command unless the answer is yes."""
    change = (
        ""
        if preview is None
        else f", from {preview.balance_before:,} to {preview.balance:,} credits"
    )
    complain(
        f"credit: {question.action} {amount:,} credits, user {question.user_id} in app"
        f" {question.app_id}{change}? [y/N] "
    )
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail("not confirmed; no change was made", Exit.NOT_CONFIRMED)


def _make_write(
    write: Write, words: Sequence[object], connection: Connection, sending: Sending
) -> None:
    client = client_of(connection)
    key = client.new_key() if sending.key is None else sending.key
    shape = [] if sending.output is None else ["--output", sending.output]
    retry = ["credit", *words, "--key", key, *connection.words(client.settings), *shape]

    async def made() -> None:
        async with client:
            with WaitingNotice(client.settings.target):
                receipt = await write(client, Attempt(key=key, validate_only=False))
            running.outcome = Outcome.APPLIED
            show_receipt(receipt, format_of(sending.output))
            sys.stdout.flush()

    with retryable(retry) as running:
        asyncio.run(made())
