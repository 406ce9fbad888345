"""Every setting can be a variable and an option, and a value out of range is rejected."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from credit_models.http2_engine import Engine
from credit_server import main
from credit_server.access.authorize import AccessLimits
from credit_server.commit import CommitLimits
from credit_server.grpc.handler import CallLimits
from credit_server.http2.limits import ConnectionLimits
from credit_server.settings import (
    ServerSettings,
    Settings,
    StoreSettings,
    explain,
    is_loopback,
    load,
    server,
    settings_of,
)
from credit_server.settings.command_line import (
    Given,
    SettingsInvalid,
    refuse_secrets,
    with_settings,
)
from credit_testing.bad_values import has_our_words, rejections
from pydantic import SecretStr, ValidationError

# Each setting: how it is written, and its value then. None of the values is the default.
GIVEN: dict[str, tuple[str, object]] = {
    "mongodb_uri": ("mongodb://db:27017", SecretStr("mongodb://db:27017")),
    "mongodb_uri_file": (__file__, Path(__file__)),
    "mongodb_database": ("ledger", "ledger"),
    "data_dir": ("/var/lib/credit", Path("/var/lib/credit")),
    "store_timeout_seconds": ("2.5", 2.5),
    "host": ("127.0.0.9", "127.0.0.9"),
    "port": ("0", 0),
    "http2": ("h2", Engine.H2),
    "insecure": ("true", True),
    "tls_certificate": ("/tls/server.pem", Path("/tls/server.pem")),
    "tls_key": ("/tls/key.pem", Path("/tls/key.pem")),
    "tls_key_password_file": ("/tls/password", Path("/tls/password")),
    "tls_client_ca": ("/tls/ca.pem", Path("/tls/ca.pem")),
    "tls_client_auth": ("optional", "optional"),
    "token_keys": ("/keys.json", Path("/keys.json")),
    "token_issuer": ("https://issuer.example", "https://issuer.example"),
    "token_audience": ("ledger", "ledger"),
    "token_algorithms": ("RS256, PS256", ("RS256", "PS256")),
    "identities_file": ("/identities.toml", Path("/identities.toml")),
    "rate_per_second": ("0", 0.0),
    "failures_per_second": ("0.5", 0.5),
    "connections_max": ("9", 9),
    "connections_per_peer_max": ("8", 8),
    "connection_idle_seconds": ("1", 1.0),
    "connection_age_seconds": ("86400", 86400.0),
    "calls_max": ("11", 11),
    "credits_max": ("5000", 5000),
    "settle_per_second": ("50", 50.0),
    "webhook_allow_private": ("true", True),
    "begin_hash_chains": ("false", False),
    "user_ids_from": ("3000000000", 3_000_000_000),
    "commit_wait_seconds_max": ("0.75", 0.75),
    "metrics": ("false", False),
    "metrics_host": ("127.0.0.8", "127.0.0.8"),
    "metrics_port": ("0", 0),
    "workers": ("4", 4),
    "drain_seconds": ("0", 0.0),
    "grace_seconds": ("3600", 3600.0),
    "audit_log": ("/var/log/credit/audit.json", Path("/var/log/credit/audit.json")),
    "log_format": ("json", "json"),
    "log_level": ("debug", "debug"),
}
TLS = ("tls_certificate", "tls_key")
TOKENS = ("token_keys", "token_issuer", "token_audience")
# The settings that a setting cannot be without.
COMPANIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(TLS, TLS),
    **dict.fromkeys(TOKENS, TOKENS),
    "tls_key_password_file": TLS,
    "tls_client_ca": TLS,
    "identities_file": (*TLS, "tls_client_ca"),
}
OUT_OF_RANGE = {
    "host": ["unix:"],
    "http2": ["h3"],
    "mongodb_database": ["x" * 64],
    "store_timeout_seconds": ["0", "-1", "3600.1", "nan"],
    "port": ["-1", "65536", "http", "1.5"],
    "insecure": ["perhaps"],
    "tls_client_auth": ["none"],
    "rate_per_second": ["-1", "1000001", "nan"],
    "failures_per_second": ["-1", "1000001"],
    "connections_max": ["0", "1000001"],
    "connections_per_peer_max": ["0", "1000001"],
    "connection_idle_seconds": ["0", "3601"],
    "connection_age_seconds": ["-1", "604801", "nan"],
    "calls_max": ["0", "1000001"],
    "credits_max": ["0", "4294967296"],
    "commit_wait_seconds_max": ["0", "3601"],
    "metrics": ["perhaps"],
    "metrics_port": ["-1", "65536"],
    "workers": ["0", "257", "all"],
    "drain_seconds": ["-1", "3601"],
    "grace_seconds": ["0", "3601"],
    "log_format": ["xml"],
    "log_level": ["trace"],
    "token_algorithms": ["HS256", "ES256,none,x", ","],
    "settle_per_second": ["0", "100001", "fast"],
    "webhook_allow_private": ["perhaps"],
    "begin_hash_chains": ["perhaps"],
    "user_ids_from": ["0", "4294967296"],
}
BY_NAME = {setting.name: setting for setting in settings_of(ServerSettings)}
EVERY_SETTING = sorted(BY_NAME)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EVERY_SETTING:
        monkeypatch.delenv(f"CREDIT_{name.upper()}", raising=False)


def parse(options: Sequence[str] = (), model: type[Settings] = ServerSettings) -> Any:
    """Reads settings as a command does; Any: they are of the model's own class."""
    found = []

    @with_settings(model)
    def command(given: Given) -> None:
        refuse_secrets(given)
        found.append(load(model, given, os.environ))

    cli = typer.Typer()
    cli.command()(command)
    cli(list(options), standalone_mode=False)
    return found[0]


def value(settings: Settings, name: str) -> object:
    """Looks up a setting, which may be in a value object."""
    found: object = settings
    for part in BY_NAME[name].path:
        found = getattr(found, part)
    return found


def as_option(name: str, value: str) -> list[str]:
    """Writes a setting as an option; a yes-or-no one has no value."""
    option = name.replace("_", "-")
    if value in ("true", "false"):
        return [f"--{option}" if value == "true" else f"--no-{option}"]
    return [f"--{option}", value]


def with_companions(name: str) -> dict[str, str]:
    """Writes a setting, and those that it needs."""
    return {each: GIVEN[each][0] for each in (*COMPANIONS.get(name, ()), name)}


def test_every_setting_is_described() -> None:
    assert all(setting.description for setting in settings_of(ServerSettings))


def test_this_module_tries_every_setting() -> None:
    assert sorted(GIVEN) == EVERY_SETTING
    assert all(GIVEN[name][1] != value(parse(), name) for name in EVERY_SETTING)


def test_a_port_for_metrics_that_was_not_named_is_known_as_such() -> None:
    assert "metrics_port" not in parse().model_fields_set
    assert "metrics_port" in parse(["--metrics-port", "9464"]).model_fields_set


def test_every_setting_is_described_under_a_title() -> None:
    assert all(setting.description and setting.title for setting in settings_of(ServerSettings))
    assert all(setting.description.endswith(".") for setting in settings_of(ServerSettings))


@pytest.mark.parametrize("name", EVERY_SETTING)
def test_a_setting_can_be_a_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each, text in with_companions(name).items():
        monkeypatch.setenv(f"CREDIT_{each.upper()}", text)
    assert value(parse(), name) == GIVEN[name][1]


@pytest.mark.parametrize("name", EVERY_SETTING)
def test_a_setting_can_be_an_option(name: str) -> None:
    given = with_companions(name).items()
    options = [part for each, text in given for part in as_option(each, text)]
    assert value(parse(options), name) == GIVEN[name][1]


def test_an_option_outranks_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_PORT", "1")
    assert parse(["--port", "2"]).port == 2


@pytest.mark.parametrize("name", sorted({*EVERY_SETTING} - {"mongodb_uri", "mongodb_uri_file"}))
def test_an_empty_variable_sets_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a file of docker compose, where an unset variable is passed on as an empty one."""
    default = value(parse(), name)
    monkeypatch.setenv(f"CREDIT_{name.upper()}", "")
    assert value(parse(), name) == default


@pytest.mark.parametrize("variable", ["CREDIT_MONGODB_URI", "CREDIT_MONGODB_URI_FILE"])
def test_an_empty_store_does_not_start_an_empty_ledger(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "")
    with pytest.raises(ValidationError, match="set and empty"):
        parse()
    assert parse(["--mongodb-uri", "mongodb://db"]).mongodb_uri is not None


@pytest.mark.parametrize("name", sorted(StoreSettings.model_fields))
def test_migrate_and_serve_read_a_setting_the_same_way(name: str) -> None:
    text, expected = GIVEN[name]
    assert getattr(parse(as_option(name, text), StoreSettings), name) == expected


def test_migrate_ignores_a_variable_that_is_for_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CREDIT_PORT", "not a number")
    assert parse([], StoreSettings).mongodb_database == "credit"


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in OUT_OF_RANGE.items() for text in texts]
)
def test_a_value_out_of_range_is_rejected_by_name(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CREDIT_{name.upper()}", text)
    with pytest.raises(ValidationError) as rejected:
        parse()
    path = BY_NAME[name].path
    assert {problem["loc"][: len(path)] for problem in rejected.value.errors()} == {path}
    option = f"--{name.replace('_', '-')}"
    (line,) = explain(ServerSettings, rejected.value)
    assert line.startswith(f"{option} (CREDIT_{name.upper()}): ")
    has_our_words(line)
    wrong = [part.strip() for part in text.split(",")] if name == "token_algorithms" else [text]
    assert any(part[:60] in line for part in wrong)


def test_every_setting_that_can_have_a_bad_value_has_one_here() -> None:
    # Any text is valid as a connection string, as a path, or as an address to listen on.
    free = {
        name
        for name, each in BY_NAME.items()
        if {Path, SecretStr} & {each.type, *get_args(each.type)}
    }
    # An empty variable sets nothing.
    free |= {"metrics_host", "token_issuer", "token_audience"}
    assert OUT_OF_RANGE.keys() == BY_NAME.keys() - free


def test_an_empty_option_is_a_bad_value() -> None:
    with pytest.raises(ValidationError) as rejected:
        parse(["--token-issuer="])
    assert explain(ServerSettings, rejected.value) == [
        "--token-issuer (CREDIT_TOKEN_ISSUER): must not be empty, got ''"
    ]


def test_a_bad_connection_string_is_not_repeated() -> None:
    with pytest.raises(ValidationError) as rejected:
        load(StoreSettings, {"mongodb_uri": 5}, {})
    assert explain(StoreSettings, rejected.value) == [
        "--mongodb-uri (CREDIT_MONGODB_URI): must be text"
    ]


def test_a_bad_value_of_an_option_is_described_in_our_words() -> None:
    found = rejections(main.cli)
    assert {"verify --jobs", "repair --created-by", "checkpoint --app"} <= found.keys()
    for name, message in found.items():
        assert message.startswith(f"Invalid value for '{name.split()[-1]}'")
        has_our_words(message)


def test_the_defaults_are_those_of_the_documents() -> None:
    settings = parse()
    assert (settings.host, settings.port) == ("127.0.0.1", 50051)
    assert (settings.mongodb_uri, settings.mongodb_database) == (None, "credit")
    assert settings.data_dir == Path(".credit-data")


def test_the_data_directory_may_be_in_a_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("CREDIT_DATA_DIR", "~/credit")
    assert parse().data_dir == Path("/home/someone/credit")
    monkeypatch.setenv("CREDIT_DATA_DIR", "~no-such-user/credit")
    with pytest.raises(ValidationError, match="the home directory ~no-such-user does not exist"):
        parse()


def test_the_default_limits_are_those_of_their_owners() -> None:
    settings = parse()
    assert settings.connection == ConnectionLimits()
    assert settings.call == CallLimits()
    assert settings.commit == CommitLimits()
    assert settings.access == AccessLimits()


@pytest.mark.parametrize(("calls", "running"), [("4096", 1024), ("100", 25), ("3", 1)])
def test_an_identity_may_have_a_quarter_of_the_calls(calls: str, running: int) -> None:
    assert parse(["--calls-max", calls]).access.calls_running_max == running


@pytest.mark.parametrize(("wait", "lag"), [("0.01", 1.0), ("0.5", 1.0), ("60", 120.0)])
def test_the_event_loop_may_be_late_by_twice_the_wait_of_a_write(wait: str, lag: float) -> None:
    assert parse(["--commit-wait-seconds-max", wait]).call.loop_lag_seconds_max == lag


@pytest.mark.parametrize(("store", "stalled"), [("0.1", 30.0), ("12.5", 30.0), ("60", 125.0)])
def test_a_client_is_stalled_only_after_a_list_has_waited_for_the_store(
    store: str, stalled: float
) -> None:
    settings = parse(["--store-timeout-seconds", store])
    assert settings.connection.stalled_seconds == stalled


def test_a_connection_holds_two_of_the_longest_messages() -> None:
    """One message arrives while another is read."""
    assert ConnectionLimits().request_bytes_max == 2 * CallLimits().message_bytes_max


@pytest.mark.parametrize(
    ("per_second", "calls", "failures"), [("1000", 2000, 10_000), ("0.1", 1, 1), ("0", 1, 1)]
)
def test_what_may_come_at_once_follows_the_rate(per_second: str, calls: int, failures: int) -> None:
    options = ["--rate-per-second", per_second, "--failures-per-second", per_second]
    limits = parse(options).access
    assert (limits.calls_at_once, limits.failures_at_once) == (calls, failures)


def test_a_value_object_may_be_given_whole() -> None:
    limits = ConnectionLimits(resets_burst=1)
    assert ServerSettings(connection=limits).connection == limits
    with pytest.raises(ValidationError, match="connections_max"):
        ServerSettings.model_validate({"connection": limits, "connections_max": 1})


def test_a_name_that_is_no_setting_is_rejected() -> None:
    with pytest.raises(ValidationError, match="rate_burst"):
        ServerSettings.model_validate({"rate_burst": 1})


def test_the_connection_string_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_MONGODB_URI", "mongodb://user:secret@db")
    assert "secret" not in repr(parse())


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://user:secret@db",
        "mongodb+srv://user:sec@ret@a,b/?replicaSet=rs",
        "mongodb://:secret@db",
        "mongodb://db/?tls=true&tlsCertificateKeyFilePassword=secret",
        "mongodb://db/?authMechanismProperties=AWS_SESSION_TOKEN:secret",
    ],
)
def test_a_password_on_the_command_line_is_rejected(uri: str) -> None:
    with pytest.raises(SettingsInvalid, match="CREDIT_MONGODB_URI_FILE") as rejected:
        parse(["--mongodb-uri", uri])
    assert "secret" not in str(rejected.value)


@pytest.mark.parametrize(
    "uri",
    ["mongodb://user@db:27017/a", "mongodb://[::1]:27017", "mongodb://db:1,db:2/?appName=a@b"],
)
def test_a_connection_string_without_a_password_may_be_an_option(uri: str) -> None:
    given = parse(["--mongodb-uri", uri]).mongodb_uri
    assert given == SecretStr(uri)


def test_the_connection_string_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "uri"
    path.write_text("mongodb://user:secret@db\n")
    settings = parse(["--mongodb-uri-file", str(path)])
    assert settings.mongodb_uri == SecretStr("mongodb://user:secret@db")
    with pytest.raises(ValidationError, match="both set"):
        parse(["--mongodb-uri-file", str(path), "--mongodb-uri", "mongodb://db"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b" \n", "is empty"), (b"\xff", "not UTF-8")],
)
def test_a_file_without_a_connection_string_starts_no_empty_ledger(
    content: bytes | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "uri"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValidationError, match=reason):
        parse(["--mongodb-uri-file", str(path)])


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.2", "127.255.255.255", "::1", "localhost", "unix:/run/credit.sock"],
)
def test_a_loopback_address_is_accepted(host: str) -> None:
    assert is_loopback(host)
    assert parse(["--host", host]).host == host


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "example.org", "localhost.example.org", "127.0"],
)
def test_an_address_that_others_can_reach_is_accepted_only_with_insecure(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ValidationError, match="--insecure"):
        parse([f"--host={host}"])
    assert parse([f"--host={host}", "--insecure"]).host == host


@pytest.mark.parametrize("given", [TLS, TOKENS, ()])
def test_off_loopback_both_tls_and_identities_are_needed(given: tuple[str, ...]) -> None:
    options = [part for name in given for part in as_option(name, GIVEN[name][0])]
    with pytest.raises(ValidationError) as rejected:
        parse(["--host=0.0.0.0", *options])
    assert ("no TLS" in str(rejected.value)) == (given != TLS)
    assert ("no identities" in str(rejected.value)) == (given != TOKENS)


@pytest.mark.parametrize("name", ["token_keys", "identities_file"])
def test_with_tls_and_identities_any_address_is_accepted(name: str) -> None:
    names = {*TLS, *with_companions(name)}
    options = [part for each in names for part in as_option(each, GIVEN[each][0])]
    assert parse(["--host=0.0.0.0", *options]).has_identities


@pytest.mark.parametrize("name", COMPANIONS)
def test_half_of_what_belongs_together_is_rejected(name: str) -> None:
    for left_out in set(COMPANIONS[name]) - {name}:
        given = {each: text for each, text in with_companions(name).items() if each != left_out}
        with pytest.raises(ValidationError, match=f"CREDIT_{left_out.upper()}"):
            parse([part for each, text in given.items() for part in as_option(each, text)])


@pytest.mark.parametrize(
    "algorithms", ["none", "HS256", "ES256,HS256", "ES256,", "es256", "ES256K"]
)
def test_an_algorithm_that_is_not_safe_is_rejected(algorithms: str) -> None:
    with pytest.raises(ValidationError, match="token_algorithms"):
        parse(["--token-algorithms", algorithms])


@pytest.mark.parametrize("host", ["unix:", "unix://run/credit.sock", "unix:" + "a" * 108])
def test_a_socket_without_a_usable_path_is_rejected(host: str) -> None:
    with pytest.raises(ValidationError, match="unix:"):
        parse([f"--host={host}"])


def test_an_empty_address_is_not_loopback() -> None:
    """To a socket it means all addresses."""
    assert not is_loopback("")


def test_no_insecure_outranks_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_INSECURE", "true")
    assert parse(["--host", "0.0.0.0"]).insecure
    with pytest.raises(ValidationError):
        parse(["--host", "0.0.0.0", "--no-insecure"])


def test_auto_is_a_worker_for_each_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "usable_cpus", lambda: 6)
    assert load(ServerSettings, {}, {"CREDIT_WORKERS": "auto"}).workers == 6


def test_several_workers_need_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert load(ServerSettings, {"workers": "1"}, {}).workers == 1
    with pytest.raises(ValidationError, match="more than one worker requires Linux; set it to 1"):
        load(ServerSettings, {"workers": "2"}, {})


def test_each_worker_gets_its_part_of_the_server_s_rates_and_connections() -> None:
    limits = {
        "rate_per_second": "10",
        "failures_per_second": "0",
        "connections_max": "101",
        "connections_per_peer_max": "1",
    }
    worker = load(ServerSettings, {"workers": "4", **limits}, {}).of_one_worker()
    assert worker.access.calls_per_second == 2.5
    assert worker.access.calls_at_once == 5
    assert worker.access.failures_per_second == 0  # no limit stays no limit
    assert worker.connection.connections_max == 26
    assert worker.connection.connections_per_peer_max == 1


def test_each_worker_has_all_of_the_limits_on_what_runs_or_waits() -> None:
    whole = load(ServerSettings, {"workers": "4"}, {})
    worker = whole.of_one_worker()
    assert (worker.call, worker.commit) == (whole.call, whole.commit)
    assert worker.access.calls_running_max == whole.access.calls_running_max


def test_the_limits_of_one_worker_are_those_of_the_server() -> None:
    settings = ServerSettings()
    assert settings.of_one_worker() == settings
