"""The command `credit-server`: serve, migrate, doctor, verify, repair, export, import and more.

Each command imports what it runs. The import of MongoDB's driver, the telemetry and the doctor's
checks takes a third of the start time, and `--help`, `--version` and `token` use none of them.
"""

import asyncio
import gc
import os
import shutil
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer
from credit_models.ledger import UINT32_MAX
from pydantic import ValidationError

from credit_server import development, log
from credit_server.access import FileUnusable
from credit_server.backup.errors import BackupError
from credit_server.cpus import usable_cpus
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

# The longest note of an entry.
_REASON_MAX = 500


class Output(Enum):
    """The forms of a report."""

    TEXT = "text"
    JSON = "json"


class Truth(Enum):
    """Which of two balances that differ is right."""

    HISTORY = "history"
    ACCOUNT = "account"


_Output = Annotated[Output, typer.Option("--output", "-o", help="Form of the report.")]
_Jobs = Annotated[
    int | None,
    typer.Option(min=1, max=64, help="Processes that check users; by default one for each CPU."),
]
_Users = Annotated[
    list[int] | None,
    typer.Option(min=1, max=2**32 - 1, help="Only this user; may be repeated."),
]

_Settings = TypeVar("_Settings", bound=Settings)
_Result = TypeVar("_Result")

cli = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Serve a credit ledger over gRPC, and look after its database.",
    epilog="Each setting is also an environment variable: --port is CREDIT_PORT. An option outranks"
    " its variable.",
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
    except (StartError, PartFailed, StoreError, EmbeddedError, FileUnusable, BackupError) as error:
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
def migrate(
    given: Given,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the steps, and change nothing.")
    ] = False,
    no_shard: Annotated[
        bool,
        typer.Option("--no-shard", help="On a sharded cluster, do not shard any collection."),
    ] = False,
) -> None:
    """Make the database's collections, validators and indexes, or bring them up to date.

    One migration of a database runs at a time. An interrupted one continues when it is repeated.
    """
    from credit_server import app  # noqa: PLC0415 - see the top of the file

    settings = _load(StoreSettings, given)
    database = f"the database '{settings.mongodb_database}'"
    if dry_run:
        steps = _run(app.planned_migration(settings, shards=not no_shard))
        typer.echo("\n".join(steps) if steps else f"{database} is up to date")
        return

    def on_wait() -> None:
        typer.echo("waiting for another migration of the database", err=True)

    number = _run(app.migrate(settings, shards=not no_shard, on_wait=on_wait))
    typer.echo(f"{database} has schema version {number}")


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

    With the file, anyone can later prove whether entries that it covers were changed or removed.
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


@cli.command(name="verify", cls=GroupedCommand, short_help="Check that the whole ledger adds up.")
@with_settings(StoreSettings)
def verify_ledger(
    given: Given,
    output: _Output = Output.TEXT,
    jobs: _Jobs = None,
    user: _Users = None,
    progress: Annotated[
        Path | None,
        typer.Option(
            help="File that keeps the progress. If it exists, continue from it. It is removed when"
            " everything is checked."
        ),
    ] = None,
) -> None:
    """Check every account, entry, purchase and total against the history. Write nothing.

    Servers may run meanwhile. Exit codes: 0 sound, 1 findings, 2 not checked.
    """
    from credit_server.verify import command, report  # noqa: PLC0415 - see the top of the file
    from credit_server.verify.progress_file import ProgressUnusable  # noqa: PLC0415

    settings = _load(StoreSettings, given)
    try:
        found = command.run_verify(
            settings, jobs=jobs or usable_cpus(), users=user or [], progress_path=progress
        )
    except (StartError, StoreError, EmbeddedError, ProgressUnusable) as error:
        raise typer.Exit(_complain(f"not checked: {error}", report.EXIT_UNCHECKED)) from None
    except KeyboardInterrupt:
        kept = "" if progress is None else "; repeat the command to continue"
        raise typer.Exit(_complain(f"interrupted{kept}", report.EXIT_UNCHECKED)) from None
    typer.echo(report.as_json(found) if output is Output.JSON else report.as_text(found))
    raise typer.Exit(report.exit_code(found))


@cli.command(
    name="repair", cls=GroupedCommand, short_help="Correct what verify finds, where it is possible."
)
@with_settings(StoreSettings)
def repair_ledger(
    given: Given,
    created_by: Annotated[
        int, typer.Option(min=1, max=2**32 - 1, help="Your number, recorded in the entries.")
    ],
    reason: Annotated[str, typer.Option(help="The reason, recorded as the note of the entries.")],
    apply: Annotated[
        bool, typer.Option("--apply", help="Write. Without it, only print what would be written.")
    ] = False,
    keep: Annotated[
        Truth,
        typer.Option(
            help="Which balance is right if they differ: that of the history, or that of the"
            " account. For the account, an ADJUST adds the difference to the history."
        ),
    ] = Truth.HISTORY,
    output: _Output = Output.TEXT,
    jobs: _Jobs = None,
    user: _Users = None,
    audit_log: Annotated[
        Path | None, typer.Option(help="File for the audit log; without it, standard error.")
    ] = None,
) -> None:
    """Rebuild documents from a sound history, and record each correction as an entry.

    Existing entries never change. Each account is corrected in one transaction. Servers may run
    meanwhile. Exit codes: 0 all corrected, 1 not all corrected, 2 not checked.
    """
    from credit_server.verify import command, report  # noqa: PLC0415 - see the top of the file
    from credit_server.verify.correction import Order  # noqa: PLC0415

    settings = _load(StoreSettings, given)
    if not 1 <= len(reason) <= _REASON_MAX:
        raise SettingsInvalid(f"--reason must have 1 to {_REASON_MAX} characters")
    log.configure("auto", "info")
    order = Order(
        created_by=created_by, reason=reason, keeps_account=keep is Truth.ACCOUNT, apply=apply
    )
    try:
        corrections = command.run_repair(
            settings, order, jobs=jobs or usable_cpus(), users=user or [], audit_path=audit_log
        )
    except (StartError, StoreError, EmbeddedError) as error:
        raise typer.Exit(_complain(f"not completed: {error}", report.EXIT_UNCHECKED)) from None
    as_json = output is Output.JSON
    typer.echo(command.repair_json(corrections) if as_json else command.repair_text(corrections))
    raise typer.Exit(command.repair_exit_code(corrections))


_Backup = Annotated[Path, typer.Option("--folder", help="Folder of the backup.")]


@cli.command(name="export", cls=GroupedCommand, short_help="Write a portable backup of the ledger.")
@with_settings(StoreSettings)
def export_ledger(
    given: Given,
    folder: _Backup,
    secrets: Annotated[
        bool,
        typer.Option(
            "--secrets",
            help="Include webhooks, with their secrets and their pending messages.",
        ),
    ] = False,
) -> None:
    """Write a backup of the ledger as it is at one moment. Servers may run meanwhile.

    Repeat an interrupted export to continue it.
    """
    from credit_server.backup import command  # noqa: PLC0415 - see the top of the file

    settings = _load(StoreSettings, given)
    with _repeatable():
        manifest = command.run_export(settings, folder, secrets=secrets)
    typer.echo(f"exported {manifest.records} documents, as of {manifest.header.moment}")
    if not secrets:
        typer.echo("webhooks are not included; --secrets includes them")
    typer.echo(f"digest {manifest.digest}")


@cli.command(
    name="import", cls=GroupedCommand, short_help="Import a backup into an empty database."
)
@with_settings(StoreSettings)
def import_ledger(
    given: Given,
    folder: _Backup,
    check: Annotated[
        bool, typer.Option("--check", help="Check the files of the backup, and write nothing.")
    ] = False,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Import the ledger as it was at this time, such as 2026-11-30T12:00Z. Default: the"
            " time of the backup.",
        ),
    ] = None,
) -> None:
    """Check a backup, import it, and compare the database with it. No server may run meanwhile.

    Repeat an interrupted import to continue it. No server starts on the database until it is
    complete.
    """
    from credit_server.backup import command  # noqa: PLC0415 - see the top of the file
    from credit_server.backup.export import newest_event  # noqa: PLC0415 - the same

    settings = _load(StoreSettings, given)
    if check and until is not None:
        raise SettingsInvalid("--check and --until cannot be used together")
    with _repeatable():
        if until is not None:
            _import_until(settings, folder, _time(until))
            return
        manifest = command.run_check(folder) if check else command.run_import(settings, folder)
        position = newest_event(manifest)
    done = "the backup is complete:" if check else "imported"
    typer.echo(f"{done} {manifest.records} documents, as of {manifest.header.moment}")
    typer.echo(f"newest event of alerts: position {position}")
    typer.echo(f"digest {manifest.digest}")


def _import_until(settings: StoreSettings, folder: Path, until: datetime) -> None:
    from credit_server.backup import command  # noqa: PLC0415 - see the top of the file
    from credit_server.store import schema  # noqa: PLC0415 - the same

    made = command.run_import_until(settings, folder, until)
    manifest = made.manifest
    typer.echo(f"imported {manifest.records} documents, as of {manifest.header.moment}")
    for noun, name in (("entries", schema.CREDIT_TRANSACTIONS), ("users", schema.USER_CREDITS)):
        kept, all_ = manifest.records_of(name), made.source.records_of(name)
        typer.echo(f"kept {kept} of {all_} {noun}")
    typer.echo(f"newest event of alerts: position {made.newest_event}")
    if made.policies:
        apps = ", ".join(map(str, made.policies))
        typer.echo(
            f"policies are those of the backup, because they were changed later: apps {apps}"
        )
    typer.echo(f"digest {manifest.digest}")


def _time(text: str) -> datetime:
    """Read a time with a time zone.

    Raises:
        SettingsInvalid: The text is not such a time.
    """
    wrong = f"--until: {text!r} is not a time such as 2026-11-30T12:00Z"
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsInvalid(wrong) from None
    if found.tzinfo is None:
        raise SettingsInvalid(wrong)
    return found


@contextmanager
def _repeatable() -> Iterator[None]:
    """End a command that continues where it was interrupted, if Ctrl-C interrupts it."""
    try:
        yield
    except KeyboardInterrupt:
        message = "interrupted; repeat the command to continue"
        raise typer.Exit(_complain(message, EXIT_FAILED)) from None


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
