"""The options of the command line, and the configuration that they make with grpc-fuzz.toml."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from grpc_fuzz import config
from grpc_fuzz.crashes import Crashes
from grpc_fuzz.errors import ConfigError
from grpc_fuzz.model import PHASES

# Any: click passes options of many types.
Options = dict[str, Any]
Command = Callable[..., None]

_LIMITS = ("request_timeout", "max_response_time")
_TLS = ("ca", "certificate", "key", "server_name")
# The options whose name differs from the key of the configuration.
_KEYS = {
    "include_method": "include_methods",
    "exclude_method": "exclude_methods",
    "report": "reports",
}
# The options that `replay` needs to make the same calls of the same server with the same checks.
_STORED = (
    *("image", "reflect", "target"),
    *("tls", "tls_ca", "tls_certificate", "tls_key", "tls_server_name"),
    *("metadata", "token_file", "token_variable", "expired_token_file", "expired_token_variable"),
    *("public_method", "checks", "extra_checks", "exclude_checks", "strict_wire"),
    *_LIMITS,
)
_PATHS = ("image", "tls_ca", "tls_certificate", "tls_key", "token_file", "expired_token_file")
# Of each group, at most one option can be given.
_EXCLUSIVE = (
    ("token_file", "token_variable"),
    ("expired_token_file", "expired_token_variable"),
    ("image", "reflect"),
)

_path = click.Path(exists=True)
_OPTIONS = (
    click.option("--reflect", is_flag=True, help="Get the contract from the server."),
    click.option(
        "--target",
        metavar="HOST:PORT",
        help="The server; also dns:///HOST:PORT or unix:/PATH.",
    ),
    click.option(
        "--tls", is_flag=True, default=None, help="Use TLS, and trust the system's certificates."
    ),
    click.option("--tls-ca", type=_path, help="Use TLS, and trust the certificates of a PEM file."),
    click.option("--tls-certificate", type=_path, help="The client certificate, a PEM file."),
    click.option("--tls-key", type=_path, help="The key of the client certificate, a PEM file."),
    click.option(
        "--tls-server-name", metavar="NAME", help="The name to expect in the server's certificate."
    ),
    click.option(
        "-m", "--metadata", multiple=True, metavar="KEY:VALUE", help="Metadata of every call."
    ),
    click.option(
        "--token-file", metavar="PATH", help="The file of the bearer token of every call."
    ),
    click.option(
        "--token-variable", metavar="NAME", help="The environment variable of the bearer token."
    ),
    click.option(
        "--expired-token-file",
        metavar="PATH",
        help="The file of an expired token, which the server must reject.",
    ),
    click.option(
        "--expired-token-variable",
        metavar="NAME",
        help="The environment variable of an expired token.",
    ),
    click.option(
        "--public-method",
        multiple=True,
        metavar="GLOB",
        help="Methods that need no credentials.",
    ),
    click.option("--phases", metavar="NAMES", help=f"The phases to run, of {','.join(PHASES)}."),
    click.option(
        "--mode",
        type=click.Choice(["positive", "negative", "all"]),
        help="Send valid requests, invalid ones, or both. Default: all.",
    ),
    click.option(
        "--checks", metavar="NAMES", help="Run only these checks; see `grpc-fuzz checks`."
    ),
    click.option(
        "--extra-checks",
        metavar="NAMES",
        help="Run these checks, too, such as those that are off by default.",
    ),
    click.option("--exclude-checks", metavar="NAMES", help="Do not run these checks."),
    click.option(
        "--strict-wire",
        is_flag=True,
        default=None,
        help="Let deviations of the gRPC runtime decide the exit code, too.",
    ),
    click.option(
        "--include-method", multiple=True, metavar="GLOB", help="Fuzz only these methods."
    ),
    click.option(
        "--exclude-method", multiple=True, metavar="GLOB", help="Do not fuzz these methods."
    ),
    click.option(
        "--max-examples", type=int, help="Random cases per method and mode. Default: 100."
    ),
    click.option(
        "--coverage-values",
        type=int,
        help="Values per field and per constraint in the coverage phase. Default: all.",
    ),
    click.option(
        "--seed", type=int, help="The seed that decides which cases are sent. Default: random."
    ),
    click.option("--workers", type=int, help="Methods that are fuzzed in parallel. Default: 1."),
    click.option("--rate-limit", type=float, metavar="N", help="The limit on calls per second."),
    click.option(
        "--request-timeout",
        type=float,
        metavar="SECONDS",
        help="The deadline of each call. A call without a reply by then hangs. Default: 5.",
    ),
    click.option(
        "--max-response-time",
        type=float,
        metavar="SECONDS",
        help="The limit of the check max_response_time.",
    ),
    click.option("--max-failures", type=int, help="Stop after this many different failures."),
    click.option("--report", metavar="KIND=PATH,…", help="Write junit=PATH, ndjson=PATH or both."),
    click.option(
        "--state-directory",
        metavar="PATH",
        help="The directory of crashes and coverage. Default: .grpc-fuzz.",
    ),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        help=f"The configuration. Default: {config.CONFIG_FILE}, if it exists.",
    ),
)


def with_options(command: Command) -> Command:
    """Add the options of a run to a command; for use as a decorator."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run_configuration(image: Path | None, options: Options) -> Options:
    """Return the configuration, overridden by the options of the command line.

    Raises:
        ConfigError: The configuration cannot be read, or an option is invalid.
    """
    path, given = _config_path(options), _given({**options, "image": image})
    table = _merged(path, given)
    table["origin"] = _origin(path, given)
    table.setdefault("seed", secrets.randbits(32))
    return table


def replay_configuration(names: tuple[str, ...], image: Path | None, options: Options) -> Options:
    """Return the options of the run that found the crashes, overridden by the given options.

    Raises:
        ConfigError: The crashes are from several runs with different options.
    """
    given = _given({**options, "image": image})
    origins = Crashes(_state_directory(options) / "crashes").origins(names)
    tables: list[Options] = []
    for origin in origins or ({"config": _config_path(options), "options": {}},):
        path, merged = _override(origin, given)
        table = _merged(path, merged)
        table["origin"] = _origin(path, merged)
        if table not in tables:
            tables.append(table)
    if len(tables) > 1:
        targets = ", ".join(sorted({str(table.get("target")) for table in tables}))
        raise ConfigError(
            f"the stored crashes are from runs with different options (targets: {targets}); name"
            " those of one run, or give --target, --image and the other options that differ"
        )
    # A crash that is named decides the exit code, even if it is a deviation of the runtime.
    return {**tables[0], "strict_wire": True} if names else tables[0]


def _given(options: Options) -> Options:
    # Compared by identity, because 0 equals False and is a valid seed.
    return {
        name: value
        for name, value in options.items()
        if value is not None and value is not False and value != ()
    }


def _origin(path: Path | None, given: Options) -> Options:
    """Return the options that a crash stores, as JSON and with absolute paths."""
    stored = {name: given[name] for name in _STORED if name in given}
    stored |= {name: str(Path(stored[name]).absolute()) for name in _PATHS if name in stored}
    if str(stored.get("target", "")).startswith("unix:"):
        socket = Path(stored["target"].removeprefix("unix:").removeprefix("//"))
        stored["target"] = f"unix:{socket.absolute()}"
    as_json = {
        name: list(value) if isinstance(value, tuple) else value for name, value in stored.items()
    }
    return {"config": None if path is None else str(path.absolute()), "options": as_json}


def _override(origin: Mapping[str, Any], given: Options) -> tuple[Path | None, Options]:
    """Return the path of the configuration and the stored options, overridden by those given."""
    stored = dict(origin["options"])
    for group in _EXCLUSIVE:
        if any(name in given for name in group):
            stored = {name: value for name, value in stored.items() if name not in group}
    path = given.get("config") or origin["config"]
    return None if path is None else Path(path), {**stored, **given}


def _state_directory(options: Options) -> Path:
    path = _config_path(options)
    table = {} if path is None else config.read(path)
    return Path(options["state_directory"] or table.get("state_directory") or ".grpc-fuzz")


def _config_path(options: Options) -> Path | None:
    path: Path | None = options["config"]
    default = Path(config.CONFIG_FILE)
    return path or (default if default.exists() else None)


def _merged(path: Path | None, given: Options) -> Options:
    """Return the configuration at a path, overridden by options."""
    table: Options = {} if path is None else dict(config.read(path))
    given = {name: value for name, value in given.items() if name != "config"}
    image = given.pop("image", None)
    reflect = given.pop("reflect", False)
    _merge_limits(table, given)
    _merge_metadata(table, given)
    _merge_tls(table, given)
    _merge_credentials(table, given)
    table |= {_KEYS.get(name, name): value for name, value in given.items()}
    if image is not None:
        table["image"] = str(image)
    if reflect:
        table.pop("image", None)
    elif "image" not in table:
        raise ConfigError("no contract is given. Give an IMAGE or --reflect")
    return table


def _merge_tls(table: Options, given: Options) -> None:
    named = {name: given.pop(f"tls_{name}") for name in _TLS if f"tls_{name}" in given}
    if named:
        known = table.get("tls")
        given["tls"] = {**(known if isinstance(known, dict) else {}), **named}


def _merge_credentials(table: Options, given: Options) -> None:
    known = dict(table.get("credentials", {}))
    for kind in ("token", "expired_token"):
        named = {
            name: given.pop(name) for name in (f"{kind}_file", f"{kind}_variable") if name in given
        }
        if named:
            # A file on the command line also replaces a variable of the configuration.
            known = {name: known[name] for name in known if not name.startswith(kind)} | named
    if "public_method" in given:
        known["public"] = given.pop("public_method")
    if known:
        table["credentials"] = known


def _merge_limits(table: Options, given: Options) -> None:
    limits = {name: given.pop(name) for name in _LIMITS if name in given}
    if limits:
        table["limits"] = {**table.get("limits", {}), **limits}


def _merge_metadata(table: Options, given: Options) -> None:
    pairs = {}
    for entry in given.pop("metadata", ()):
        key, separator, value = entry.partition(":")
        if not separator or not key:
            raise ConfigError(f"-m {entry!r} is not key:value")
        if key.lower() == "authorization":
            raise ConfigError(
                "-m authorization would show the token in the list of processes; use --token-file"
            )
        pairs[key] = value.lstrip()
    if pairs:
        table["metadata"] = {**table.get("metadata", {}), **pairs}
