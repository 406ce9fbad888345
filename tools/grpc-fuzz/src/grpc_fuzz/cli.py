"""The command `grpc-fuzz`.

Exit codes: 0 passed, 1 failures, 2 misuse, 3 an error of grpc-fuzz itself, 130 interrupted.
"""

import json
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console as RichConsole

from grpc_fuzz import checks, config, runner
from grpc_fuzz.cli_options import (
    Options,
    replay_configuration,
    run_configuration,
    with_options,
)
from grpc_fuzz.errors import ConfigError, Misuse
from grpc_fuzz.outcome import Listener, Outcome
from grpc_fuzz.report import Console, JUnit, Ndjson
from grpc_fuzz.report.console import coverage_lines
from grpc_fuzz.settings import Settings

FAILED, MISUSE, CRASHED, INTERRUPTED = 1, 2, 3, 128 + signal.SIGINT
_CRASHED_MESSAGE = (
    "Error: grpc-fuzz itself failed. This is an error of the tool or of a custom check, and not a"
    " result of the server. The reports contain what was found until then."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="grpc-fuzz")
def main() -> None:
    """Find where a gRPC server deviates from its contract."""


@main.command("run")
@click.argument("image", required=False, type=click.Path(path_type=Path))
@click.option("--max-time", type=float, metavar="SECONDS", help="Stop after this time.")
@with_options
def run_command(image: Path | None, **options: Any) -> None:
    """Fuzz the server once. IMAGE is a FileDescriptorSet, as `buf build -o` writes it."""
    _execute(runner.run, lambda: run_configuration(image, options))


@main.command("fuzz")
@click.argument("image", required=False, type=click.Path(path_type=Path))
@click.option(
    "--max-time",
    type=float,
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop after this time.",
)
@with_options
def fuzz_command(image: Path | None, **options: Any) -> None:
    """Fuzz the server with new cases until the first failure or the time limit."""
    if options["max_failures"] is None:
        options["max_failures"] = 1
    _execute(runner.fuzz, lambda: run_configuration(image, options))


@main.command("replay")
@click.argument("names", nargs=-1, metavar="[ID]...")
@click.option("--image", type=click.Path(path_type=Path), help="The contract.")
@with_options
def replay_command(names: tuple[str, ...], image: Path | None, **options: Any) -> None:
    """Send stored crashes again: all, or those with the given ids.

    Crashes are stored with the options of the run that found them. Options given here override
    those.
    """

    def replay(settings: Settings, **more: Any) -> Outcome:
        return runner.replay(settings, names=names, **more)

    _execute(replay, lambda: replay_configuration(names, image, options))


@main.command("coverage")
@click.option("--state-directory", type=click.Path(path_type=Path), default=Path(".grpc-fuzz"))
def coverage_command(state_directory: Path) -> None:
    """Show which fields, enum values, statuses and reasons of each method the last run covered."""
    path = state_directory / runner.COVERAGE_FILE
    try:
        coverage = json.loads(path.read_text())
    except OSError as error:
        _exit_with_misuse(f"{path}: {error.strerror}; start a run first")
    console = RichConsole()
    for line in coverage_lines(coverage):
        console.print(line)


@main.command("checks")
def checks_command() -> None:
    """List all checks with their meaning."""
    for check in checks.ALL:
        off = "" if check.default else ", off by default: --extra-checks"
        click.echo(f"{check.name} ({check.severity.value}{off})\n    {check.sentence}")


def _exit_with_misuse(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(MISUSE)


def _execute(start: Callable[..., Outcome], configuration: Callable[[], Options]) -> None:
    console = RichConsole()
    try:
        settings = config.settings_from(configuration())
        outcome = start(settings, listeners=_listeners(console, settings))
    except Misuse as error:
        _exit_with_misuse(str(error))
    except KeyboardInterrupt:
        click.echo("interrupted; the reports contain what was found until then", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output has closed the pipe. click ends the command without a message.
        raise
    except Exception as error:  # noqa: BLE001 - an error must not count as a failure of the server
        click.echo("".join(traceback.format_exception(error)), err=True)
        click.echo(_CRASHED_MESSAGE, err=True)
        sys.exit(CRASHED)
    sys.exit(FAILED if outcome.failures else 0)


def _listeners(console: RichConsole, settings: Settings) -> tuple[Listener, ...]:
    kinds: dict[str, Callable[[Path], Listener]] = {"junit": JUnit, "ndjson": Ndjson}
    reports = []
    for report in settings.reports:
        try:
            reports.append(kinds[report.kind](report.path))
        except OSError as error:
            raise ConfigError(
                f"the report {report.path} cannot be written: {error.strerror}"
            ) from error
    return (Console(console, checks.ALL), *reports)
