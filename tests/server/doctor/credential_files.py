"""Certificates and keys for tests, made in a folder."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def private_key() -> ec.EllipticCurvePrivateKey:
    """A strong key."""
    return ec.generate_private_key(ec.SECP256R1())


def certificate(
    key: PrivateKey,
    *,
    begins: datetime = NOW - timedelta(days=1),
    ends: datetime = NOW + timedelta(days=90),
    names: tuple[str, ...] = ("localhost",),
    authority: bool = False,
    algorithm: hashes.SHA256 | hashes.SHA384 = hashes.SHA256(),  # noqa: B008 - it has no state
) -> bytes:
    """A certificate that its own key has signed, as PEM."""
    subject = x509.Name.from_rfc4514_string("CN=credit")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def private_pem(key: PrivateKey, password: bytes | None = None) -> bytes:
    """A private key as PEM."""
    encryption = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password)
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
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
