"""Files of public keys that would let strangers make tokens, or owners be refused."""

import json
from pathlib import Path

import pytest
from credit_server.doctor.finding import Finding, Verdict
from credit_server.doctor.token_keys import check_token_keys
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.server.doctor.papers import (
    private_jwk,
    private_key,
    private_pem,
    public_jwk,
    public_pem,
    written,
)

KEY = private_key()


def _check(folder: Path, content: bytes, mode: int = 0o644) -> Finding:
    (finding,) = check_token_keys(written(folder / "keys", content, mode))
    return finding


def _set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


@pytest.mark.parametrize(
    "content",
    [
        public_pem(KEY),
        _set(public_jwk(KEY, "a"), public_jwk(private_key(), "b")),
    ],
    ids=["PEM", "JWKS"],
)
def test_strong_public_keys_are_ok(content: bytes, tmp_path: Path) -> None:
    assert _check(tmp_path, content).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no public key in PEM"),
        (b"{", "not a JSON Web Key Set"),
        (b"{}", "not a JSON Web Key Set"),
        (_set(), "has no keys"),
        (_set(1), "has no keys"),
        (_set({"kty": "EC", "kid": "a"}), "the key a is not valid"),
        (_set({"kid": "a"}), "the key a is not valid"),
        (_set(public_jwk(KEY, "a"), public_jwk(KEY, "a")), "has ids twice: a"),
        (private_pem(KEY), "has a private key"),
        (_set(private_jwk(KEY, "a")), "has a private key"),
        (_set({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}), "has a private key"),
        (public_pem(rsa.generate_private_key(65537, 1024)), "RSA of 1024 bits"),
        (public_pem(ec.generate_private_key(ec.SECP192R1())), "a curve of 192 bits"),
    ],
)
def test_what_must_not_be_believed_fails(content: bytes, says: str, tmp_path: Path) -> None:
    finding = _check(tmp_path, content)
    assert finding.verdict is Verdict.FAILS
    assert says in finding.found


def test_keys_without_an_id_are_a_warning(tmp_path: Path) -> None:
    assert _check(tmp_path, _set(public_jwk(KEY, None))).verdict is Verdict.WARNING


def test_a_file_that_others_can_change_fails(tmp_path: Path) -> None:
    finding = _check(tmp_path, public_pem(KEY), 0o664)
    assert finding.verdict is Verdict.FAILS
    assert "0664" in finding.found


def test_a_file_that_is_not_there_fails(tmp_path: Path) -> None:
    (finding,) = check_token_keys(tmp_path / "missing")
    assert finding.verdict is Verdict.FAILS
