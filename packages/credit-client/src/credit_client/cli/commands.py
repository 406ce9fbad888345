"""The commands of `credit`: each makes one call of the SDK and shows its answer."""

import asyncio
import errno
import sys
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import version
from typing import Annotated, NoReturn, TypeAlias

import typer
from credit_models import Receipt
from typer.models import OptionInfo

from credit_client.cli.connection import Connection, with_connection
from credit_client.cli.exits import MEANINGS, Exit, exit_of
from credit_client.cli.output import Column, Format, record_of, show, show_rows, show_stream
from credit_client.cli.streams import complain, discard
from credit_client.cli.write import retryable
from credit_client.client import CreditClient
from credit_client.errors import CreditError, Outcome


def _whole(text: str | int) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number") from None


def _number(name: str, explanation: str) -> OptionInfo:
    option: OptionInfo = typer.Option(name, parser=_whole, metavar="INTEGER", help=explanation)
    return option


User: TypeAlias = Annotated[int, _number("--user", "The user's id.")]
App: TypeAlias = Annotated[int, _number("--app", "The app's id.")]
Credits: TypeAlias = Annotated[int, _number("--credits", "How many credits.")]
By: TypeAlias = Annotated[int, _number("--by", "Who asks: an id, 1 or more.")]
Key: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--key", help="Idempotency key: writes with the same one count once. Default: a new one."
    ),
]
Output: TypeAlias = Annotated[
    Format | None,
    typer.Option("--output", "-o", help="Default: table at a terminal, json elsewhere."),
]

After: TypeAlias = Annotated[
    int, _number("--after", "Only what comes after this sequence. Default: 0, for all.")
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
    Column(field="sequence", width=10, right=True),
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

_WRITES = (
    "Where a write ends without its result, standard error says whether it may have taken effect,"
    " and the command that retries it and counts once. Only kill -9 leaves no time for that: give"
    " --key yourself where the process may be killed."
)

_TOKENS = (
    "A server that asks who calls gets a token from the variable CREDIT_TOKEN, or from a file that"
    " --token-file or CREDIT_TOKEN_FILE names; never from the command line, where others could read"
    " it. Or a client certificate. A token goes to another machine only over TLS."
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Adds, spends and shows credits.",
    # A paragraph for each, or they would run together.
    epilog="\n\n".join(
        [
            _WRITES,
            _TOKENS,
            "Exit codes:",
            *(f"{code.value:>3}  {meaning}" for code, meaning in MEANINGS.items()),
        ]
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"credit {version('credit-client')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Takes the options that belong to no command."""


@app.command()
@with_connection
def add(
    user: User,
    app_id: App,
    amount: Credits,
    connection: Connection,
    by: By = 1,
    key: Key = None,
    output: Output = None,
) -> None:
    """Adds credits to a user's balance in an app."""
    _write(
        lambda client, key: client.add(
            user_id=user, app_id=app_id, credits=amount, created_by=by, idempotency_key=key
        ),
        ["add", "--user", user, "--app", app_id, "--credits", amount, "--by", by],
        connection,
        key=key,
        output=output,
    )


@app.command()
@with_connection
def use(
    user: User,
    app_id: App,
    report: Annotated[str, typer.Option("--report", help="The report's id.")],
    name: Annotated[str, typer.Option("--name", help="The report's name.")],
    amount: Credits,
    connection: Connection,
    by: By = 1,
    key: Key = None,
    output: Output = None,
) -> None:
    """Buys a report with a user's credits in an app."""
    what = ["--user", user, "--app", app_id, "--report", report, "--name", name]
    _write(
        lambda client, key: client.use(
            user_id=user,
            app_id=app_id,
            report_id=report,
            report_name=name,
            credits=amount,
            created_by=by,
            idempotency_key=key,
        ),
        ["use", *what, "--credits", amount, "--by", by],
        connection,
        key=key,
        output=output,
    )


@app.command()
@with_connection
def balance(
    connection: Connection,
    app_id: Annotated[int | None, _number("--app", "The app's id.")] = None,
    user: Annotated[int | None, _number("--user", "The user's id.")] = None,
    output: Output = None,
) -> None:
    """Shows a balance: of a user in an app, of all users of an app, or of a user in all apps."""

    async def of_app(client: CreditClient, app_id: int) -> None:
        credits_held = await client.balance(app_id=app_id, user_id=user)
        whose = {} if user is None else {"user_id": user}
        show({"app_id": app_id, **whose, "balance": credits_held}, _format(output))

    async def of_user(client: CreditClient, user_id: int) -> None:
        held = await client.user_credits(user_id=user_id)
        if _format(output) is Format.JSON:
            show(record_of(held), Format.JSON)
        else:
            show_rows([record_of(one) for one in held.balances], _BALANCES, "balances")

    if app_id is not None:
        _make(lambda client: of_app(client, app_id), connection)
    elif user is not None:
        _make(lambda client: of_user(client, user), connection)
    else:
        raise typer.BadParameter("name an app, a user, or both: --app, --user")


@app.command()
@with_connection
def purchases(user: User, connection: Connection, after: After = 0, output: Output = None) -> None:
    """Lists all purchases of a user, oldest first."""
    _make(
        lambda client: show_stream(
            client.purchases(user_id=user, after_sequence=after),
            _PURCHASES,
            _format(output),
            "purchases",
        ),
        connection,
    )


@app.command()
@with_connection
def transactions(
    user: User, connection: Connection, after: After = 0, output: Output = None
) -> None:
    """Lists all transactions of a user, oldest first."""
    _make(
        lambda client: show_stream(
            client.transactions(user_id=user, after_sequence=after),
            _TRANSACTIONS,
            _format(output),
            "transactions",
        ),
        connection,
    )


def run() -> None:
    """Runs the command on the arguments of the process."""
    try:
        try:
            app(prog_name="credit")
        finally:
            sys.stdout.flush()
    except OSError as error:
        # What the network does arrives as a `CreditError`: this is the output, on a full disk.
        discard(sys.stdout)
        complain(f"credit: cannot write the output: {error.strerror or error}\n")
        sys.exit(Exit.PIPE_CLOSED if error.errno == errno.EPIPE else Exit.OTHER)


def _format(given: Format | None) -> Format:
    return given or (Format.TABLE if sys.stdout.isatty() else Format.JSON)


def _make(
    call: Callable[[CreditClient], Coroutine[None, None, None]],
    connection: Connection,
) -> None:
    """Makes a call with a client of its own, and turns what goes wrong into an exit code."""
    client = _client(connection)

    async def made() -> None:
        async with client:
            await call(client)

    try:
        asyncio.run(made())
        sys.stdout.flush()
    except CreditError as error:
        _fail(str(error), exit_of(error))
    except BrokenPipeError:
        discard(sys.stdout)
        raise typer.Exit(Exit.PIPE_CLOSED) from None


def _write(
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
        command: Its name and its options, to which the key and the connection come.
        connection: How to reach the server.
        key: The idempotency key; None for a new one.
        output: How to show the receipt.
    """
    client = _client(connection)
    key = client.new_key() if key is None else key
    shape = [] if output is None else ["--output", output]
    retry = ["credit", *command, "--key", key, *connection.words(client.settings.target), *shape]

    async def made() -> None:
        async with client:
            receipt = await call(client, key)
            write.outcome = Outcome.APPLIED
            show(record_of(receipt), _format(output))
            sys.stdout.flush()

    with retryable(retry) as write:
        asyncio.run(made())


def _client(connection: Connection) -> CreditClient:
    try:
        return connection.client()
    except ValueError as error:
        _fail(str(error), Exit.MISUSE)


def _fail(sentence: str, code: Exit) -> NoReturn:
    complain(f"credit: {sentence}\n")
    raise typer.Exit(code) from None
