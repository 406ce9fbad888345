"""Settings: where they come from and what they may be."""

from pathlib import Path
from typing import Any, get_args

import pytest
from credit_client import ClientSettings, CreditClient
from credit_client.cli import commands
from credit_client.cli.exits import Exit
from credit_testing.bad_values import has_our_words, rejections
from pydantic import ValidationError
from typer.testing import CliRunner


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_TARGET", "[::1]:9")
    monkeypatch.setenv("CREDIT_TIMEOUT_SECONDS", "2.5")
    settings = ClientSettings()
    assert (settings.target, settings.timeout_seconds) == ("[::1]:9", 2.5)


def test_an_argument_comes_before_settings_and_these_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CREDIT_TARGET", "environment:1")
    monkeypatch.setenv("CREDIT_CHANNELS", "7")
    given = ClientSettings(target="given:1", channels=3)
    assert CreditClient("argument:1", settings=given).settings.target == "argument:1"
    assert CreditClient(timeout_seconds=1, settings=given).settings == given.model_copy(
        update={"timeout_seconds": 1}
    )
    assert CreditClient().settings.target == "environment:1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target", "http://x"),
        ("timeout_seconds", 0),
        ("timeout_seconds", float("nan")),
        ("timeout_seconds", float("inf")),
        ("timeout_seconds", 86_401),
        ("retry_attempts_max", 0),
        ("retry_backoff_max_seconds", 0.001),
        ("retry_budget_tokens", 0),
        ("retry_budget_ratio", -1),
        ("channels", 0),
        ("keepalive_seconds", 0),
        ("keepalive_timeout_seconds", float("inf")),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, value: Any) -> None:  # Any: of several types
    with pytest.raises(ValidationError, match=name):
        ClientSettings(**{name: value})


# A bad value of each setting that can have one.
BAD = {
    "target": "http://x",
    "timeout_seconds": "soon",
    "retry_attempts_max": "101",
    "retry_backoff_initial_seconds": "0",
    "retry_backoff_max_seconds": "inf",
    "retry_budget_tokens": "1001",
    "retry_budget_ratio": "2",
    "channels": "1.5",
    "connect_timeout_seconds": "nan",
    "keepalive_seconds": "-1",
    "keepalive_timeout_seconds": "86401",
    "http2": "h3",
    "streams": "on",
    "users_app_id": "4294967296",
    "token": "a secret",
    "token_insecure": "perhaps",
    "tls": "perhaps",
}


def test_every_setting_that_can_have_a_bad_value_has_one_here() -> None:
    # The command sets `wait_for_ready` itself, and any text is a valid path.
    files = {
        name
        for name, field in ClientSettings.model_fields.items()
        if Path in get_args(field.annotation)
    }
    assert BAD.keys() == ClientSettings.model_fields.keys() - files - {"wait_for_ready"}


@pytest.mark.parametrize(("name", "value"), BAD.items())
def test_a_bad_variable_is_described_in_our_words(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CREDIT_{name.upper()}", value)
    result = CliRunner().invoke(commands.app, ["balance", "--app", "1"])
    assert result.exit_code == Exit.MISUSE
    line = result.stderr.removesuffix("\n")
    has_our_words(line)
    assert line.startswith(f"credit: CREDIT_{name.upper()}")
    assert (value in line) is (name != "token")


def test_a_bad_token_is_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"^token must be text$"):
        CreditClient(token=83_421)  # type: ignore[arg-type] # the bad value


def test_a_bad_value_of_an_option_is_described_in_our_words() -> None:
    found = rejections(commands.app)
    assert {"balance --output", "balance --timeout", "add --users-app", "top --app"} <= found.keys()
    for name, message in found.items():
        assert message.startswith(f"Invalid value for '{name.split()[-1]}'")
        has_our_words(message)
        assert "☃" in message


def test_the_variables_of_the_server_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_MONGODB_URI", "mongodb://localhost")
    assert ClientSettings() == ClientSettings(target="localhost:50051")


@pytest.mark.parametrize(
    ("call", "connect", "expected"),
    [(10, 5, 5), (10, 2, 2), (6, 5, 3), (2, 5, 1), (0.05, 5, 1), (0.05, 0.01, 0.01)],
)
def test_a_call_has_time_for_a_second_address(call: float, connect: float, expected: float) -> None:
    settings = ClientSettings(timeout_seconds=call, connect_timeout_seconds=connect)
    assert settings.connect_within_seconds == expected
