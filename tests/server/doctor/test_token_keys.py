"""Files of public keys that would let strangers make tokens, or owners be refused."""

import json
import re
from pathlib import Path

import pytest
from credit_server.access.keys import parse_keys
from credit_server.doctor.finding import Finding, Verdict
from credit_server.doctor.token_keys import check_token_keys
from credit_server.settings import ServerSettings
from credit_testing.certificates import private_key, private_pem
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.server.doctor.papers import private_jwk, public_jwk, public_pem, written

KEY = private_key()
ALGORITHMS = ServerSettings().token_algorithms


def _check(folder: Path, content: bytes, mode: int = 0o644) -> Finding:
    (finding,) = check_token_keys(written(folder / "keys", content, mode), ALGORITHMS)
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
def test_what_the_server_accepts_is_ok(content: bytes, tmp_path: Path) -> None:
    parse_keys(content, ALGORITHMS)
    assert _check(tmp_path, content).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "neither PEM nor JSON"),
        (b"{", "neither PEM nor JSON"),
        (b"{}", "no JWKS"),
        (_set(), "no key for ES256"),
        (_set(1), "no JWKS"),
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
def test_what_the_server_rejects_fails(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_keys(content, ALGORITHMS)
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
    (finding,) = check_token_keys(tmp_path / "missing", ALGORITHMS)
    assert finding.verdict is Verdict.FAILS
