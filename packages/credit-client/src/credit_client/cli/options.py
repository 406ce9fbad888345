"""What the commands share: options, the form of the output, and how a command fails."""

import sys
from typing import Annotated, NoReturn, TypeAlias

import typer
from typer.models import ArgumentInfo, OptionInfo

from credit_client.cli.connection import Connection
from credit_client.cli.exits import Exit, complain
from credit_client.cli.flags import settings_sentence
from credit_client.cli.output import Format
from credit_client.client import CreditClient


def whole(text: str | int) -> int:
    """Read a whole number.

    Raises:
        typer.BadParameter: It is none.
    """
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number") from None


def number(name: str, explanation: str, variable: str | None = None) -> OptionInfo:
    """Return an option whose value is a whole number."""
    option: OptionInfo = typer.Option(
        name, parser=whole, metavar="INTEGER", help=explanation, envvar=variable
    )
    return option


USER: ArgumentInfo = typer.Argument(
    parser=whole, metavar="USER", help="The user's id.", show_default=False
)


User: TypeAlias = Annotated[int, number("--user", "The user's id.")]
App: TypeAlias = Annotated[int, number("--app", "The app's id.")]
Credits: TypeAlias = Annotated[int, number("--credits", "The number of credits.")]
By: TypeAlias = Annotated[
    int, number("--by", "The id of the acting person or service, 1 or more.", "CREDIT_BY")
]
Key: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--key", help="Idempotency key: writes with the same key count once. Default: a new key."
    ),
]
Output: TypeAlias = Annotated[
    Format | None,
    typer.Option("--output", "-o", help="Default: table at a terminal, json elsewhere."),
]
After: TypeAlias = Annotated[int, number("--after", "Only entries after this sequence.")]
Utc: TypeAlias = Annotated[
    bool, typer.Option("--utc", help="Show times of tables in UTC and not in local time.")
]


def format_of(given: Format | None) -> Format:
    """Return the form of the output: a table at a terminal unless another one is given."""
    return given or (Format.TABLE if sys.stdout.isatty() else Format.JSON)


def client_of(connection: Connection) -> CreditClient:
    """Return a client for one command, or end the command where a setting is not allowed."""
    try:
        return connection.client()
    except ValueError as error:
        fail(settings_sentence(error, connection), Exit.MISUSE)


def fail(sentence: str, code: Exit) -> NoReturn:
    """End the command with a sentence on standard error."""
    complain(f"credit: {sentence}\n")
    raise typer.Exit(code) from None
