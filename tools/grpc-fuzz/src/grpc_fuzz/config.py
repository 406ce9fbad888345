"""The configuration: grpc-fuzz.toml and the options of the command line, read into settings."""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from grpc_fuzz.adapters import (
    Adapter,
    BufValidate,
    CustomErrorOptions,
    CustomFieldOptions,
    CustomOptions,
)
from grpc_fuzz.adapters.custom_options import MAPPABLE
from grpc_fuzz.constraint import TEXT_RULES
from grpc_fuzz.credentials import Credentials
from grpc_fuzz.errors import ConfigError
from grpc_fuzz.model import Limits, TrailerRule
from grpc_fuzz.settings import ALLOWED_STATUSES, Example, Link, Report, Settings
from grpc_fuzz.target import Target, Tls

CONFIG_FILE = "grpc-fuzz.toml"


# The keys for a token's file and for its environment variable. Others can read the command line and
# the configuration, so these never hold a token.
_TOKENS = {
    "token_file": "token_variable",
    "expired_token_file": "expired_token_variable",
}
_KEY, _SCHEME = re.compile(r"[a-z0-9-]+"), re.compile(r"[A-Za-z0-9-]*")
_TOKEN = re.compile(r"[!-~]+")

# A table of TOML. Any: TOML.
Table = Mapping[str, Any]


def read(path: Path) -> Table:
    """Read the file, and resolve its relative paths from its folder.

    Raises:
        ConfigError: The file cannot be read, or is not TOML.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    for name in ("image", "state_directory"):
        if name in table:
            table[name] = str(path.parent / table[name])
    for name in ("token_file", "expired_token_file"):
        if name in (credentials := table.get("credentials", {})):
            credentials[name] = str(path.parent / credentials[name])
    for name in ("ca", "certificate", "key"):
        if isinstance(tls := table.get("tls"), dict) and name in tls:
            tls[name] = str(path.parent / tls[name])
    return table


def settings_from(table: Table) -> Settings:
    """Return the settings of a configuration, which includes the options of the command line.

    Raises:
        ConfigError: A key is unknown, or its value is invalid.
    """
    unknown = table.keys() - _READERS.keys() - {"target", "tls", "origin"}
    if unknown:
        raise ConfigError(f"unknown: {', '.join(sorted(unknown))}")
    if "target" not in table:
        raise ConfigError("target: no server is given. Give --target HOST:PORT")
    target = _read(
        "target", lambda text: Target.parse(text, _tls(table.get("tls"))), table["target"]
    )
    values = {name: _read(name, _READERS[name], table[name]) for name in table if name in _READERS}
    _check_numbers(values)
    _check_credentials(values)
    return Settings(target=target, origin=table.get("origin"), **values)


# Any: each key has a value of a type of its own.
def _read(name: str, reader: Callable[[Any], Any], value: Any) -> Any:
    try:
        return reader(value)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{name}: {error}") from error


_AT_LEAST_ONE = ("max_examples", "coverage_values", "workers", "max_failures")


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name in _AT_LEAST_ONE:
        if values.get(name) is not None and values[name] < 1:
            raise ConfigError(f"{name}: must be at least 1")
    for name in ("rate_limit", "max_time"):
        if values.get(name) is not None and values[name] <= 0:
            raise ConfigError(f"{name}: must be more than 0")


def _check_credentials(values: Mapping[str, Any]) -> None:
    credentials = values.get("credentials")
    keys = [key for key, _ in values.get("metadata", ())]
    if credentials is not None and credentials.key in keys:
        raise ConfigError(f"metadata: {credentials.key} is the key of the credentials")


def _credentials(value: Table) -> Credentials | None:
    """Return the credentials, or None if the table names no token."""
    how = {name: value[name] for name in ("key", "scheme") if name in value}
    unknown = value.keys() - how.keys() - _TOKENS.keys() - {*_TOKENS.values(), "public"}
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    if not _KEY.fullmatch(how.get("key", "a")) or not _SCHEME.fullmatch(how.get("scheme", "")):
        raise ValueError(
            "key may contain a-z, 0-9 and hyphens, and scheme letters, digits and hyphens"
        )
    token, expired = (_token(value, file) for file in _TOKENS)
    if token is None:
        if expired is not None:
            raise ValueError("an expired token alone tests nothing: name a valid one, too")
        return None
    return Credentials(
        token=token, expired=expired, public=_strings(value.get("public", ())), **how
    )


def _token(value: Table, file: str) -> str | None:
    """Return the token from its file or its variable, or None if neither is named.

    Raises:
        ValueError: There is no token, or both are named.
    """
    variable = _TOKENS[file]
    if file in value and variable in value:
        raise ValueError(f"{file} and {variable}: name only one of them")
    if file in value:
        try:
            token = Path(value[file]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ValueError(f"{file} {value[file]}: {why}") from None
        where = f"{file} {value[file]}"
    elif variable in value:
        token, where = os.environ.get(value[variable], "").strip(), f"{variable} {value[variable]}"
    else:
        return None
    if not _TOKEN.fullmatch(token):
        # The message must not contain the token, which is a secret.
        raise ValueError(f"{where} holds no token; a token is printable ASCII without spaces")
    return token


# Any: true, false or a table.
def _tls(value: Any) -> Tls | None:
    if not value:
        return None
    if value is True:
        return Tls()
    paths = {name: Path(value[name]) for name in ("ca", "certificate", "key") if name in value}
    return Tls(**paths, server_name=value.get("server_name"))


# Any: a value of the wrong type is an error, because a string would count as true.
def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value


# Any: an array, or a string with commas.
def _strings(value: Any) -> tuple[str, ...]:
    entries = value.split(",") if isinstance(value, str) else value
    return tuple(entry.strip() for entry in entries if entry.strip())


def _mode(value: str) -> str:
    if value not in ("positive", "negative", "all"):
        raise ValueError(f"{value!r} is not one of positive, negative, all")
    return value


# Any: a table, or "junit=PATH,ndjson=PATH".
def _reports(value: Any) -> tuple[Report, ...]:
    pairs = (
        [entry.partition("=")[::2] for entry in _strings(value)]
        if isinstance(value, str)
        else list(value.items())
    )
    for kind, path in pairs:
        if kind not in ("junit", "ndjson") or not path:
            raise ValueError(f"{kind!r} is not junit=PATH or ndjson=PATH")
    # The check above narrows the kinds, which mypy does not see.
    return tuple(Report(kind=cast(Any, kind), path=Path(path)) for kind, path in pairs)


def _metadata(value: Table) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((key.lower(), entry) for key, entry in value.items())


def _limits(value: Table) -> Limits:
    if any(bound <= 0 for bound in value.values()):
        raise ValueError("must be more than 0")
    return Limits(**value)


def _adapters(value: Table) -> tuple[Adapter, ...]:
    unknown = value.keys() - {"buf_validate", "custom_options"}
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    adapters: list[Adapter] = []
    if value.get("buf_validate", True):
        adapters.append(BufValidate())
    adapters.extend(_custom_options(entry) for entry in value.get("custom_options", ()))
    return tuple(adapters)


def _custom_options(value: Table) -> CustomOptions:
    fields = CustomFieldOptions(**value["fields"]) if "fields" in value else None
    if fields is not None and fields.map.keys() - MAPPABLE:
        raise ValueError(f"map: no such rule: {', '.join(sorted(fields.map.keys() - MAPPABLE))}")
    if fields is not None and set(fields.texts.values()) - TEXT_RULES.keys():
        raise ValueError(f"texts: the rules are {', '.join(TEXT_RULES)}")
    errors = CustomErrorOptions(**value["errors"]) if "errors" in value else None
    return CustomOptions(field_options=fields, error_options=errors)


def _examples(value: list[Table]) -> tuple[Example, ...]:
    return tuple(
        Example(
            method=entry["method"],
            requests=tuple(entry.get("requests") or [entry.get("request", {})]),
            positive=entry.get("positive", True),
            description=entry.get("description", ""),
        )
        for entry in value
    )


def _trailers(value: Table) -> dict[str, TrailerRule]:
    return {
        name: TrailerRule(message=rule["message"], ignore=tuple(rule.get("ignore", ())))
        for name, rule in value.items()
    }


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "image": Path,
    "metadata": _metadata,
    "credentials": _credentials,
    "phases": _strings,
    "mode": _mode,
    "checks": _strings,
    "extra_checks": _strings,
    "strict_wire": _flag,
    "exclude_checks": _strings,
    "include_methods": _strings,
    "exclude_methods": _strings,
    "max_examples": int,
    "coverage_values": int,
    "seed": int,
    "workers": int,
    "rate_limit": float,
    "limits": _limits,
    "max_failures": int,
    "max_time": float,
    "reports": _reports,
    "state_directory": Path,
    "adapters": _adapters,
    "examples": _examples,
    "links": lambda value: tuple(Link(**link) for link in value),
    "idempotency_key": str,
    "trailers": _trailers,
    "allowed_statuses": lambda value: ALLOWED_STATUSES | frozenset(value),
    "answered_inside": _strings,
    "unstated_rules": _strings,
    "changing_fields": _strings,
}
