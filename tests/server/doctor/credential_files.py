"""Certificates and keys for tests, made in a folder."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from credit_testing.certificates import PrivateKey, self_signed
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def certificate(
    key: PrivateKey,
    *,
    begins: datetime = NOW - timedelta(days=1),
    ends: datetime = NOW + timedelta(days=90),
    names: tuple[str, ...] = ("localhost",),
    authority: bool = False,
    algorithm: hashes.SHA256 | hashes.SHA384 = hashes.SHA256(),  # noqa: B008 - it has no state
) -> bytes:
    """Make a certificate that its own key has signed, as PEM."""
    return self_signed(
        key, begins=begins, ends=ends, names=names, authority=authority, algorithm=algorithm
    )


def public_pem(key: PrivateKey) -> bytes:
    """A public key as PEM."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def public_jwk(key: ec.EllipticCurvePrivateKey, kid: str | None) -> dict[str, object]:
    """A public key as a JSON Web Key."""
    jwk: dict[str, object] = json.loads(ECAlgorithm.to_jwk(key.public_key()))
    return jwk if kid is None else {**jwk, "kid": kid}


def private_jwk(key: ec.EllipticCurvePrivateKey, kid: str) -> dict[str, object]:
    """A private key as a JSON Web Key."""
    return {**json.loads(ECAlgorithm.to_jwk(key)), "kid": kid}


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a file with permissions."""
    path.write_bytes(content)
    path.chmod(mode)
    return path
