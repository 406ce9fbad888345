"""Every setting can be a variable and an option, and what is out of range is refused."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from credit_server.main import _parse
from credit_server.settings import ServerSettings, StoreSettings, is_loopback
from pydantic import SecretStr, ValidationError

# For each field: how it is written down, and what it is then. None of them is the default.
GIVEN: dict[str, tuple[str, object]] = {
    "mongodb_uri": ("mongodb://db:27017", SecretStr("mongodb://db:27017")),
    "mongodb_database": ("ledger", "ledger"),
    "data_dir": ("/var/lib/credit", Path("/var/lib/credit")),
    "store_timeout_seconds": ("2.5", 2.5),
    "host": ("127.0.0.9", "127.0.0.9"),
    "port": ("0", 0),
    "insecure": ("true", True),
    "message_bytes_max": ("2048", 2048),
    "calls_max": ("11", 11),
    "call_deadline_seconds": ("1.5", 1.5),
    "stream_deadline_seconds": ("60", 60.0),
    "deadline_seconds_max": ("90", 90.0),
    "loop_lag_seconds_max": ("0.25", 0.25),
    "list_page_size": ("7", 7),
    "commit_lanes": ("3", 3),
    "commit_waiting_max": ("9", 9),
    "commit_wait_seconds_max": ("0.75", 0.75),
    "commit_batch_max": ("5", 5),
    "commit_retry_seconds": ("0.5", 0.5),
    "commit_cache_max": ("0", 0),
    "health_interval_seconds": ("1", 1.0),
    "grace_seconds": ("3600", 3600.0),
    "log_format": ("json", "json"),
    "log_level": ("debug", "debug"),
}
OUT_OF_RANGE = {
    "mongodb_database": ["x" * 64],
    "store_timeout_seconds": ["0", "-1", "3600.1", "nan"],
    "port": ["-1", "65536", "http", "1.5"],
    "insecure": ["perhaps"],
    "message_bytes_max": ["1023", str(2**31)],
    "calls_max": ["0", "1000001"],
    "call_deadline_seconds": ["0", "3601"],
    "stream_deadline_seconds": ["0", "3601"],
    "deadline_seconds_max": ["0", "3601"],
    "loop_lag_seconds_max": ["0", "3601"],
    "list_page_size": ["0", "1000001"],
    "commit_lanes": ["0", "65"],
    "commit_waiting_max": ["0", "1000001"],
    "commit_wait_seconds_max": ["0", "3601"],
    "commit_batch_max": ["0", "1001"],
    "commit_retry_seconds": ["0", "3601"],
    "commit_cache_max": ["-1", "100000001"],
    "health_interval_seconds": ["0", "inf"],
    "grace_seconds": ["0", "3601"],
    "log_format": ["xml"],
    "log_level": ["trace"],
}
EVERY_FIELD = sorted(ServerSettings.model_fields)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EVERY_FIELD:
        monkeypatch.delenv(f"CREDIT_{name.upper()}", raising=False)


def parse(options: Sequence[str] = ()) -> ServerSettings:
    return _parse(ServerSettings, "serve", list(options))


def as_option(name: str, value: str) -> list[str]:
    """Writes a setting as an option; a yes-or-no one has no value."""
    option = f"--{name.replace('_', '-')}"
    return [option] if value == "true" else [option, value]


def test_every_setting_is_tried_here() -> None:
    assert sorted(GIVEN) == EVERY_FIELD
    assert all(GIVEN[name][1] != getattr(parse(), name) for name in EVERY_FIELD)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in ServerSettings.model_fields.values())


@pytest.mark.parametrize("name", EVERY_FIELD)
def test_a_setting_can_be_a_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = GIVEN[name]
    monkeypatch.setenv(f"CREDIT_{name.upper()}", text)
    assert getattr(parse(), name) == value


@pytest.mark.parametrize("name", EVERY_FIELD)
def test_a_setting_can_be_an_option(name: str) -> None:
    text, value = GIVEN[name]
    assert getattr(parse(as_option(name, text)), name) == value


def test_an_option_outranks_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_PORT", "1")
    assert parse(["--port", "2"]).port == 2


@pytest.mark.parametrize("name", [name for name in EVERY_FIELD if name != "mongodb_uri"])
def test_an_empty_variable_is_none_at_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a file of docker compose, where an unset variable is passed on as an empty one."""
    default = getattr(parse(), name)
    monkeypatch.setenv(f"CREDIT_{name.upper()}", "")
    assert getattr(parse(), name) == default


def test_an_empty_store_does_not_start_an_empty_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_MONGODB_URI", "")
    with pytest.raises(ValidationError, match="set and empty"):
        parse()
    assert parse(["--mongodb-uri", "mongodb://db"]).mongodb_uri is not None


@pytest.mark.parametrize("name", sorted(StoreSettings.model_fields))
def test_what_migrate_is_told_is_told_to_serve_the_same_way(name: str) -> None:
    text, value = GIVEN[name]
    assert getattr(_parse(StoreSettings, "migrate", as_option(name, text)), name) == value


def test_a_variable_that_is_for_serve_is_no_harm_to_migrate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CREDIT_PORT", "not a number")
    assert _parse(StoreSettings, "migrate", []).mongodb_database == "credit"


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in OUT_OF_RANGE.items() for text in texts]
)
def test_what_is_out_of_range_is_refused_by_name(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CREDIT_{name.upper()}", text)
    with pytest.raises(ValidationError) as refused:
        parse()
    assert [problem["loc"] for problem in refused.value.errors()] == [(name,)]


def test_the_defaults_are_those_of_the_documents() -> None:
    settings = parse()
    assert (settings.host, settings.port) == ("127.0.0.1", 50051)
    assert (settings.mongodb_uri, settings.mongodb_database) == (None, "credit")
    assert settings.data_dir == Path(".credit-data")


def test_the_connection_string_is_not_shown() -> None:
    assert "secret" not in repr(parse(["--mongodb-uri", "mongodb://user:secret@db"]))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.255.255.255", "::1", "localhost"])
def test_a_loopback_address_is_taken(host: str) -> None:
    assert is_loopback(host)
    assert parse(["--host", host]).host == host


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "example.org", "localhost.example.org", "127.0"],
)
def test_an_address_that_others_can_reach_is_taken_only_when_that_is_said(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ValidationError, match="--insecure"):
        parse([f"--host={host}"])
    assert parse([f"--host={host}", "--insecure"]).host == host


def test_no_address_is_not_loopback() -> None:
    """Sockets take it for all addresses."""
    assert not is_loopback("")


def test_no_insecure_outranks_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_INSECURE", "true")
    assert parse(["--host", "0.0.0.0"]).insecure
    with pytest.raises(ValidationError):
        parse(["--host", "0.0.0.0", "--no-insecure"])
