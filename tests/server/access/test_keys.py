"""Files of keys: which are accepted, for which tokens, and which are rejected and why."""

import json
from typing import Any

import pytest
from credit_server.access.keys import parse_keys
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, generate_private_key

from tests.server.access.signing import (
    ec_key,
    ed_key,
    jwk,
    jwks,
    private_pem,
    public_pem,
    rsa_key,
)

PINNED = ("ES256", "EdDSA", "RS256")


def test_each_kind_of_key_is_bound_to_its_algorithm() -> None:
    data = b"".join(public_pem(key) for key in (ec_key(), ed_key(), rsa_key()))
    keys = parse_keys(data, PINNED).keys
    assert [(key.kid, key.algorithm) for key in keys] == [(None, name) for name in PINNED]


def test_an_rsa_key_that_does_not_say_has_the_first_pinned_algorithm() -> None:
    (key,) = parse_keys(public_pem(rsa_key()), ("ES256", "PS512", "RS256")).keys
    assert key.algorithm == "PS512"


def test_an_rsa_key_has_the_algorithm_that_it_declares() -> None:
    data = jwks(jwk(rsa_key().public_key(), "RS256", kid="a", alg="PS256"))
    (key,) = parse_keys(data, ("RS256", "PS256")).keys
    assert key.algorithm == "PS256"


def test_a_kid_finds_its_key_and_no_other() -> None:
    keys = parse_keys(
        jwks(*(jwk(ec_key(number).public_key(), "ES256", kid=str(number)) for number in (1, 2))),
        PINNED,
    )
    assert [key.kid for key in keys.candidates("2", "ES256")] == ["2"]
    assert keys.candidates("3", "ES256") == []
    assert keys.candidates(None, "ES256") == []
    assert keys.candidates("2", "RS256") == []


def test_a_key_without_kid_is_for_every_token_of_its_algorithm() -> None:
    keys = parse_keys(public_pem(ec_key()), PINNED)
    assert len(keys.candidates("any", "ES256")) == len(keys.candidates(None, "ES256")) == 1
    assert keys.candidates(None, "EdDSA") == []


def test_what_a_provider_lists_for_others_is_passed_over() -> None:
    public = ec_key().public_key()
    data = jwks(
        jwk(public, "ES256", kid="sound"),
        jwk(public, "ES256", kid="encrypts", use="enc"),
        jwk(public, "ES256", kid="other", alg="ECDH-ES"),
        jwk(rsa_key().public_key(), "RS256", kid="unpinned", alg="RS512"),
        {"kty": "AKP", "kid": "of the future"},
    )
    assert [key.kid for key in parse_keys(data, PINNED).keys] == ["sound"]


PUBLIC = jwk(ec_key().public_key(), "ES256", kid="a")
REFUSED: dict[str, tuple[bytes, str]] = {
    "a private key in PEM": (private_pem(ec_key()), "private key"),
    "a private key after a public one": (
        public_pem(ec_key()) + private_pem(rsa_key()),
        "private key",
    ),
    "a private JWK": (jwks(jwk(ec_key(), "ES256", kid="a")), "private or a shared key"),
    "a shared JWK": (jwks({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}), "private or a shared"),
    "a weak key": (public_pem(rsa_key(1024)), "1024 bits"),
    "a weak JWK": (jwks(jwk(rsa_key(1024).public_key(), "RS256", kid="a")), "1024 bits"),
    "no key": (b"", "neither PEM nor JSON"),
    "an empty set": (jwks(), "no key for ES256, EdDSA, RS256"),
    "a key of a curve that is not pinned": (
        public_pem(generate_private_key(SECP256K1())),
        "no key for",
    ),
    "a broken block": (
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "not a public key",
    ),
    "a certificate": (
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "not a public key",
    ),
    "many keys without a kid": (public_pem(ec_key()) * 9, "more than 8 keys"),
    "two keys of one kid": (jwks(PUBLIC, PUBLIC), "the same kid"),
    "one of two without a kid": (jwks(PUBLIC, {**PUBLIC, "kid": None}), "not text"),
    "a kid that is a number": (jwks({**PUBLIC, "kid": 1}), "not text"),
    "a point that is on no curve": (jwks({**PUBLIC, "x": PUBLIC["y"]}), "key a is broken"),
    "a list": (b"[]", "not a JWKS"),
    "keys that are no objects": (b'{"keys": [1]}', "not a JWKS"),
    "JSON without a bottom": (b"[" * 100_000, "neither PEM nor JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_rejected_and_the_reason_quotes_no_key(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason) as refused:
        parse_keys(data, PINNED)
    assert not _secrets(data) & set(str(refused.value).split())
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def _secrets(data: bytes) -> set[str]:
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError):
        return set(data.decode().splitlines())
    members = content.get("keys", []) if isinstance(content, dict) else []
    return {
        str(member[name])
        for member in members
        if isinstance(member, dict)
        for name in ("d", "k", "x", "y", "n")
        if name in member
    }
