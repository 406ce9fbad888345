"""Certificates: do the TLS files parse, fit together, and last?"""

from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes,
    PublicKeyTypes,
)

from credit_server.access.tls import ENDS_SOON
from credit_server.doctor.finding import Finding, fails, ok, warning
from credit_server.doctor.permissions import readable_by_others

_RSA_BITS_MIN = 2048
_CURVE_BITS_MIN = 256


def check_certificate(certificate: Path, key: Path, *, now: datetime) -> list[Finding]:
    """Judge the server's certificate and private key.

    Args:
        certificate: A PEM file with the certificate first, and what it was issued by after it.
        key: A PEM file with its private key.
        now: The time, with its zone.
    """
    check = "TLS certificate"
    chain = _load_chain(check, certificate)
    if isinstance(chain, Finding):
        return [chain]
    leaf = chain[0]
    faults = [
        *(finding for one in chain for finding in _lifetime(check, certificate, one, now)),
        *_names(check, certificate, leaf),
        *_strength(check, certificate, leaf),
    ]
    well = ok(check, f"{certificate} is valid until {leaf.not_valid_after_utc:%Y-%m-%d}")
    return [*(faults or [well]), check_private_key(key, leaf.public_key())]


def check_client_authority(path: Path, *, now: datetime) -> list[Finding]:
    """Judge the certificates that clients' own must have been issued by."""
    check = "TLS client CA"
    chain = _load_chain(check, path)
    if isinstance(chain, Finding):
        return [chain]
    faults = [
        finding
        for authority in chain
        for finding in (
            *_lifetime(check, path, authority, now),
            *_authority(check, path, authority),
            *_strength(check, path, authority),
        )
    ]
    return faults or [ok(check, f"{path} has {len(chain)} certificates, all valid")]


def check_private_key(path: Path, public_key: CertificatePublicKeyTypes) -> Finding:
    """Judge a private key: whether it is the certificate's, and its owner's alone."""
    check = "TLS key"
    try:
        content = path.read_bytes()
        key = serialization.load_pem_private_key(content, None)
    except OSError as error:
        return fails(check, f"{path} cannot be read: {error.strerror}", "see CREDIT_TLS_KEY")
    except TypeError:
        # A passphrase is needed, and the server alone is told it.
        return readable_by_others(path, check) or ok(check, f"{path} is encrypted; not looked into")
    except ValueError:
        return fails(check, f"{path} is not a private key in PEM", "see CREDIT_TLS_KEY")
    if _spki(key.public_key()) != _spki(public_key):
        return fails(
            check,
            f"{path} is not the key of the certificate",
            "set CREDIT_TLS_CERTIFICATE and CREDIT_TLS_KEY to files of one pair",
        )
    return readable_by_others(path, check) or ok(check, f"{path} is the key of the certificate")


def weakness(key: PublicKeyTypes) -> str:
    """Say why a public key is too weak to rely on; empty when it is not."""
    match key:
        case rsa.RSAPublicKey():
            return f"RSA of {key.key_size} bits" if key.key_size < _RSA_BITS_MIN else ""
        case ec.EllipticCurvePublicKey():
            return f"a curve of {key.key_size} bits" if key.key_size < _CURVE_BITS_MIN else ""
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return ""
        case dsa.DSAPublicKey():
            return "DSA"
        case _:
            return "of a kind that does not sign"


def _load_chain(check: str, path: Path) -> list[x509.Certificate] | Finding:
    remedy = "it must be a file of PEM certificates that the server may read"
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        return fails(check, f"{path} cannot be read: {error.strerror}", remedy)
    except ValueError:
        return fails(check, f"{path} has no certificate in PEM", remedy)


def _lifetime(check: str, path: Path, one: x509.Certificate, now: datetime) -> list[Finding]:
    subject = one.subject.rfc4514_string() or "without a subject"
    renew = "renew it; a server that runs takes the new files without a restart"
    if now < one.not_valid_before_utc:
        return [
            fails(
                check,
                f"{path}: {subject} is not valid before {one.not_valid_before_utc:%Y-%m-%d %H:%M}Z",
                "see this machine's clock, or wait",
            )
        ]
    if now >= one.not_valid_after_utc:
        return [fails(check, f"{path}: {subject} ended {one.not_valid_after_utc:%Y-%m-%d}", renew)]
    if one.not_valid_after_utc - now < ENDS_SOON:
        left = (one.not_valid_after_utc - now).days
        return [warning(check, f"{path}: {subject} ends in {left} days", renew)]
    return []


def _names(check: str, path: Path, leaf: x509.Certificate) -> list[Finding]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = list(extension.value)
    except x509.ExtensionNotFound:
        names = []
    if names:
        return []
    return [
        fails(
            check,
            f"{path} has no subject alternative name, and no client looks at anything else",
            "have it issued with the DNS names and addresses that clients use",
        )
    ]


def _strength(check: str, path: Path, one: x509.Certificate) -> list[Finding]:
    faults = []
    weak = weakness(one.public_key())
    if weak:
        faults.append(f"its key is {weak}")
    algorithm = one.signature_hash_algorithm
    # A root's own signature is not what it is trusted for.
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1) and one.issuer != one.subject:
        faults.append(f"it is signed with {algorithm.name}")
    if not faults:
        return []
    return [fails(check, f"{path}: {' and '.join(faults)}", "have it issued anew")]


def _authority(check: str, path: Path, one: x509.Certificate) -> list[Finding]:
    try:
        issues = one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        issues = False
    if issues:
        return []
    return [
        fails(
            check,
            f"{path}: {one.subject.rfc4514_string()} is not a certificate authority's",
            "name the file of the authority, not that of a client",
        )
    ]


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
