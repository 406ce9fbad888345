"""The command `credit-server`: serve, migrate, doctor and token."""

import asyncio
import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

import structlog
from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

from credit_server import app, development, doctor, log
from credit_server.access import FileUnusable
from credit_server.embedded import EmbeddedError
from credit_server.errors import PartFailed, StartError
from credit_server.settings import ServerSettings, StoreSettings, unknown_variables
from credit_server.store.port import StoreError

_USAGE = """\
usage: credit-server COMMAND [OPTIONS]

  serve     Serve the credit ledger until Ctrl-C or SIGTERM.
  migrate   Make the database's collections, validators and indexes, or bring them up to date.
  doctor    Check settings, certificates, the store and the books, and say what to do;
            --json for machines. Takes the options of serve, and starts no server.
  token     Make keys, certificates and tokens for development.

Every option of serve and migrate can be set as a variable CREDIT_* too; see COMMAND --help.
"""

_Settings = TypeVar("_Settings", bound=BaseSettings)

EXIT_MISUSE = 2
EXIT_FAILED = 1

_JSON = "--json"

_WORDS = {"str": "TEXT", "SecretStr": "TEXT", "Path": "PATH", "int": "NUMBER", "float": "NUMBER"}
"""What the help shows for values, in place of the names of Python's types."""


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command line.

    Returns:
        0 if all went well, 1 if the server could not start or go on, 2 for misuse.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, end="")  # noqa: T201 - a command speaks on standard output
        return 0 if arguments else EXIT_MISUSE
    if arguments[0] == "--version":
        print(version("credit-server"))  # noqa: T201
        return 0
    command, *options = arguments
    if command == "serve":
        return _run(ServerSettings, command, options, _serve)
    if command == "migrate":
        return _run(StoreSettings, command, options, _migrate)
    if command == "doctor":
        return _doctor(options)
    if command == "token":
        return development.run(options)
    return _complain(f"there is no command '{command}'\n\n{_USAGE}", EXIT_MISUSE)


def _serve(settings: ServerSettings) -> Coroutine[Any, Any, None]:
    log.configure(settings.log_format, settings.log_level)
    if unknown := unknown_variables(os.environ):
        structlog.get_logger("credit_server").warning(
            "variables that are no settings are passed over", names=unknown
        )
    return app.serve(settings)


async def _migrate(settings: StoreSettings) -> None:
    number = await app.migrate(settings)
    print(f"the database '{settings.mongodb_database}' has schema version {number}")  # noqa: T201


def _doctor(options: list[str]) -> int:
    """Examine and report; settings that are not valid are a finding like others."""
    findings: list[doctor.Finding] = []

    async def examine(settings: ServerSettings) -> None:
        findings.extend(await doctor.examine(settings))

    as_json = _JSON in options
    options = [option for option in options if option != _JSON]
    try:
        settings = _parse(ServerSettings, f"doctor [{_JSON}]", options)
    except (ValidationError, SettingsError) as error:
        findings.append(doctor.invalid_settings(_explain(error)))
    else:
        log.configure(settings.log_format, "error")  # a warning is among the findings
        _event_loop_run(examine(settings))
    print(doctor.as_json(findings) if as_json else doctor.as_text(findings))  # noqa: T201
    return doctor.exit_code(findings)


def _run(
    model: type[_Settings],
    command: str,
    options: list[str],
    body: Callable[[_Settings], Coroutine[Any, Any, None]],
) -> int:
    try:
        settings = _parse(model, command, options)
    except (ValidationError, SettingsError) as error:
        return _complain(_explain(error), EXIT_MISUSE)
    try:
        _event_loop_run(body(settings))
    except (StartError, PartFailed, StoreError, EmbeddedError, FileUnusable) as error:
        return _complain(str(error), EXIT_FAILED)
    return 0


def _parse(model: type[_Settings], command: str, options: list[str]) -> _Settings:
    source: CliSettingsSource[Any] = CliSettingsSource(
        model,
        cli_prog_name=f"credit-server {command}",
        cli_parse_args=options,
        cli_show_env_vars=True,
        add_argument_method=_add_argument,
    )
    _refuse_secrets(source())
    return model(_cli_settings_source=source)


# Any: whatever argparse's own method takes.
def _add_argument(parser: ArgumentParser, *names: str, **options: Any) -> Any:
    if options.get("metavar") in _WORDS:
        options["metavar"] = _WORDS[options["metavar"]]
    return parser.add_argument(*names, **options)


# MongoDB's options that hold a secret; a password stands before the hosts.
_SECRET = re.compile(
    r"//[^/?]*:[^/?]*@|tlsCertificateKeyFilePassword=|AWS_SESSION_TOKEN:", re.IGNORECASE
)


def _refuse_secrets(given: Mapping[str, Any]) -> None:
    """Refuse a password on the command line, which every user of the machine can read.

    Raises:
        SettingsError: There is one.
    """
    if _SECRET.search(str(given.get("mongodb_uri", ""))):
        raise SettingsError(
            "--mongodb-uri holds a password, and other users of this machine can read the command"
            " line: set CREDIT_MONGODB_URI, or put it into a file and name that in"
            " CREDIT_MONGODB_URI_FILE"
        )


def _event_loop_run(coroutine: Coroutine[Any, Any, None]) -> None:
    if sys.platform == "win32":
        asyncio.run(coroutine)
    else:
        import uvloop  # noqa: PLC0415 - there is none for Windows

        uvloop.run(coroutine)


def _explain(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        name = "_".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        where = f"--{name.replace('_', '-')} (CREDIT_{name.upper()}): " if name else ""
        lines.append(f"{where}{message}")
    # What is missed may be there under another name.
    lines += [f"no setting has the name {each}" for each in unknown_variables(os.environ)]
    return "\n".join(lines)


def _complain(sentence: str, code: int) -> int:
    print(f"credit-server: {sentence}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    main()
