"""Certificates, keys and identities that no server starts with, or that are not safe."""

import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from credit_server.access.keys import parse_keys
from credit_server.doctor import credentials
from credit_server.doctor.credentials import (
    check_certificate,
    check_client_ca,
    check_identities,
    check_private_key,
    check_token_keys,
)
from credit_server.doctor.examination import CHECKS
from credit_server.doctor.report import Finding, Verdict
from credit_server.settings import ServerSettings
from credit_testing.certificates import private_key, private_pem
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.server.doctor.credential_files import (
    NOW,
    certificate,
    private_jwk,
    public_jwk,
    public_pem,
    written,
)
from tests.server.doctor.subject import subject_of

OK, WARNING, FAILS = Verdict.OK, Verdict.WARNING, Verdict.FAILS
DAY = timedelta(days=1)
KEY = private_key()
ALGORITHMS = ServerSettings().token_algorithms


def _examined(**files: Path | str) -> dict[str, Verdict]:
    """The verdicts of all checks of credentials, by name."""
    settings = ServerSettings.model_validate({"port": 0, **files})
    subject = subject_of(settings.model_dump())
    return {
        finding.check: finding.verdict
        for check in CHECKS
        if check.__module__ == credentials.__name__
        for finding in check(subject)
    }


def _tls(folder: Path, *, password: bytes | None = None) -> dict[str, Path]:
    key = private_key()
    return {
        "tls_certificate": written(folder / "server.pem", certificate(key)),
        "tls_key": written(folder / "server.key", private_pem(key, password)),
    }


def test_each_file_is_checked(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    found = _examined(
        **_tls(tmp_path),
        tls_client_ca=missing,
        token_keys=missing,
        token_issuer="us",
        token_audience="credit",
        identities_file=written(tmp_path / "identities.json", b"{}"),
    )
    assert found == {
        "TLS certificate": OK,
        "TLS key": OK,
        "TLS client CA": FAILS,
        "token keys": FAILS,
        "identities": OK,
    }


def test_files_that_a_server_can_read_are_ok(tmp_path: Path) -> None:
    keys = written(tmp_path / "keys.pem", public_pem(private_key()))
    found = _examined(**_tls(tmp_path), token_keys=keys, token_issuer="us", token_audience="credit")
    assert set(found.values()) == {OK}


def test_identities_that_no_server_starts_with_fail(tmp_path: Path) -> None:
    ca = written(tmp_path / "ca.pem", certificate(private_key(), authority=True))
    identities = written(tmp_path / "identities.json", b'{"caller": {"scope": "all"}}')
    found = _examined(**_tls(tmp_path), tls_client_ca=ca, identities_file=identities)
    assert found["identities"] is FAILS


def test_a_key_that_its_password_does_not_open_fails(tmp_path: Path) -> None:
    password = written(tmp_path / "password", b"wrong")
    found = _examined(**_tls(tmp_path, password=b"right"), tls_key_password_file=password)
    assert found["TLS"] is FAILS


def test_a_password_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    password = written(tmp_path / "password", b"right", 0o644)
    found = _examined(**_tls(tmp_path, password=b"right"), tls_key_password_file=password)
    assert found["TLS key password"] is WARNING
    password.chmod(0o600)
    found = _examined(**_tls(tmp_path, password=b"right"), tls_key_password_file=password)
    assert set(found.values()) == {OK}


def _pair(certificate: Path, key: Path) -> list[Finding]:
    subject = subject_of({"tls_certificate": certificate, "tls_key": key})
    return [*check_certificate(subject), *check_private_key(subject)]


def _client_ca(path: Path) -> list[Finding]:
    return list(check_client_ca(subject_of({"tls_client_ca": path})))


def _check(folder: Path, content: bytes, key: bytes | None = None) -> list[Finding]:
    chain = written(folder / "server.pem", content, 0o644)
    own = written(folder / "server.key", private_pem(KEY) if key is None else key)
    return _pair(chain, own)


def _verdicts(findings: list[Finding]) -> list[Verdict]:
    return [finding.verdict for finding in findings]


def test_a_good_pair_is_ok_and_its_expiry_is_reported(tmp_path: Path) -> None:
    findings = _check(tmp_path, certificate(KEY))
    assert _verdicts(findings) == [OK, OK]
    assert "2026-08-30" in findings[0].found


@pytest.mark.parametrize(
    ("ends", "verdict", "text"),
    [
        (NOW + 15 * DAY, OK, "valid until"),
        (NOW + 13 * DAY, WARNING, "expires in 13 days"),
        (NOW, FAILS, "expired on 2026-06-01"),
    ],
)
def test_a_certificate_that_expires_soon_is_a_warning(
    ends: datetime, verdict: Verdict, text: str, tmp_path: Path
) -> None:
    first = _check(tmp_path, certificate(KEY, begins=NOW - 9 * DAY, ends=ends))[0]
    assert first.verdict is verdict
    assert text in first.found


def test_a_certificate_that_is_not_valid_yet_fails(tmp_path: Path) -> None:
    first = _check(tmp_path, certificate(KEY, begins=NOW + DAY))[0]
    assert first.verdict is FAILS
    assert "not valid before 2026-06-02" in first.found


def test_an_issuer_that_has_expired_fails(tmp_path: Path) -> None:
    issuer = certificate(private_key(), begins=NOW - 9 * DAY, ends=NOW - DAY, authority=True)
    assert _check(tmp_path, certificate(KEY) + issuer)[0].verdict is FAILS


def test_a_certificate_without_names_fails(tmp_path: Path) -> None:
    first = _check(tmp_path, certificate(KEY, names=()))[0]
    assert first.verdict is FAILS
    assert "subject alternative name" in first.found


def test_a_short_rsa_key_fails(tmp_path: Path) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    findings = _check(tmp_path, certificate(weak), private_pem(weak))
    assert _verdicts(findings) == [FAILS, OK]
    assert "RSA of 1024 bits" in findings[0].found


def test_a_key_of_another_certificate_fails(tmp_path: Path) -> None:
    last = _check(tmp_path, certificate(KEY), private_pem(private_key()))[-1]
    assert last.verdict is FAILS
    assert "not the key of the certificate" in last.found


def test_a_key_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    chain = written(tmp_path / "server.pem", certificate(KEY), 0o644)
    key = written(tmp_path / "server.key", private_pem(KEY), 0o640)
    last = _pair(chain, key)[-1]
    assert last.verdict is WARNING
    assert last.remedy == f"run: chmod 600 {key}"


def test_the_content_of_an_encrypted_key_is_not_checked(tmp_path: Path) -> None:
    last = _check(tmp_path, certificate(KEY), private_pem(KEY, b"a passphrase"))[-1]
    assert last.verdict is OK
    assert "not checked" in last.found


@pytest.mark.parametrize("content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_files_without_pem_fail(content: bytes, tmp_path: Path) -> None:
    assert _verdicts(_check(tmp_path, content)) == [FAILS]
    assert _check(tmp_path, certificate(KEY), content)[-1].verdict is FAILS


def test_files_that_do_not_exist_fail(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    chain = written(tmp_path / "server.pem", certificate(KEY))
    assert _verdicts(_pair(missing, missing)) == [FAILS]
    assert _pair(chain, missing)[-1].verdict is FAILS


def test_an_authority_of_clients_is_ok(tmp_path: Path) -> None:
    path = written(tmp_path / "ca.pem", certificate(KEY, authority=True))
    assert _verdicts(_client_ca(path)) == [OK]


def test_a_certificate_that_issues_nothing_is_no_authority(tmp_path: Path) -> None:
    path = written(tmp_path / "ca.pem", certificate(KEY))
    (finding,) = _client_ca(path)
    assert finding.verdict is FAILS
    assert "not a certificate authority" in finding.found


def test_an_authority_that_has_expired_fails(tmp_path: Path) -> None:
    old = certificate(KEY, begins=NOW - 9 * DAY, ends=NOW - DAY, authority=True)
    assert _client_ca(written(tmp_path / "ca.pem", old))[0].verdict is FAILS


def _check_keys(folder: Path, content: bytes, mode: int = 0o644) -> Finding:
    path = written(folder / "keys", content, mode)
    (finding,) = check_token_keys(subject_of({"token_keys": path}))
    return finding


def _set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


# As Keycloak serves them: one key signs, the others are for encryption.
KEYCLOAK = _set(
    {**public_jwk(KEY, "a"), "alg": "ES256", "use": "sig"},
    {**public_jwk(private_key(), "b"), "alg": "ECDH-ES", "use": "enc"},
    {"kty": "RSA", "kid": "c", "alg": "RSA-OAEP", "use": "enc", "n": "AQAB", "e": "AQAB"},
    {"kty": "OKP", "kid": "d", "crv": "X25519", "x": "AQAB", "use": "enc"},
)


@pytest.mark.parametrize(
    "content",
    [
        public_pem(KEY),
        public_pem(KEY) + public_pem(private_key()),
        _set(public_jwk(KEY, "a"), public_jwk(private_key(), "b")),
        KEYCLOAK,
    ],
    ids=["PEM", "PEM with two keys", "JWKS", "JWKS with keys for other uses"],
)
def test_token_keys_that_the_server_accepts_are_ok(content: bytes, tmp_path: Path) -> None:
    parse_keys(content, ALGORITHMS)
    assert _check_keys(tmp_path, content).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "neither PEM nor JSON"),
        (b"{", "neither PEM nor JSON"),
        (b"{}", "not a JWKS"),
        (_set(), "no key for ES256"),
        (_set(1), "not a JWKS"),
        (_set({"kty": "EC", "kid": "a"}), "the key a is broken"),
        (_set({"kid": "a"}), "no key for ES256"),
        (_set(public_jwk(KEY, "a"), public_jwk(KEY, "a")), "two keys have the same kid"),
        (private_pem(KEY), "a private key"),
        (public_pem(KEY) + private_pem(KEY), "a private key"),
        (_set(private_jwk(KEY, "a")), "a private or a shared key"),
        (_set({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}), "a private or a shared key"),
        (public_pem(rsa.generate_private_key(65537, 1024)), "has 1024 bits"),
        (
            public_pem(KEY) + public_pem(rsa.generate_private_key(65537, 1024)),
            "has 1024 bits",
        ),
        (public_pem(ec.generate_private_key(ec.SECP192R1())), "no key for ES256"),
    ],
)
def test_token_keys_that_the_server_rejects_fail(content: bytes, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_keys(content, ALGORITHMS)
    finding = _check_keys(tmp_path, content)
    assert finding.verdict is Verdict.FAILS
    assert text in finding.found


def test_keys_without_an_id_are_a_warning(tmp_path: Path) -> None:
    assert _check_keys(tmp_path, _set(public_jwk(KEY, None))).verdict is Verdict.WARNING


def test_token_keys_that_others_can_change_fail(tmp_path: Path) -> None:
    finding = _check_keys(tmp_path, public_pem(KEY), 0o664)
    assert finding.verdict is Verdict.FAILS
    assert "0664" in finding.found


def test_token_keys_that_do_not_exist_fail(tmp_path: Path) -> None:
    (finding,) = check_token_keys(subject_of({"token_keys": tmp_path / "missing"}))
    assert finding.verdict is Verdict.FAILS


def _check_identities(path: Path) -> Finding:
    (finding,) = check_identities(subject_of({"identities_file": path}))
    return finding


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b"{}"), ("a.json", b'{"shop": {"scopes": []}}'), ("a.toml", b"[shop]\nscopes=[]")],
)
def test_identities_that_can_be_read_are_ok(name: str, content: bytes, tmp_path: Path) -> None:
    assert _check_identities(written(tmp_path / name, content)).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"a = 1"),
        ("a.toml", b"{}"),
        ("a.json", b"\xff"),
        ("a.toml", b"a = 1"),
        ("a.json", b'{"shop": {"scope": "all"}}'),
        ("a.json", b'{"shop": {"scopes": []}, "shop": {"scopes": ["credits:issue"]}}'),
    ],
)
def test_malformed_identities_fail(name: str, content: bytes, tmp_path: Path) -> None:
    assert _check_identities(written(tmp_path / name, content)).verdict is Verdict.FAILS


def test_identities_that_others_can_change_fail(tmp_path: Path) -> None:
    finding = _check_identities(written(tmp_path / "a.json", b"{}", 0o646))
    assert finding.verdict is Verdict.FAILS
    assert finding.remedy.startswith("run: chmod go-w")


def test_identities_that_do_not_exist_fail(tmp_path: Path) -> None:
    assert _check_identities(tmp_path / "missing").verdict is Verdict.FAILS
