"""Keys that tokens are verified with: public, strong, and told apart by their ids."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from credit_server.doctor.certificates import weakness
from credit_server.doctor.finding import Finding, fails, ok, warning
from credit_server.doctor.permissions import changeable_by_others

_CHECK = "token keys"
_REMEDY = "it must be a PEM file of one public key, or a JWKS file of public keys"

_SYMMETRIC = "oct"
# RFC 7518, sections 6.2.2, 6.3.2 and 6.4, and RFC 8037: what only a private key has.
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def check_token_keys(path: Path) -> list[Finding]:
    """Judge the file of public keys.

    Args:
        path: A PEM file of one public key, or a JSON Web Key Set.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        return [fails(_CHECK, f"{path} cannot be read: {error.strerror}", _REMEDY)]
    faults = _key_set(path, content) if content.lstrip()[:1] == b"{" else _pem(path, content)
    changeable = changeable_by_others(path, _CHECK)
    if changeable is not None:
        faults.append(changeable)
    return faults or [ok(_CHECK, f"{path} has public keys only, and strong ones")]


def _pem(path: Path, content: bytes) -> list[Finding]:
    if b"PRIVATE KEY" in content:
        return [_private(path)]
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        return [fails(_CHECK, f"{path} has no public key in PEM", _REMEDY)]
    weak = weakness(key)
    return [_weak(path, weak)] if weak else []


def _key_set(path: Path, content: bytes) -> list[Finding]:
    try:
        keys = json.loads(content)["keys"]
    except (ValueError, KeyError):
        return [fails(_CHECK, f"{path} is not a JSON Web Key Set", _REMEDY)]
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        return [fails(_CHECK, f"{path} has no keys", _REMEDY)]
    return [*_ids(path, keys), *(finding for key in keys for finding in _key(path, key))]


def _ids(path: Path, keys: list[Mapping[str, object]]) -> list[Finding]:
    ids = [key.get("kid") for key in keys]
    if not all(isinstance(kid, str) and kid for kid in ids):
        return [
            warning(
                _CHECK,
                f"{path} has keys without an id: keys cannot be changed without refusing tokens",
                "give each key a `kid`, and put it into the header of the tokens",
            )
        ]
    twice = [str(kid) for kid, count in Counter(ids).items() if count > 1]
    if twice:
        return [fails(_CHECK, f"{path} has ids twice: {', '.join(twice)}", "make them differ")]
    return []


def _key(path: Path, key: Mapping[str, object]) -> list[Finding]:
    if key.get("kty") == _SYMMETRIC or _PRIVATE_MEMBERS & key.keys():
        return [_private(path)]
    try:
        public = PyJWK(dict(key)).key
    except (PyJWTError, ValueError):
        return [fails(_CHECK, f"{path}: the key {key.get('kid')} is not valid", _REMEDY)]
    weak = weakness(public)
    return [_weak(path, weak)] if weak else []


def _private(path: Path) -> Finding:
    return fails(
        _CHECK,
        f"{path} has a private key: whoever reads it makes tokens that are believed",
        "keep that key where tokens are made, take it for known, and put its public part here",
    )


def _weak(path: Path, weak: str) -> Finding:
    return fails(_CHECK, f"{path} has a key that is {weak}", "use ES256, EdDSA or RSA of 2048 bits")
