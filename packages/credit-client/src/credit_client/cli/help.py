"""The layout of the help: every text is wrapped at the terminal's width, and none is cut.

typer's own layouts cut: the one with boxes cuts long words, such as the names of variables, and the
one without cuts the description of a command.
"""

import shlex
import shutil
from collections.abc import Iterable
from typing import Any

import typer
from credit_models.faults import described_faults
from typer.core import TyperCommand, TyperGroup

from credit_client.cli.exits import MEANINGS

# A longer line is hard to read.
_WIDTH_MAX = 100
# An explanation with less room than this is under its term, and beside it otherwise.
_ROOM_MIN = 40
_TERM_MAX = 30
_TERM_UNDER = 4


def help_width() -> int:
    """Return the width of the help: the terminal's, or 80 where there is no terminal."""
    return min(shutil.get_terminal_size().columns, _WIDTH_MAX)


# Any: typer's formatter has another module in each version of typer. Here and below it is click's
# `HelpFormatter`.
def _write_section(formatter: Any, title: str, rows: Iterable[tuple[str, str]]) -> None:
    listed = list(rows)
    if listed:
        with formatter.section(title):
            term = min(max(len(first) for first, _ in listed), _TERM_MAX)
            beside = formatter.width - term >= _ROOM_MIN
            formatter.write_dl(listed, col_max=_TERM_MAX if beside else _TERM_UNDER)


def _write_parameters(command: TyperCommand | TyperGroup, ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
    for parameter in command.get_params(ctx):
        row = parameter.get_help_record(ctx)
        if row is not None:
            sections[parameter.param_type_name].append(row)
    _write_section(formatter, "Arguments", sections["argument"])
    _write_section(formatter, "Options", sections["option"])


class Command(TyperCommand):
    """A command of `credit`.

    Its help has this module's layout, and `credit_models.faults` describes bad values.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            typer.BadParameter: An argument is not valid.
        """
        ctx.allow_extra_args = True  # they are rejected below
        with described_faults():
            extra = super().parse_args(ctx, args)
        if extra and not ctx.resilient_parsing:
            ctx.fail(f"unexpected argument {extra[0]!r}{self._hint(ctx, extra)}")
        return extra

    def _hint(self, ctx: Any, extra: list[str]) -> str:
        """Return a hint to use `--user` if the arguments may be a user, or an empty text."""
        parameters = self.get_params(ctx)
        options = {option for each in parameters for option in each.opts}
        has_arguments = any(each.param_type_name == "argument" for each in parameters)
        if has_arguments or "--user" not in options or ctx.params.get("user") is not None:
            return ""
        return f": to name a user, use --user {shlex.quote(extra[0])}"

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the options."""
        _write_parameters(self, ctx, formatter)


class Group(TyperGroup):
    """`credit` itself, with the help in this module's layout and the exit codes at the end."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options and the commands."""
        _write_parameters(self, ctx, formatter)
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        # The help of the command itself has the other paragraphs.
        rows = [(name, (each.help or "").partition("\n\n")[0]) for name, each in commands if each]
        _write_section(formatter, "Commands", rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the epilog and the exit codes."""
        super().format_epilog(ctx, formatter)
        codes = [(str(code.value), meaning) for code, meaning in MEANINGS.items()]
        _write_section(formatter, "Exit codes", codes)


def application(*, help: str, epilog: str) -> typer.Typer:  # noqa: A002 - typer's own name
    """Return the application, whose help has this module's layout."""
    return typer.Typer(
        cls=Group,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=help,
        epilog=epilog,
    )
