"""Makes a key pair for tokens, and signs tokens with it: for development."""

import hashlib
import json
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import get_default_algorithms

from credit_server.access import FileUnusable
from credit_server.access.identity import CreditsMax
from credit_server.access.keys import PublicKey, algorithms_of, parse_keys
from credit_server.development.files import (
    PUBLIC,
    SECRET,
    all_exist,
    remedy,
    write_new_file,
)

PRIVATE_KEY = "token-key.pem"
PUBLIC_KEYS = "token-keys.json"

_SigningKey = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey

# RFC 7638, section 3.2.
_THUMBPRINT = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """What a new token grants.

    Attributes:
        subject: The identity of its owner.
        scopes: The calls that the owner may make.
        apps: The apps that the owner acts in and sees; None: all.
        actor: The `created_by` that the owner gives; None: none.
        impersonate: Whether the owner may give any `created_by`.
        credits_max: The most credits that the owner may add in one call, in all apps or by app;
            None: no limit.
        minutes: How long the token is valid.
        issuer: Its `iss`.
        audience: Its `aud`.
    """

    subject: str
    scopes: list[str]
    apps: list[int] | None
    actor: int | None
    impersonate: bool
    credits_max: CreditsMax | None = None
    minutes: float
    issuer: str
    audience: str


def make_keys(directory: Path) -> tuple[Path, Path]:
    """Make an ES256 pair: a private key in PEM, and a JWKS with the public one.

    Returns:
        The files of the private key and of the public keys.

    Raises:
        FileUnusable: One of them exists, or cannot be written.
    """
    private, public = directory / PRIVATE_KEY, directory / PUBLIC_KEYS
    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    jwks = {"keys": [_jwk(key.public_key(), "ES256")]}
    write_new_file(private, pem, SECRET)
    write_new_file(public, json.dumps(jwks, indent=2).encode() + b"\n", PUBLIC)
    return private, public


def find_keys(directory: Path) -> tuple[Path, Path] | None:
    """Find the pair that was made in a directory earlier.

    Returns:
        The same files as `make_keys`; None: neither exists.

    Raises:
        FileUnusable: Only one of the files exists, or they are not a pair.
    """
    private, public = files = directory / PRIVATE_KEY, directory / PUBLIC_KEYS
    if not all_exist(files):
        return None
    key = _load(private).public_key()
    try:
        known = parse_keys(public.read_bytes(), algorithms_of(key))
    except OSError as error:
        raise FileUnusable(f"{public} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise FileUnusable(f"{public} cannot be used: {error}; {remedy(files)}") from None
    if key not in [one.key for one in known.keys]:
        raise FileUnusable(f"{public} does not hold the public key of {private}: {remedy(files)}")
    return files


def issue_token(key_file: Path, grant: Grant) -> str:
    """Sign a token.

    Args:
        key_file: The private key in PEM: of P-256, P-384, P-521, Ed25519, or RSA.
        grant: What the token grants.

    Raises:
        FileUnusable: The key cannot be used.
    """
    key = _load(key_file)
    try:
        (algorithm, *_) = algorithms_of(key.public_key())
    except ValueError:
        raise FileUnusable(f"{key_file} holds a key of a kind that cannot sign tokens.") from None
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": grant.issuer,
        "aud": grant.audience,
        "sub": grant.subject,
        "iat": now,
        "exp": now + round(grant.minutes * 60),
        "scope": " ".join(grant.scopes),
        "apps": "*" if grant.apps is None else grant.apps,
        "impersonate": grant.impersonate,
    }
    if grant.actor is not None:
        claims["actor"] = grant.actor
    if grant.credits_max is not None:
        claims["credits_max"] = grant.credits_max
    kid = _jwk(key.public_key(), algorithm)["kid"]
    return jwt.encode(claims, key, algorithm, headers={"typ": "at+jwt", "kid": kid})


def _load(key_file: Path) -> _SigningKey:
    try:
        key = load_pem_private_key(key_file.read_bytes(), password=None)
    except OSError as error:
        raise FileUnusable(
            f"The private key {key_file} cannot be read: {error.strerror}. Make one with"
            " credit-server token keys."
        ) from None
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise FileUnusable(
            f"{key_file} holds no private key in PEM without a password: make one with"
            " credit-server token keys."
        ) from None
    if not isinstance(key, _SigningKey):
        raise FileUnusable(f"{key_file} holds a key of a kind that cannot sign tokens.")
    return key


def _jwk(key: PublicKey, algorithm: str) -> dict[str, Any]:
    """Write a public key as a JWK whose kid is its thumbprint (RFC 7638)."""
    jwk: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(key, as_dict=True)
    needed = {name: jwk[name] for name in _THUMBPRINT[jwk["kty"]]}
    canonical = json.dumps(needed, sort_keys=True, separators=(",", ":")).encode()
    kid = urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
    public = {name: jwk[name] for name in jwk if name != "key_ops"}
    return {**public, "kid": kid, "use": "sig", "alg": algorithm}
