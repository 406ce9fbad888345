"""An issuer for tests: signs any header and any claims, and forges what a library would reject."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from credit_server.access.keys import PublicKey
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import get_default_algorithms

NOW = 1_800_000_000
ISSUER = "https://issuer.example"
AUDIENCE = "credit"

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey


class Clock:
    """Return the time that a test has set."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def replace(path: Path, data: bytes) -> None:
    """Replace a file atomically, with another inode."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


@cache
def ec_key(number: int = 0) -> EllipticCurvePrivateKey:
    """Make a key of P-256; another number, another key."""
    return generate_private_key(SECP256R1())


@cache
def rsa_key(bits: int = 2048) -> RSAPrivateKey:
    return generate_rsa(65537, bits)


@cache
def ed_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def public_pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


# Any: JSON of any shape, here and below.
def jwk(key: PublicKey | PrivateKey, algorithm: str, **members: Any) -> dict[str, Any]:
    """Write a key as a JWK; a member that is None is left out."""
    written = get_default_algorithms()[algorithm].to_jwk(key, as_dict=True)
    written.pop("key_ops", None)
    return {name: value for name, value in {**written, **members}.items() if value is not None}


def jwks(*members: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": members}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """List sound claims with some changed; one that is `...` is left out."""
    sound = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "shop",
        "iat": NOW,
        "exp": NOW + 600,
        "scope": "credits:spend credits:read",
        "apps": [1, 2],
        "actor": 7,
    }
    return {name: value for name, value in {**sound, **changes}.items() if value is not ...}


def sign(
    content: Mapping[str, Any] | None = None,
    *,
    key: PrivateKey | None = None,
    algorithm: str = "ES256",
    **header: Any,
) -> str:
    """Sign a token as an issuer would."""
    content = dict(claims() if content is None else content)
    return jwt.encode(content, key or ec_key(), algorithm, headers=header)


def forge(header: Any, content: Any, secret: bytes | None = None) -> str:
    """Make a token of any parts, with an HMAC of a secret or with no signature."""
    signed = f"{_part(header)}.{_part(content)}"
    if secret is None:
        return f"{signed}."
    digest = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{_base64url(digest)}"


def _part(content: Any) -> str:
    return _base64url(content if isinstance(content, bytes) else json.dumps(content).encode())


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
