"""The command `credit-server`: serve, migrate, doctor, checkpoint and token.

Each command imports what it runs. The import of MongoDB's driver, the telemetry and the doctor's
checks takes a third of the start time, and `--help`, `--version` and `token` use none of them.
"""

import asyncio
import gc
import os
import shutil
import sys
from collections.abc import Coroutine, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer
from credit_models.ledger import UINT32_MAX
from pydantic import ValidationError

from credit_server import development, log
from credit_server.access import FileUnusable
from credit_server.errors import EmbeddedError, PartFailed, StartError, WorkerFailed
from credit_server.settings import (
    ServerSettings,
    Settings,
    StoreSettings,
    explain,
    load,
    removed_options,
    unknown_variables,
)
from credit_server.settings.command_line import (
    Given,
    GroupedCommand,
    SettingsInvalid,
    refuse_secrets,
    with_settings,
)
from credit_server.store.port import StoreError

EXIT_MISUSE = 2
EXIT_FAILED = 1

# The thresholds of the garbage collector's generations. A batch of 1,000 operations makes 30,000
# objects, which live until its answer. With Python's 700 the collector ran 40 times in each batch,
# and took a quarter of the server's CPU (2-core machine, medians of 5 runs in turn); with
# (10000, 5, 2) it still took a fifth. A closed connection and an ended call are freed without it.
_COLLECTOR_THRESHOLDS = (50_000, 10, 10)

_Settings = TypeVar("_Settings", bound=Settings)
_Result = TypeVar("_Result")

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Serve a credit ledger over gRPC, and look after its database.",
    epilog="Each setting of serve, migrate, doctor and checkpoint is also an environment variable:"
    " --port is CREDIT_PORT. An option outranks its variable.",
)
cli.add_typer(development.cli, name="token")


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command line.

    Returns:
        0 if all went well, 1 if the server could not start or continue, 2 for misuse.
    """
    try:
        code: int | None = cli(list(arguments), prog_name="credit-server", standalone_mode=False)
    except typer.TyperException as error:
        return _misused(error, arguments)
    except SettingsInvalid as error:
        return _complain(str(error), EXIT_MISUSE)
    except WorkerFailed as failure:
        # A worker that failed by itself has printed the reason.
        return failure.status if failure.status > 0 else _complain(str(failure), EXIT_FAILED)
    except (StartError, PartFailed, StoreError, EmbeddedError, FileUnusable) as error:
        return _complain(str(error), EXIT_FAILED)
    return code or 0


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("credit-server"))
        raise typer.Exit


@cli.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take the options that belong to no command."""


@cli.command(cls=GroupedCommand)
@with_settings(ServerSettings)
def serve(given: Given) -> None:
    """Serve the credit ledger until Ctrl-C or SIGTERM.

    Each option is also an environment variable, named in brackets. An option outranks its variable.
    """
    from credit_server import app, multiprocess  # noqa: PLC0415 - see the top of the file
    from credit_server.workers.worker import take_assignment  # noqa: PLC0415

    settings = _load(ServerSettings, given)
    _prepare_collector()
    if assignment := take_assignment(os.environ):  # a supervisor has started this process
        log.configure(settings.log_format, settings.log_level, worker=assignment.number)
        _run(app.serve(assignment.settings(settings), assignment))
        return
    log.configure(settings.log_format, settings.log_level)
    if unknown := unknown_variables(os.environ):
        structlog.get_logger("credit_server").warning(
            "variables that are no settings have no effect", names=unknown
        )
    _run(app.serve(settings) if settings.workers == 1 else multiprocess.serve(settings))


@cli.command(cls=GroupedCommand, short_help="Make or update the database's schema.")
@with_settings(StoreSettings)
def migrate(given: Given) -> None:
    """Make the database's collections, validators and indexes, or bring them up to date."""
    from credit_server import app  # noqa: PLC0415 - see the top of the file

    settings = _load(StoreSettings, given)
    number = _run(app.migrate(settings))
    typer.echo(f"the database '{settings.mongodb_database}' has schema version {number}")


@cli.command(
    name="checkpoint", cls=GroupedCommand, short_help="Sign the histories of an app's users."
)
@with_settings(StoreSettings)
def write_checkpoint(
    given: Given,
    app_id: Annotated[
        int, typer.Option("--app", min=1, max=UINT32_MAX, help="The app.", show_default=False)
    ],
    key: Annotated[
        Path,
        typer.Option(
            "--key",
            dir_okay=False,
            show_default=False,
            help="The private key: Ed25519, in PEM. openssl genpkey -algorithm ed25519 makes one.",
        ),
    ],
    file: Annotated[
        Path, typer.Option("--file", dir_okay=False, show_default=False, help="The file to write.")
    ],
) -> None:
    """Write a file with the hash of the latest entry of each user in an app, and sign it.

    Whoever has the file can prove later that entries which it covers were changed or removed.
    """
    from credit_server import app  # noqa: PLC0415 - see the top of the file

    settings = _load(StoreSettings, given)
    made = _run(app.checkpoint(settings, app_id, key=key, file=file))
    typer.echo(f"{file} covers {made.size:,} users of app {app_id}, root {made.root.hex()}")


@cli.command(
    name="doctor", cls=GroupedCommand, short_help="Check settings, certificates, store and ledger."
)
@with_settings(ServerSettings)
def examine(
    given: Given,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Check settings, certificates, the store and the ledger, and print what to do.

    It takes the options of serve and starts no server.
    """
    from credit_server import doctor  # noqa: PLC0415 - see the top of the file

    try:
        settings = _load(ServerSettings, given)
    except SettingsInvalid as error:
        findings = [doctor.invalid_settings(str(error))]
    else:
        log.configure(settings.log_format, "error")  # a warning is among the findings
        findings = _run(doctor.examine(settings))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo(doctor.as_json(findings) if as_json else doctor.as_text(findings, width=width))
    raise typer.Exit(doctor.exit_code(findings))


def _load(model: type[_Settings], given: Given) -> _Settings:
    """Load settings from the command line and the environment.

    Raises:
        SettingsInvalid: Settings are not valid. The message has a line for each.
    """
    refuse_secrets(given)
    try:
        return load(model, given, os.environ)
    except ValidationError as error:
        lines = explain(model, error)
        # What is missing may be set under a name with a typing error.
        lines += [f"no setting has the name {each}" for each in unknown_variables(os.environ)]
        raise SettingsInvalid("\n".join(lines)) from None


def _prepare_collector() -> None:
    """Let the garbage collector run seldom, and skip what was imported: it lives forever."""
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)
    gc.collect()
    gc.freeze()


def _run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    if sys.platform == "win32":
        return asyncio.run(coroutine)
    import uvloop  # noqa: PLC0415 - there is none for Windows

    return uvloop.run(coroutine)


def _misused(error: typer.TyperException, arguments: Sequence[str]) -> int:
    """Describe misuse of the command line, and where to read what is right."""
    message = error.format_message()
    if message.startswith("Usage: "):  # nothing was given, and the message is the help
        typer.echo(message)
    else:
        context = getattr(error, "ctx", None)  # the parser's own errors have none
        command = f"credit-server {arguments[0]}" if context is None else context.command_path
        lines = [message, *removed_options(arguments), f"See {command} --help."]
        _complain("\n".join(lines), EXIT_MISUSE)
    return EXIT_MISUSE


def _complain(message: str, code: int) -> int:
    typer.echo(f"credit-server: {message}", err=True)
    return code


if __name__ == "__main__":
    main()
