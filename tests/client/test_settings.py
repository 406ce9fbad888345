"""Settings: where they come from and what they may be."""

from typing import Any

import pytest
from credit_client import ClientSettings, CreditClient
from pydantic import ValidationError


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
