"""The commands of `credit`: each makes one call of the SDK and shows its answer."""

import asyncio
import os
import sys
import uuid
from collections.abc import Callable, Coroutine
from typing import Annotated, NoReturn, TypeAlias

import typer
from pydantic import ValidationError

from credit_client.cli.exits import Exit, exit_of
from credit_client.cli.output import Column, Format, record_of, show, show_rows, show_stream
from credit_client.client import CreditClient
from credit_client.errors import (
    CreditError,
    DeadlineExceeded,
    InternalError,
    ProtocolMismatch,
    Unavailable,
)

User: TypeAlias = Annotated[int, typer.Option("--user", help="The user's id.")]
App: TypeAlias = Annotated[int, typer.Option("--app", help="The app's id.")]
Credits: TypeAlias = Annotated[int, typer.Option("--credits", help="How many credits.")]
By: TypeAlias = Annotated[int, typer.Option("--by", help="Who asks: an id, 1 or more.")]
Key: TypeAlias = Annotated[
    str | None,
    typer.Option("--key", help="Idempotency key. With the same one a repetition counts once."),
]
Target: TypeAlias = Annotated[
    str | None,
    typer.Option("--target", help="The server, as host:port.  [CREDIT_TARGET; localhost:50051]"),
]
Timeout: TypeAlias = Annotated[
    float | None,
    typer.Option("--timeout", help="Seconds for the call.  [CREDIT_TIMEOUT_SECONDS; 10]"),
]
Output: TypeAlias = Annotated[
    Format | None,
    typer.Option("--output", "-o", help="Default: table at a terminal, json elsewhere."),
]

_HISTORY = (
    Column(field="created_at", width=24),
    Column(field="app_id", width=10, right=True),
    Column(field="credits", width=10, right=True),
)
_TRANSACTIONS = (
    Column(field="sequence", width=10, right=True),
    *_HISTORY,
    Column(field="type", width=4),
    Column(field="balance_after", width=13, right=True),
    Column(field="created_by", width=10, right=True),
    Column(field="id", width=24),
)
_PURCHASES = (
    *_HISTORY,
    Column(field="created_by", width=10, right=True),
    Column(field="id", width=24),
    Column(field="report_id", width=20),
    Column(field="report_name", width=0),
)
_BALANCES = (
    Column(field="app_id", width=10, right=True),
    Column(field="balance", width=10, right=True),
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Adds, spends and shows credits. The README lists the exit codes.",
)


@app.command()
def add(
    user: User,
    app_id: App,
    amount: Credits,
    by: By = 1,
    key: Key = None,
    target: Target = None,
    timeout: Timeout = None,
    output: Output = None,
) -> None:
    """Adds credits to a user's balance in an app."""
    key = uuid.uuid4().hex if key is None else key

    async def call(client: CreditClient) -> None:
        receipt = await client.add(
            user_id=user, app_id=app_id, credits=amount, created_by=by, idempotency_key=key
        )
        show(record_of(receipt), _format(output))

    _make(call, target, timeout, key)


@app.command()
def use(
    user: User,
    app_id: App,
    report: Annotated[str, typer.Option("--report", help="The report's id.")],
    name: Annotated[str, typer.Option("--name", help="The report's name.")],
    amount: Credits,
    by: By = 1,
    key: Key = None,
    target: Target = None,
    timeout: Timeout = None,
    output: Output = None,
) -> None:
    """Buys a report with a user's credits in an app."""
    key = uuid.uuid4().hex if key is None else key

    async def call(client: CreditClient) -> None:
        receipt = await client.use(
            user_id=user,
            app_id=app_id,
            report_id=report,
            report_name=name,
            credits=amount,
            created_by=by,
            idempotency_key=key,
        )
        show(record_of(receipt), _format(output))

    _make(call, target, timeout, key)


@app.command()
def balance(
    app_id: Annotated[int | None, typer.Option("--app", help="The app's id.")] = None,
    user: Annotated[int | None, typer.Option("--user", help="The user's id.")] = None,
    target: Target = None,
    timeout: Timeout = None,
    output: Output = None,
) -> None:
    """Shows a balance: of a user in an app, of all users of an app, or of a user in all apps."""

    async def of_app(client: CreditClient, app_id: int) -> None:
        credits_held = await client.balance(app_id, user)
        whose = {} if user is None else {"user_id": user}
        show({"app_id": app_id, **whose, "balance": credits_held}, _format(output))

    async def of_user(client: CreditClient, user_id: int) -> None:
        held = await client.user_credits(user_id)
        if _format(output) is Format.JSON:
            show(record_of(held), Format.JSON)
        else:
            show_rows([record_of(one) for one in held.balances], _BALANCES)

    if app_id is not None:
        _make(lambda client: of_app(client, app_id), target, timeout)
    elif user is not None:
        _make(lambda client: of_user(client, user), target, timeout)
    else:
        raise typer.BadParameter("name an app, a user, or both: --app, --user")


@app.command()
def purchases(
    user: User, target: Target = None, timeout: Timeout = None, output: Output = None
) -> None:
    """Lists all purchases of a user, oldest first."""
    _make(
        lambda client: show_stream(
            client.purchases(user), _PURCHASES, _format(output), "purchases"
        ),
        target,
        timeout,
    )


@app.command()
def transactions(
    user: User, target: Target = None, timeout: Timeout = None, output: Output = None
) -> None:
    """Lists all transactions of a user, oldest first."""
    _make(
        lambda client: show_stream(
            client.transactions(user), _TRANSACTIONS, _format(output), "transactions"
        ),
        target,
        timeout,
    )


def run() -> None:
    """Runs the command on the arguments of the process."""
    app(prog_name="credit")


def _format(given: Format | None) -> Format:
    return given or (Format.TABLE if sys.stdout.isatty() else Format.JSON)


def _make(
    call: Callable[[CreditClient], Coroutine[None, None, None]],
    target: str | None,
    timeout_seconds: float | None,
    key: str | None = None,
) -> None:
    """Makes a call with a client of its own, and turns what goes wrong into an exit code."""

    async def made() -> None:
        async with CreditClient(target, timeout_seconds=timeout_seconds) as client:
            await call(client)

    try:
        asyncio.run(made())
        sys.stdout.flush()
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(map(str, first["loc"]))
        _fail(f"{setting}: {first['msg'].removeprefix('Value error, ')}", Exit.MISUSE)
    except CreditError as error:
        _fail(_sentence(error, key), exit_of(error))
    except BrokenPipeError:
        # Python would complain once more on flushing at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(Exit.PIPE_CLOSED) from None


def _sentence(error: CreditError, key: str | None) -> str:
    sentence = error.message
    if error.request_id is not None:
        sentence += f" (request {error.request_id})"
    uncertain = Unavailable | DeadlineExceeded | InternalError | ProtocolMismatch
    if key and isinstance(error, uncertain):
        sentence += f"; it may have happened: repeat it with --key {key}"
    return sentence


def _fail(sentence: str, code: Exit) -> NoReturn:
    sys.stderr.write(f"credit: {sentence}\n")
    raise typer.Exit(code) from None
