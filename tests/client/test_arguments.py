"""What a client is made with: which argument replaces which setting, and what does not fit."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from credit_client import ClientSettings, CreditClient
from credit_client.arguments import resolve_config
from credit_client.bearer import FetchedToken, FileToken, FixedToken
from pydantic import ValidationError

SECRET = "s3cret\n"


def test_a_token_argument_replaces_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CREDIT_TOKEN_FILE", "/run/secrets/token")
    assert isinstance(resolve_config(None, token=None, tls=None).bearer(), FileToken)
    assert isinstance(resolve_config(None, token="t", tls=None).bearer(), FixedToken)
    assert isinstance(resolve_config(None, token=lambda: "t", tls=None).bearer(), FetchedToken)
    monkeypatch.delenv("CREDIT_TOKEN_FILE")
    monkeypatch.setenv("CREDIT_TOKEN", "t")
    assert isinstance(resolve_config(None, token=None, tls=None).bearer(), FixedToken)
    assert isinstance(resolve_config(None, token=tmp_path / "token", tls=None).bearer(), FileToken)


def test_without_a_token_there_is_no_bearer() -> None:
    assert resolve_config(None, token=None, tls=None).bearer() is None


def test_a_bad_token_is_rejected_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^token must be one or more visible ASCII") as caught:
        CreditClient(token=SECRET)
    assert "s3cret" not in f"{caught.value!r}{caught.value.__context__!r}"
    monkeypatch.setenv("CREDIT_TOKEN", SECRET)
    with pytest.raises(ValidationError) as from_environment:
        ClientSettings()
    assert "s3cret" not in str(from_environment.value)


def test_the_settings_do_not_show_the_token() -> None:
    settings = CreditClient(token="s3cret").settings
    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump()}"


@pytest.mark.parametrize("target", ["credit.example:443", "10.0.0.1", "[fe80::1]:1"])
def test_a_token_is_not_sent_to_another_machine_in_the_clear(target: str) -> None:
    for token in ("t", lambda: "t", Path("token")):
        with pytest.raises(ValueError, match=r"without TLS.*tls=True.*insecure=True"):
            CreditClient(target, token=token)
        CreditClient(target, token=token, insecure=True)
        CreditClient(target, token=token, tls=True)
    CreditClient(target)


def test_a_token_may_stay_on_this_machine() -> None:
    CreditClient("localhost:1", token="t")
    CreditClient("[::1]:1", token="t")


@pytest.mark.parametrize(
    ("tls", "encrypted", "ca"),
    [
        (None, True, Path("environment.pem")),
        (False, False, None),
        (True, True, Path("environment.pem")),
        ("argument.pem", True, Path("argument.pem")),
    ],
)
def test_a_tls_argument_replaces_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tls: Any, encrypted: bool, ca: Path | None
) -> None:
    used: list[Path | None] = []
    monkeypatch.setattr("credit_client.arguments.Tls", lambda **files: used.append(files["ca"]))
    monkeypatch.setenv("CREDIT_TLS_CA", "environment.pem")
    settings = CreditClient("credit.example", tls=tls).settings
    assert (settings.encrypted, settings.tls_ca) == (encrypted, ca)
    assert used == ([ca] if encrypted else [])


def test_a_context_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_TLS_CLIENT_CERTIFICATE", "environment.pem")
    context = ssl.create_default_context()
    assert CreditClient("credit.example", tls=context).settings.tls_client_certificate is None
    with pytest.raises(ValueError, match="load it into the context"):
        CreditClient("credit.example", tls=context, client_certificate="own.pem")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"token": "t", "token_file": "f"}, "both given"),
        ({"tls_client_key": "k"}, "without tls_client_certificate"),
        ({"tls": True, "token_insecure": True}, "always verified"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ClientSettings(**values)
