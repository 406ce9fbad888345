"""Make a command option of each setting, with its help."""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from credit_models.faults import described_faults
from pydantic import SecretStr
from typer.core import TyperCommand

from credit_server.settings.fields import Setting, Settings, settings_of

# The settings that most operators set come first in the help.
_COMMON = (
    "host",
    "port",
    "mongodb_uri",
    "mongodb_uri_file",
    "mongodb_database",
    "data_dir",
    "tls_certificate",
    "tls_key",
    "log_format",
    "log_level",
)
_COMMON_TITLE = "Common settings"

# Options of MongoDB that contain a secret; a password is before the hosts.
_SECRET = re.compile(
    r"//[^/?]*:[^/?]*@|tlsCertificateKeyFilePassword=|AWS_SESSION_TOKEN:", re.IGNORECASE
)

# An option that is longer than this is above its description, not beside it.
_TERM_MAX = 30
# With less room than this beside it, every description is below its option.
_ROOM_MIN = 40
_TERM_BELOW = 4

_KEYWORD = inspect.Parameter.KEYWORD_ONLY

Given = Mapping[str, object]
"""The settings that a command line gives, by name, as they are written there."""


class SettingsInvalid(Exception):
    """Settings are not valid. The message names them, and the remedy."""


class GroupedCommand(TyperCommand):
    """A command whose help lists its options by group, wrapped and without boxes.

    typer's boxes cut long options and the names of variables in a terminal of 80 columns. A bad
    value is described in the same words as a bad value of a variable.
    """

    # Any: as in `format_options`.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            typer.BadParameter: An argument is not valid.
        """
        with described_faults():
            return super().parse_args(ctx, args)

    # Any: typer's formatter has another module in each version of typer.
    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        settings: Mapping[str, Setting] = getattr(self.callback, "settings", {})
        for parameter in self.get_params(ctx):
            if setting := settings.get(parameter.name or ""):
                parameter.help = f"{setting.description} [{setting.variable}]"  # type: ignore[attr-defined] # the parameter is an option
            row = parameter.get_help_record(ctx)
            if row is not None:
                title = getattr(parameter, "rich_help_panel", None) or "Options"
                groups.setdefault(title, []).append(row)
        beside = formatter.width - _TERM_MAX >= _ROOM_MIN
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows, col_max=_TERM_MAX if beside else _TERM_BELOW)


# Any: a command may take further options, of whatever types.
def with_settings(
    model: type[Settings],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting of a model.

    The command takes the settings that are given, `Given`, as its first argument. Its other
    parameters are options of its own.
    """
    settings = sorted(settings_of(model), key=_place)

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        def command(ctx: typer.Context, **values: Any) -> None:
            texts = {setting.name: values.pop(setting.name) for setting in settings}
            body({name: text for name, text in texts.items() if _is_given(ctx, name)}, **values)

        context = inspect.Parameter("ctx", _KEYWORD, annotation=typer.Context)
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        parameters = [
            context,
            *(parameter.replace(kind=_KEYWORD) for parameter in own),
            *(_parameter(setting) for setting in settings),
        ]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # typer reads it
        # Only the help needs the descriptions of the settings: see `GroupedCommand`.
        command.settings = {setting.name: setting for setting in settings}  # type: ignore[attr-defined] # GroupedCommand reads it
        command.__name__, command.__doc__ = body.__name__, body.__doc__
        return command

    return decorate


def refuse_secrets(given: Given) -> None:
    """Reject a password on the command line.

    Raises:
        SettingsInvalid: There is one.
    """
    if _SECRET.search(str(given.get("mongodb_uri", ""))):
        raise SettingsInvalid(
            "--mongodb-uri holds a password, and other users of this machine can read the command"
            " line: set CREDIT_MONGODB_URI, or write the connection string into a file and name the"
            " file in CREDIT_MONGODB_URI_FILE"
        )


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _place(setting: Setting) -> int:
    """Return where a setting stands in the help; those with the same place keep their order."""
    return _COMMON.index(setting.name) if setting.name in _COMMON else len(_COMMON)


def _parameter(setting: Setting) -> inspect.Parameter:
    # Values are checked by the settings alone, so that all that are wrong are named at once.
    is_flag = setting.type is bool
    name = setting.option.removeprefix("--")
    option = typer.Option(
        f"--{name}/--no-{name}" if is_flag else f"--{name}",
        metavar="" if is_flag else _metavar(setting),
        rich_help_panel=_COMMON_TITLE if setting.name in _COMMON else setting.title,
        show_default=setting.default is not None,
    )
    return inspect.Parameter(
        setting.name,
        _KEYWORD,
        default=setting.default if is_flag else setting.default_text,
        annotation=Annotated[bool if is_flag else str | None, option],
    )


def _metavar(setting: Setting) -> str:
    """Return what the help shows for a value: its unit, its kind, or the values there are."""
    kind = _without_none(setting.type)
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if kind is Path:
        return "PATH"
    if kind is SecretStr:
        return "URI"
    if kind is int or kind is float:
        for unit in ("seconds", "bytes"):
            if re.search(rf"_{unit}(_max)?$", setting.name) and "per" not in setting.name:
                return unit.upper()
        return "COUNT" if setting.name.endswith("_max") else "NUMBER"
    return "LIST" if get_origin(kind) is tuple else "TEXT"


# Any: whatever an annotation can be.
def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        (kind,) = [each for each in get_args(kind) if each is not NoneType]
    return kind
