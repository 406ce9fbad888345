"""Check the files that prove identities: certificates, keys of tokens, and client identities."""

import stat
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from credit_server.access import FileUnusable, open_tls
from credit_server.access.certificates import identity_parser
from credit_server.access.keys import VerifyingKey, is_pem, parse_keys
from credit_server.access.tls import ENDS_SOON
from credit_server.access.watched_file import WatchedFile
from credit_server.doctor.report import Finding, Verdict, counted, fails, ok, warning
from credit_server.doctor.subject import Subject

_CERTIFICATE = "TLS certificate"
_CLIENT_CA = "TLS client CA"

_RSA_BITS_MIN = 2048
_CURVE_BITS_MIN = 256


def check_certificate(subject: Subject) -> Iterator[Finding]:
    """Check the server's certificate and the certificates of its issuers."""
    path = subject.settings.tls_certificate
    if path is None or subject.settings.tls_key is None:
        return
    chain = _load_chain(_CERTIFICATE, path)
    if isinstance(chain, Finding):
        yield chain
        return
    leaf = chain[0]
    faults = [
        *(fault for one in chain for fault in _lifetime(_CERTIFICATE, path, one, subject.now)),
        *_names(path, leaf),
        *_strength(_CERTIFICATE, path, leaf),
    ]
    expires = f"{leaf.not_valid_after_utc:%Y-%m-%d}"
    yield from faults or [ok(_CERTIFICATE, f"{path} is valid until {expires}")]


def check_private_key(subject: Subject) -> Iterator[Finding]:
    """Check that the private key is the certificate's, and that only its owner can read it."""
    check, path = "TLS key", subject.settings.tls_key
    certificate = subject.settings.tls_certificate
    if path is None or certificate is None:
        return
    chain = _load_chain(_CERTIFICATE, certificate)
    if isinstance(chain, Finding):
        return
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        yield fails(check, f"{path} cannot be read: {error.strerror}", "correct CREDIT_TLS_KEY")
        return
    except TypeError:
        # The key needs a password. `check_tls` opens it as the server does.
        encrypted = ok(check, f"{path} is encrypted; its content was not checked")
        yield readable_by_others(path, check) or encrypted
        return
    except ValueError:
        yield fails(check, f"{path} is not a private key in PEM", "correct CREDIT_TLS_KEY")
        return
    if _spki(key.public_key()) != _spki(chain[0].public_key()):
        yield fails(
            check,
            f"{path} is not the key of the certificate",
            "set CREDIT_TLS_CERTIFICATE and CREDIT_TLS_KEY to the files of one pair",
        )
        return
    yield readable_by_others(path, check) or ok(check, f"{path} is the key of the certificate")


def check_client_ca(subject: Subject) -> Iterator[Finding]:
    """Check the certificates of the authorities that issue clients' certificates."""
    path = subject.settings.tls_client_ca
    if path is None:
        return
    chain = _load_chain(_CLIENT_CA, path)
    if isinstance(chain, Finding):
        yield chain
        return
    faults = [
        fault
        for authority in chain
        for fault in (
            *_lifetime(_CLIENT_CA, path, authority, subject.now),
            *_authority(path, authority),
            *_strength(_CLIENT_CA, path, authority),
        )
    ]
    certificates = counted(len(chain), "valid certificate")
    yield from faults or [ok(_CLIENT_CA, f"{path} has {certificates}")]


def check_token_keys(subject: Subject) -> Iterator[Finding]:
    """Check the public keys that verify tokens.

    Keys for algorithms that the server does not accept, such as an identity provider's key for
    encryption, are ignored, as the server does.
    """
    path = subject.settings.token_keys
    if path is None:
        return
    check = "token keys"
    parse = partial(_parse_token_keys, algorithms=subject.settings.token_algorithms)
    try:
        pem, keys = WatchedFile(path, parse, setting="CREDIT_TOKEN_KEYS").current()
    except FileUnusable as error:
        remedy = "set a PEM file of public keys, or a JWKS file with a public key for signatures"
        yield fails(check, str(error), remedy)
        return
    faults = []
    if not pem and any(key.kid is None for key in keys):
        faults.append(
            warning(
                check,
                f"{path} has a key without an id, so no new key can be added beside it",
                "give each key a `kid`, and set it in the header of the tokens",
            )
        )
    changeable = changeable_by_others(path, check)
    if changeable is not None:
        faults.append(changeable)
    algorithms = ", ".join(sorted({key.algorithm for key in keys}))
    public_keys = counted(len(keys), "public key")
    yield from faults or [ok(check, f"{path} has {public_keys} for {algorithms}")]


def check_identities(subject: Subject) -> Iterator[Finding]:
    """Check the file of what the owners of client certificates may do."""
    path = subject.settings.identities_file
    if path is None:
        return
    check = "identities"
    try:
        owners = WatchedFile(
            path, identity_parser(path), setting="CREDIT_IDENTITIES_FILE"
        ).current()
    except FileUnusable as error:
        yield fails(check, str(error), "correct the file; no server starts with it")
        return
    listed = ok(check, f"{path} lists {counted(len(owners), 'owner')} of certificates")
    yield changeable_by_others(path, check) or listed


def check_tls(subject: Subject) -> Iterator[Finding]:
    """Open TLS as a server does when it starts: it rejects more than the checks above.

    Nothing is opened if one of them fails: the same fault would be reported twice.
    """
    above = (
        check_certificate,
        check_private_key,
        check_client_ca,
        check_token_keys,
        check_identities,
    )
    if any(found.verdict is Verdict.FAILS for check in above for found in check(subject)):
        return
    try:
        open_tls(subject.settings.tls_files)
    except FileUnusable as error:
        yield fails("TLS", str(error), "correct the file; no server starts with it")
        return
    password = subject.settings.tls_key_password_file
    exposed = None if password is None else readable_by_others(password, "TLS key password")
    if exposed is not None:
        yield exposed


def readable_by_others(path: Path, check: str) -> Finding | None:
    """Return a warning if other users than its owner can read or change a secret file."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        return None
    return warning(
        check, f"other users can access {path} (mode {mode:04o})", f"run: chmod 600 {path}"
    )


def changeable_by_others(path: Path, check: str) -> Finding | None:
    """Return a failure if other users than its owner can change a file that grants rights."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o022:
        return None
    return fails(
        check,
        f"other users can change {path} (mode {mode:04o}), and with it what callers may do",
        f"run: chmod go-w {path}",
    )


def _load_chain(check: str, path: Path) -> list[x509.Certificate] | Finding:
    remedy = "set a file of PEM certificates that the server can read"
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        return fails(check, f"{path} cannot be read: {error.strerror}", remedy)
    except ValueError:
        return fails(check, f"{path} has no certificate in PEM", remedy)


def _lifetime(check: str, path: Path, one: x509.Certificate, now: datetime) -> Iterator[Finding]:
    subject = one.subject.rfc4514_string() or "certificate without a subject"
    begins, ends = one.not_valid_before_utc, one.not_valid_after_utc
    renew = "renew it; a running server loads the new files without a restart"
    if now < begins:
        yield fails(
            check,
            f"{path}: {subject} is not valid before {begins:%Y-%m-%d %H:%M}Z",
            "check this machine's clock, or wait",
        )
    elif now >= ends:
        yield fails(check, f"{path}: {subject} expired on {ends:%Y-%m-%d}", renew)
    elif ends - now < ENDS_SOON:
        days = counted((ends - now).days, "day")
        yield warning(check, f"{path}: {subject} expires in {days}", renew)


def _names(path: Path, leaf: x509.Certificate) -> Iterator[Finding]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = list(extension.value)
    except x509.ExtensionNotFound:
        names = []
    if not names:
        yield fails(
            _CERTIFICATE,
            f"{path} has no subject alternative name, so clients reject it",
            "issue it with the DNS names and addresses that clients use",
        )


def _strength(check: str, path: Path, one: x509.Certificate) -> Iterator[Finding]:
    faults = []
    weak = _weakness(one.public_key())
    if weak:
        faults.append(f"its key is {weak}")
    algorithm = one.signature_hash_algorithm
    # A root is not trusted because of its own signature.
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1) and one.issuer != one.subject:
        faults.append(f"it is signed with {algorithm.name}")
    if faults:
        yield fails(check, f"{path}: {' and '.join(faults)}", "issue it again with a strong key")


def _weakness(key: PublicKeyTypes) -> str:
    """Return why a public key is too weak; empty if it is not."""
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


def _authority(path: Path, one: x509.Certificate) -> Iterator[Finding]:
    try:
        issues = one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        issues = False
    if not issues:
        yield fails(
            _CLIENT_CA,
            f"{path}: {one.subject.rfc4514_string()} is not a certificate authority",
            "set the file of the authority, not that of a client",
        )


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _parse_token_keys(
    data: bytes, algorithms: Sequence[str]
) -> tuple[bool, tuple[VerifyingKey, ...]]:
    """Return whether a file is PEM, whose keys have no ids, and its keys."""
    return is_pem(data), parse_keys(data, algorithms).keys
