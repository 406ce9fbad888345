"""What the commands share: options, the form of the output, and how a command fails."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias

import typer
from typer.models import ArgumentInfo, OptionInfo

from credit_client.checkpoint import load_key
from credit_client.cli.connection import Connection
from credit_client.cli.exits import Exit, complain
from credit_client.cli.flags import settings_sentence
from credit_client.cli.output import Format
from credit_client.client import CreditClient
from credit_client.errors import CheckpointRejected
from credit_client.writes import NotedOptions, WriteOptions

if TYPE_CHECKING:
    UserId: TypeAlias = int | str
else:
    UserId = str  # typer takes no union; `parser` makes the value

_NUMBER = re.compile(r"[+-]?[0-9]+")


def whole(text: str | int) -> int:
    """Read a whole number.

    Raises:
        typer.BadParameter: It is none.
    """
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number") from None


def user_id(text: str | int) -> int | str:
    """Read a user: a whole number or, if the text is not a number, the user's id in the app."""
    # Not what `int` accepts beyond digits, such as 1_000: it may be an id in the app.
    return int(text) if _NUMBER.fullmatch(str(text).strip()) else text


def number(name: str, explanation: str, variable: str | None = None) -> OptionInfo:
    """Return an option whose value is a whole number."""
    option: OptionInfo = typer.Option(
        name, parser=whole, metavar="INTEGER", help=explanation, envvar=variable
    )
    return option


def user_option(name: str, explanation: str) -> OptionInfo:
    """Return an option whose value is a user."""
    option: OptionInfo = typer.Option(name, parser=user_id, metavar="USER", help=explanation)
    return option


_USER = "The user: a number, or the id of the user in the app."

USER: ArgumentInfo = typer.Argument(parser=user_id, metavar="USER", help=_USER, show_default=False)


# For the commands about one user, which can be named by an argument or by the option.
ArgumentUser: TypeAlias = Annotated[UserId | None, USER]
OptionUser: TypeAlias = Annotated[UserId | None, user_option("--user", "The same as USER.")]

User: TypeAlias = Annotated[UserId, user_option("--user", _USER)]
App: TypeAlias = Annotated[int, number("--app", "The app's id.")]
Credits: TypeAlias = Annotated[int, number("--credits", "The number of credits.")]
ReportId: TypeAlias = Annotated[str, typer.Option("--report", help="The report's id.")]
ReportName: TypeAlias = Annotated[str, typer.Option("--name", help="The report's name.")]
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
MinRevision: TypeAlias = Annotated[
    int | None,
    number("--min-revision", "Fail unless the user's revision is this one or greater."),
]
After: TypeAlias = Annotated[int, number("--after", "Only entries after this sequence.")]

Note: TypeAlias = Annotated[
    str | None, typer.Option("--note", help="Why the write is made. It is stored with the write.")
]


DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Show what the write would do, and write nothing.")
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Display:
    """How a command shows what it has read."""

    output: Output = None
    utc: Annotated[
        bool,
        typer.Option(
            "--utc",
            help="Show the times of tables in UTC instead of local time. Times that you give"
            " without a time zone are then also in UTC.",
        ),
    ] = False
    pager: Annotated[
        bool,
        typer.Option(
            "--pager/--no-pager",
            help="Show a table that is longer than the terminal in the pager that the variable"
            " PAGER names. Default: less.",
        ),
    ] = True

    @property
    def form(self) -> Format:
        """The form of the output."""
        return format_of(self.output)

    @property
    def paged(self) -> bool:
        """Whether a long output goes to a pager."""
        return self.pager and self.form is Format.TABLE


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """What differs between a write and its preview.

    Attributes:
        key: The idempotency key; None for a new one.
        validate_only: Whether nothing is written.
    """

    key: str | None
    validate_only: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Sending:
    """How a write is sent and shown."""

    key: Key = None
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False
    ask_above: Annotated[
        int,
        number(
            "--ask-above",
            "Ask for confirmation before a write of more credits, at a terminal.",
            "CREDIT_ASK_ABOVE",
        ),
    ] = 10_000
    output: Output = None

    def asks(self, amount: int | None) -> bool:
        """Return whether a write of so many credits, or of an unknown number, may need a yes."""
        if self.yes or (amount is not None and amount <= self.ask_above):
            return False
        return sys.stdin.isatty() and sys.stderr.isatty()


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """The conditions under which a write takes effect."""

    expected_revision: Annotated[
        int | None,
        number("--expected-revision", "Reject the write unless the user's revision is this one."),
    ] = None
    min_available_after: Annotated[
        int | None,
        number("--min-available-after", "Reject the write if it would leave a lower balance."),
    ] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Details(Conditions):
    """The conditions of a write, and what is stored with it."""

    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            metavar="NAME=TEXT",
            help="Your own data, stored with the write; repeatable.",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Check the metadata before anything is sent.

        Raises:
            typer.BadParameter: They have no name, or have one twice.
        """
        _mapping(self.metadata or [])

    def options(self, attempt: Attempt) -> NotedOptions:
        """Return the options of a write of the SDK."""
        return {
            "idempotency_key": attempt.key,
            "expected_revision": self.expected_revision,
            "min_available_after": self.min_available_after,
            "validate_only": attempt.validate_only,
            "metadata": _mapping(self.metadata or []),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class NotedDetails(Details):
    """The details of a write whose note is optional."""

    note: Note = None

    def options(self, attempt: Attempt) -> WriteOptions:
        """See `Details.options`."""
        return {**Details.options(self, attempt), "note": self.note or ""}


def one_user(command: str, argument: int | str | None, option: int | str | None) -> int | str:
    """Return the user that the argument or the option of a command names.

    Raises:
        typer.BadParameter: Neither names one, or they name two.
    """
    named = {user for user in (argument, option) if user is not None}
    if len(named) != 1:
        raise typer.BadParameter(f"name one user: credit {command} 7, or credit {command} --user 7")
    return named.pop()


def _mapping(words: list[str]) -> Mapping[str, str]:
    pairs = [word.partition("=")[::2] for word in words]
    if any("=" not in word for word in words) or len(dict(pairs)) < len(pairs):
        raise typer.BadParameter("--metadata has the form NAME=TEXT, and each name once")
    return dict(pairs)


def format_of(given: Format | None) -> Format:
    """Return the form of the output: a table at a terminal unless another one is given."""
    return given or (Format.TABLE if sys.stdout.isatty() else Format.JSON)


def client_of(connection: Connection) -> CreditClient:
    """Return a client for one command, or end the command where a setting is not allowed."""
    try:
        return connection.client()
    except ValueError as error:
        fail(settings_sentence(error, connection), Exit.MISUSE)


def check_key(key: Path) -> None:
    """End the command if a file has no public key for checkpoints.

    Raises:
        ImportError: The extra that reads keys is not installed.
    """
    try:
        load_key(key)
    except CheckpointRejected as error:
        fail(str(error), Exit.MISUSE)


def fail(sentence: str, code: Exit) -> NoReturn:
    """End the command with a sentence on standard error."""
    complain(f"credit: {sentence}\n")
    raise typer.Exit(code) from None
