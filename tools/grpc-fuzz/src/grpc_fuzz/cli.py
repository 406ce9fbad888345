"""The command `grpc-fuzz`.

Exit codes: 0 passed, 1 failures, 2 misuse, 3 a fault of grpc-fuzz itself, 130 interrupted.
"""

import json
import secrets
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console as RichConsole

from grpc_fuzz import checks, config, runner
from grpc_fuzz.crashes import Crashes
from grpc_fuzz.misuse import Misuse
from grpc_fuzz.model import PHASES
from grpc_fuzz.outcome import Outcome
from grpc_fuzz.report import Console, JUnit, Listener, Ndjson
from grpc_fuzz.report import reached as reached_report
from grpc_fuzz.settings import Settings

FAILED, MISUSE, CRASHED, INTERRUPTED = 1, 2, 3, 128 + signal.SIGINT

# Any: click hands over options of many types.
Options = dict[str, Any]
_Command = Callable[..., None]

_OPTIONS = (
    click.option("--reflect", is_flag=True, help="Ask the server for its contract."),
    click.option(
        "--target",
        metavar="HOST:PORT",
        help="The server; dns:///HOST:PORT and unix:/PATH are taken, too.",
    ),
    click.option("--tls", is_flag=True, default=None, help="Speak TLS, trusting the system."),
    click.option(
        "--tls-ca", type=click.Path(exists=True), help="Speak TLS, trusting this PEM file."
    ),
    click.option(
        "--tls-certificate", type=click.Path(exists=True), help="The client's own, a PEM file."
    ),
    click.option("--tls-key", type=click.Path(exists=True), help="Its key, a PEM file."),
    click.option("--tls-server-name", metavar="NAME", help="Whose certificate to expect."),
    click.option(
        "-m", "--metadata", multiple=True, metavar="KEY:VALUE", help="Sent with each call."
    ),
    click.option("--token-file", metavar="PATH", help="A bearer token, sent with each call."),
    click.option("--token-variable", metavar="NAME", help="The same in a variable."),
    click.option("--expired-token-file", metavar="PATH", help="One that must be refused."),
    click.option("--expired-token-variable", metavar="NAME", help="The same in a variable."),
    click.option(
        "--public-method", multiple=True, metavar="GLOB", help="These need no credentials."
    ),
    click.option("--phases", metavar="NAMES", help=f"Of {','.join(PHASES)}."),
    click.option(
        "--mode", type=click.Choice(["positive", "negative", "all"]), help="Default: all."
    ),
    click.option(
        "--checks", metavar="NAMES", help="Run these checks alone; see `grpc-fuzz checks`."
    ),
    click.option(
        "--extra-checks", metavar="NAMES", help="Run these, too: some are off by default."
    ),
    click.option("--exclude-checks", metavar="NAMES", help="Do not run these checks."),
    click.option(
        "--strict-wire",
        is_flag=True,
        default=None,
        help="Let what the gRPC runtime does on the wire decide the exit code, too.",
    ),
    click.option(
        "--include-method", multiple=True, metavar="GLOB", help="Fuzz these methods alone."
    ),
    click.option("--exclude-method", multiple=True, metavar="GLOB", help="Do not fuzz these."),
    click.option("--max-examples", type=int, help="Cases per method and mode. Default: 100."),
    click.option("--seed", type=int, help="Make the same cases again. Default: a random one."),
    click.option("--workers", type=int, help="Methods fuzzed at the same time. Default: 1."),
    click.option("--rate-limit", type=float, metavar="N", help="Calls per second at most."),
    click.option(
        "--request-timeout",
        type=float,
        metavar="SECONDS",
        help="The deadline of each call. One without an answer by then hangs. Default: 5.",
    ),
    click.option("--max-response-time", type=float, metavar="SECONDS", help="Fail what is slower."),
    click.option("--max-failures", type=int, help="Stop after so many different failures."),
    click.option("--report", metavar="KIND=PATH,…", help="Write junit=PATH, ndjson=PATH or both."),
    click.option("--state-directory", metavar="PATH", help="For crashes. Default: .grpc-fuzz."),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        help=f"Default: {config.CONFIG_FILE}, if there.",
    ),
)


def _with_options(command: _Command) -> _Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="grpc-fuzz")
def main() -> None:
    """Finds where a gRPC server deviates from its contract."""


@main.command("run")
@click.argument("image", required=False, type=click.Path(path_type=Path))
@click.option("--max-time", type=float, metavar="SECONDS", help="Stop after that time.")
@_with_options
def run_command(image: Path | None, **options: Any) -> None:
    """Fuzz the server once. IMAGE is a FileDescriptorSet, as `buf build -o` writes it."""
    _execute(runner.run, lambda: _table(image, options))


@main.command("fuzz")
@click.argument("image", required=False, type=click.Path(path_type=Path))
@click.option(
    "--max-time", type=float, default=300.0, show_default=True, metavar="SECONDS", help="At most."
)
@_with_options
def fuzz_command(image: Path | None, **options: Any) -> None:
    """Fuzz the server with ever new cases, until the first failure or for the time given."""
    if options["max_failures"] is None:
        options["max_failures"] = 1
    _execute(runner.fuzz, lambda: _table(image, options))


@main.command("replay")
@click.argument("names", nargs=-1, metavar="[ID]...")
@click.option("--image", type=click.Path(path_type=Path), help="The contract.")
@_with_options
def replay_command(names: tuple[str, ...], image: Path | None, **options: Any) -> None:
    """Send kept crashes again: all, or those named.

    The options of the run that found them are kept with them; those given here go before.
    """

    def replay(settings: Settings, **more: Any) -> Outcome:
        return runner.replay(settings, names=names, **more)

    _execute(replay, lambda: _replay_table(names, image, options))


@main.command("coverage")
@click.option("--state-directory", type=click.Path(path_type=Path), default=Path(".grpc-fuzz"))
def coverage_command(state_directory: Path) -> None:
    """Show which methods, fields, enum values, statuses and reasons the last run reached."""
    path = state_directory / runner.REACH_FILE
    try:
        reached = json.loads(path.read_text())
    except OSError as error:
        _misuse(f"{path}: {error.strerror}; has there been a run?")
    console = RichConsole()
    for line in reached_report.lines(reached):
        console.print(line)


@main.command("checks")
def checks_command() -> None:
    """List all checks, with what they mean."""
    for check in checks.ALL:
        off = "" if check.default else ", off by default: --extra-checks"
        click.echo(f"{check.name} ({check.severity.value}{off})\n    {check.sentence}")


def _misuse(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(MISUSE)


def _execute(work: Callable[..., Outcome], table: Callable[[], Options]) -> None:
    console = RichConsole()
    try:
        settings = config.settings_from(table())
        outcome = work(settings, listeners=_listeners(console, settings))
    except Misuse as error:
        _misuse(str(error))
    except KeyboardInterrupt:
        click.echo("interrupted; the reports hold what was found until then", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output has closed the pipe; click ends the command quietly.
        raise
    except Exception as error:  # noqa: BLE001 - a fault must not pass for a failure of the server
        click.echo("".join(traceback.format_exception(error)), err=True)
        click.echo(_FAULT, err=True)
        sys.exit(CRASHED)
    sys.exit(FAILED if outcome.failures else 0)


_FAULT = (
    "Error: grpc-fuzz itself failed. This is a fault of the tool or of a custom check, and not a"
    " result of the server. The reports hold what was found until then."
)


def _listeners(console: RichConsole, settings: Settings) -> tuple[Listener, ...]:
    kinds: dict[str, Callable[[Path], Listener]] = {"junit": JUnit, "ndjson": Ndjson}
    reports = []
    for report in settings.reports:
        try:
            reports.append(kinds[report.kind](report.path))
        except OSError as error:
            raise config.ConfigError(
                f"the report {report.path} cannot be written: {error.strerror}"
            ) from error
    return (Console(console, checks.ALL), *reports)


# Options whose name on the command line is not that of the configuration's key.
_KEYS = {
    "include_method": "include_methods",
    "exclude_method": "exclude_methods",
    "report": "reports",
}
_LIMITS = ("request_timeout", "max_response_time")
_TLS = ("ca", "certificate", "key", "server_name")
_AUTHORIZATION = "authorization"


# Options that `replay` needs to make the same calls of the same server, and to judge them alike.
_KEPT = (
    *("image", "reflect", "target"),
    *("tls", "tls_ca", "tls_certificate", "tls_key", "tls_server_name"),
    *("metadata", "token_file", "token_variable", "expired_token_file", "expired_token_variable"),
    *("public_method", "checks", "extra_checks", "exclude_checks", "strict_wire"),
    *_LIMITS,
)
_PATHS = ("image", "tls_ca", "tls_certificate", "tls_key", "token_file", "expired_token_file")
# Of these one at most can be given.
_EITHER = (
    ("token_file", "token_variable"),
    ("expired_token_file", "expired_token_variable"),
    ("image", "reflect"),
)


def _given(options: Options) -> Options:
    """The options that are given. By identity: 0 equals False, and is a seed like any other."""
    return {
        name: value
        for name, value in options.items()
        if value is not None and value is not False and value != ()
    }


def _origin(path: Path | None, given: Options) -> Options:
    """What a crash keeps of the command line: fit for JSON, and for any folder."""
    kept = {name: given[name] for name in _KEPT if name in given}
    kept |= {name: str(Path(kept[name]).absolute()) for name in _PATHS if name in kept}
    if str(kept.get("target", "")).startswith("unix:"):
        socket = Path(kept["target"].removeprefix("unix:").removeprefix("//"))
        kept["target"] = f"unix:{socket.absolute()}"
    return {"config": None if path is None else str(path.absolute()), "options": _as_json(kept)}


def _as_json(options: Options) -> Options:
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in options.items()
    }


def _replay_table(names: tuple[str, ...], image: Path | None, options: Options) -> Options:
    """The configuration of a replay: options given, then those of the run that found the crashes.

    Raises:
        ConfigError: The crashes are of several runs with different options.
    """
    given = _given({**options, "image": image})
    origins = Crashes(_state_directory(options) / "crashes").origins(names)
    tables: list[Options] = []
    for origin in origins or ({"config": _config_path(options), "options": {}},):
        path, merged = _over(origin, given)
        table = _table_of(path, merged)
        table["origin"] = _origin(path, merged)
        if table not in tables:
            tables.append(table)
    if len(tables) > 1:
        targets = ", ".join(sorted({str(table.get("target")) for table in tables}))
        raise config.ConfigError(
            f"the kept crashes are of runs with different options (of {targets}): name those of"
            " one run, or give --target, --image and what else differs"
        )
    # A crash that is named is judged, also where it is the runtime's.
    return {**tables[0], "strict_wire": True} if names else tables[0]


def _over(origin: Mapping[str, Any], given: Options) -> tuple[Path | None, Options]:
    """The configuration's path and the options, where those given go before those kept."""
    kept = dict(origin["options"])
    for pair in _EITHER:
        if any(name in given for name in pair):
            kept = {name: value for name, value in kept.items() if name not in pair}
    path = given.get("config") or origin["config"]
    return None if path is None else Path(path), {**kept, **given}


def _state_directory(options: Options) -> Path:
    path = _config_path(options)
    table = {} if path is None else config.read(path)
    return Path(options["state_directory"] or table.get("state_directory") or ".grpc-fuzz")


def _config_path(options: Options) -> Path | None:
    """The configuration that is named, or the one in this folder, if there."""
    path: Path | None = options["config"]
    default = Path(config.CONFIG_FILE)
    return path or (default if default.exists() else None)


def _table(image: Path | None, options: Options) -> Options:
    """The configuration, with the options of the command line over it.

    Raises:
        ConfigError: The configuration cannot be read, or an option is of no use.
    """
    path, given = _config_path(options), _given({**options, "image": image})
    table = _table_of(path, given)
    table["origin"] = _origin(path, given)
    table.setdefault("seed", secrets.randbits(32))
    return table


def _table_of(path: Path | None, given: Options) -> Options:
    """The configuration at a path, with options over it."""
    table: Options = {} if path is None else dict(config.read(path))
    given = {name: value for name, value in given.items() if name != "config"}
    image = given.pop("image", None)
    reflect = given.pop("reflect", False)
    _take_limits(table, given)
    _take_metadata(table, given)
    _take_tls(table, given)
    _take_credentials(table, given)
    table |= {_KEYS.get(name, name): value for name, value in given.items()}
    if image is not None:
        table["image"] = str(image)
    if reflect:
        table.pop("image", None)
    elif "image" not in table:
        raise config.ConfigError("which contract? Give an IMAGE or --reflect")
    return table


def _take_tls(table: Options, given: Options) -> None:
    named = {name: given.pop(f"tls_{name}") for name in _TLS if f"tls_{name}" in given}
    if named:
        known = table.get("tls")
        given["tls"] = {**(known if isinstance(known, dict) else {}), **named}


def _take_credentials(table: Options, given: Options) -> None:
    known = dict(table.get("credentials", {}))
    for kind in ("token", "expired_token"):
        named = {
            name: given.pop(name) for name in (f"{kind}_file", f"{kind}_variable") if name in given
        }
        if named:
            # What the command line names takes the place of the other way, too.
            known = {name: known[name] for name in known if not name.startswith(kind)} | named
    if "public_method" in given:
        known["public"] = given.pop("public_method")
    if known:
        table["credentials"] = known


def _take_limits(table: Options, given: Options) -> None:
    limits = {name: given.pop(name) for name in _LIMITS if name in given}
    if limits:
        table["limits"] = {**table.get("limits", {}), **limits}


def _take_metadata(table: Options, given: Options) -> None:
    pairs = {}
    for entry in given.pop("metadata", ()):
        key, separator, value = entry.partition(":")
        if not separator or not key:
            raise config.ConfigError(f"-m {entry!r} is not key:value")
        if key.lower() == _AUTHORIZATION:
            raise config.ConfigError(
                "-m authorization would show it to whoever lists processes; use --token-file"
            )
        pairs[key] = value.lstrip()
    if pairs:
        table["metadata"] = {**table.get("metadata", {}), **pairs}
