"""Which of a call's credentials counts, and how a call without any is answered."""

from pathlib import Path
from typing import Any

import pytest
from credit_server.access import (
    Authenticator,
    Credentials,
    FileUnusable,
    Unauthenticated,
    open_authenticator,
)
from credit_server.settings import AccessSettings

from tests.server.access.signing import AUDIENCE, ISSUER, claims, ec_key, public_pem, sign

FAR = 4_000_000_000
CERTIFICATE: Any = {
    "subject": ((("commonName", "owner"),),),
    "notAfter": "Jan  1 00:00:00 2096 GMT",
}


def opened(tmp_path: Path, *, tokens: bool = True, certificates: bool = True) -> Authenticator:
    settings: dict[str, object] = {}
    if tokens:
        (tmp_path / "keys.pem").write_bytes(public_pem(ec_key()))
        settings |= {
            "token_keys": tmp_path / "keys.pem",
            "token_issuer": ISSUER,
            "token_audience": AUDIENCE,
        }
    if certificates:
        (tmp_path / "identities.json").write_text('{"CN=owner": {"scopes": []}}')
        settings |= {
            "identities_file": tmp_path / "identities.json",
            "tls_certificate": "c",
            "tls_key": "k",
            "tls_client_ca": "ca",
        }
    authenticator = open_authenticator(AccessSettings.model_validate(settings).identity_files)
    assert authenticator is not None
    return authenticator


def name(authenticator: Authenticator, authorization: str | None, certificate: Any = None) -> str:
    credentials = Credentials(authorization=authorization, certificate=certificate)
    return authenticator.authenticate(credentials).name


@pytest.fixture
def token() -> str:
    return sign(claims(iat=0, exp=FAR))


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_a_token_proves_an_identity(scheme: str, token: str, tmp_path: Path) -> None:
    assert name(opened(tmp_path), scheme + token) == "shop"


def test_a_certificate_proves_an_identity(tmp_path: Path) -> None:
    assert name(opened(tmp_path), None, CERTIFICATE) == "CN=owner"


def test_of_both_the_token_decides(token: str, tmp_path: Path) -> None:
    assert name(opened(tmp_path), f"Bearer {token}", CERTIFICATE) == "shop"


def test_a_bad_token_is_not_made_good_by_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated):
        name(opened(tmp_path), "Bearer bad", CERTIFICATE)


def test_where_tokens_are_not_taken_the_certificate_decides(token: str, tmp_path: Path) -> None:
    authenticator = opened(tmp_path, tokens=False)
    assert name(authenticator, f"Bearer {token}", CERTIFICATE) == "CN=owner"
    with pytest.raises(Unauthenticated) as refused:
        name(authenticator, f"Bearer {token}")
    assert str(refused.value) == (
        "The server accepts no tokens, and nothing else proves the call's identity: connect with a"
        " client certificate."
    )


def test_a_certificate_is_rejected_with_the_reason_where_it_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated) as refused:
        name(opened(tmp_path, certificates=False), None, CERTIFICATE)
    assert str(refused.value) == (
        "The client certificate proves no identity here, as the server lists no owners: send the"
        " header 'authorization: Bearer <token>'."
    )


def test_an_owner_who_is_not_listed_is_rejected_with_the_reason(tmp_path: Path) -> None:
    stranger = {**CERTIFICATE, "subject": ((("commonName", "stranger"),),)}
    with pytest.raises(Unauthenticated, match="owner is not known here"):
        name(opened(tmp_path), None, stranger)


def test_a_call_without_credentials_is_answered_with_all_ways(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated) as refused:
        name(opened(tmp_path), None)
    assert str(refused.value) == (
        "The call has no identity: send the header 'authorization: Bearer <token>' or connect with"
        " a client certificate."
    )


@pytest.mark.parametrize("header", ["", " ", "Bearer", "Bearer ", "Basic YTpi", "{token}"])
def test_another_scheme_is_rejected(header: str, token: str, tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated, match="another scheme") as refused:
        name(opened(tmp_path), header.format(token=token))
    assert token not in str(refused.value)


@pytest.mark.parametrize(
    "header", ["Bearer {token}, Bearer {token}", "Bearer {token} {token}", "Bearer {token},"]
)
def test_more_than_one_token_is_rejected(header: str, token: str, tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated, match="more than a token") as refused:
        name(opened(tmp_path), header.format(token=token))
    assert token not in str(refused.value)


def test_a_token_is_recognized_once_it_has_proved_an_identity(token: str, tmp_path: Path) -> None:
    authenticator = opened(tmp_path)
    shown = Credentials(authorization=f"Bearer {token}", certificate=CERTIFICATE)
    assert authenticator.recognize(shown) is None, "and the certificate does not count beside it"
    proved = authenticator.authenticate(shown)
    assert authenticator.recognize(shown) == proved


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer bad", "Bearer a, Bearer b"])
def test_what_proves_nothing_is_not_recognized(header: str, tmp_path: Path) -> None:
    shown = Credentials(authorization=header, certificate=CERTIFICATE)
    assert opened(tmp_path).recognize(shown) is None


def test_a_certificate_is_always_recognized(tmp_path: Path) -> None:
    authenticator = opened(tmp_path)
    known = authenticator.recognize(Credentials(authorization=None, certificate=CERTIFICATE))
    assert known is not None
    assert known.name == "CN=owner"
    assert authenticator.recognize(Credentials(authorization=None, certificate=None)) is None


def test_without_settings_there_is_none() -> None:
    assert open_authenticator(AccessSettings().identity_files) is None


def test_a_file_that_cannot_be_used_is_an_error_at_the_start() -> None:
    settings = AccessSettings.model_validate(
        {"token_keys": "/nowhere", "token_issuer": ISSUER, "token_audience": AUDIENCE}
    )
    with pytest.raises(FileUnusable, match="/nowhere cannot be read"):
        open_authenticator(settings.identity_files)
