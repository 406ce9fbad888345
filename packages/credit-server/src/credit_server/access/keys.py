"""Reads the public keys that verify tokens from PEM or a JWKS, and binds each to one algorithm."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

__all__ = ["KeySet", "PublicKey", "VerifyingKey", "algorithms_of", "is_pem", "parse_keys"]

PublicKey = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey

_RSA_BITS_MIN = 2048
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# Each key is tried on a token, so a forged token costs as many verifications.
_PEM_KEYS_MAX = 8
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
# RFC 7518, section 6: members that only a private or a shared key has.
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyingKey:
    """A public key and the one algorithm that it verifies.

    Attributes:
        kid: The name of the key in tokens; None: it is tried on every token of its algorithm.
        algorithm: The algorithm, such as `ES256`. If the token chose it, a public key could be
            used as a shared secret.
        key: The key.
    """

    kid: str | None
    algorithm: str
    key: PublicKey


@dataclass(frozen=True, kw_only=True, slots=True)
class KeySet:
    """All keys of a file.

    Attributes:
        keys: The keys.
    """

    keys: tuple[VerifyingKey, ...]

    def candidates(self, kid: str | None, algorithm: str) -> list[VerifyingKey]:
        """Return the keys that may have signed a token with this header."""
        return [key for key in self.keys if key.kid in (None, kid) and key.algorithm == algorithm]


def parse_keys(data: bytes, algorithms: Sequence[str]) -> KeySet:
    """Read keys from the bytes of a PEM or JWKS file.

    Args:
        data: The file's bytes.
        algorithms: The pinned algorithms, preferred first. Keys of other algorithms are ignored:
            an identity provider's JWKS often has some.

    Raises:
        ValueError: It has no usable key, or one that is private, weak or broken.
    """
    keys = _from_pem(data, algorithms) if is_pem(data) else _from_jwks(data, algorithms)
    if not keys:
        raise ValueError(f"it has no key for {', '.join(algorithms)}")
    kids = [key.kid for key in keys if key.kid is not None]
    if len(set(kids)) < len(kids):
        raise ValueError("two keys have the same kid: give each its own")
    return KeySet(keys=tuple(keys))


def is_pem(data: bytes) -> bool:
    """Return whether a file of keys is PEM; otherwise it is a JWKS."""
    return b"-----BEGIN" in data


def algorithms_of(key: object) -> tuple[str, ...]:
    """Return the algorithms of a public key; none for a kind that is not supported.

    Raises:
        ValueError: The key is too weak.
    """
    if isinstance(key, RSAPublicKey):
        if key.key_size < _RSA_BITS_MIN:
            raise ValueError(
                f"an RSA key has {key.key_size} bits: make one of at least {_RSA_BITS_MIN}"
            )
        return _RSA
    if isinstance(key, EllipticCurvePublicKey):
        return (_CURVES[key.curve.name],) if key.curve.name in _CURVES else ()
    return ("EdDSA",) if isinstance(key, Ed25519PublicKey) else ()


def _from_pem(data: bytes, pinned: Sequence[str]) -> list[VerifyingKey]:
    blocks = list(_PEM.finditer(data))
    if any(b"PRIVATE" in block[1] for block in blocks):
        raise ValueError(
            "it holds a private key, which signs tokens and must not be on this server:"
            " put only the public key here, and make a new pair if others could read this file"
        )
    if len(blocks) > _PEM_KEYS_MAX:
        raise ValueError(f"it has more than {_PEM_KEYS_MAX} keys: use a JWKS file with kids")
    keys = []
    for block in blocks:
        try:
            key = load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError(
                "one of its blocks is not a public key: it must start with BEGIN PUBLIC KEY"
            ) from None
        keys += _bound(None, None, key, pinned)
    return keys


def _from_jwks(data: bytes, pinned: Sequence[str]) -> list[VerifyingKey]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is neither PEM nor JSON") from None
    listed = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(member, dict) for member in listed):
        raise ValueError("it is not a JWKS: it must have a list 'keys' of objects (RFC 7517)")
    keys = []
    for member in listed:
        if _PRIVATE_MEMBERS & member.keys():
            raise ValueError(
                "it holds a private or a shared key, which can sign tokens and must not be on this"
                " server: put only public keys here, and replace it if others could read this file"
            )
        keys += _from_jwk(member, len(listed), pinned)
    return keys


# Any: JSON of any shape.
def _from_jwk(member: dict[str, Any], siblings: int, pinned: Sequence[str]) -> list[VerifyingKey]:
    if member.get("use", "sig") != "sig" or member.get("kty") not in ("EC", "OKP", "RSA"):
        return []
    kid = member.get("kid")
    if not (isinstance(kid, str) and kid) and (kid is not None or siblings > 1):
        raise ValueError("a key has no kid, or one that is not text: give each key its own")
    try:
        # Without `alg`, which PyJWT may not support; it is compared below.
        key = jwt.PyJWK({name: part for name, part in member.items() if name != "alg"}).key
    except jwt.PyJWTError:
        raise ValueError(
            f"the key {kid or 'without a kid'} is broken, or of an unknown curve"
        ) from None
    return _bound(kid, member.get("alg"), key, pinned)


def _bound(
    kid: str | None, declared: object, key: object, pinned: Sequence[str]
) -> list[VerifyingKey]:
    """Bind a key to the algorithm that it declares, or to the first pinned one that it supports."""
    possible = algorithms_of(key)
    for algorithm in pinned:
        if algorithm in possible and declared in (None, algorithm):
            assert isinstance(key, PublicKey)  # noqa: S101 - for the type checker
            return [VerifyingKey(kid=kid, algorithm=algorithm, key=key)]
    return []
