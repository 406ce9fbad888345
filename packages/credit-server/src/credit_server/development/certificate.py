"""Makes a CA for development, with a certificate for a server on this machine and for a client.

trustme, which the tests use, is not enough here: it cannot make the SPIFFE names of clients, and
certificates must be found again and checked in any case. So this needs `cryptography` alone, which
the server needs too.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from credit_server.access import FileUnusable
from credit_server.development.files import (
    PUBLIC,
    SECRET,
    all_exist,
    remedy,
    write_new_file,
)

_HOSTS = (
    x509.DNSName("localhost"),
    x509.IPAddress(ip_address("127.0.0.1")),
    x509.IPAddress(ip_address("::1")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateFiles:
    """Where the certificates are. Beside `server.pem` and `client.pem` are their `*-key.pem`.

    Attributes:
        ca: The CA's certificate. Its key is not kept, so that it can sign nothing more.
        server: The server's certificate, for localhost, 127.0.0.1 and ::1.
        client: The client's certificate.
    """

    ca: Path
    server: Path
    client: Path

    @classmethod
    def within(cls, directory: Path) -> Self:
        """Return the files of a directory."""
        return cls(
            ca=directory / "ca.pem",
            server=directory / "server.pem",
            client=directory / "client.pem",
        )

    def all(self) -> list[Path]:
        """Return all of them, with their keys."""
        return [self.ca, self.server, key_of(self.server), self.client, key_of(self.client)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Authority:
    """A CA that signs certificates, all for the same time."""

    name: x509.Name
    key: EllipticCurvePrivateKey
    begins: datetime
    ends: datetime

    def sign(
        self,
        name: x509.Name,
        key: EllipticCurvePrivateKey,
        *extensions: tuple[x509.ExtensionType, bool],
    ) -> bytes:
        """Return a certificate in PEM. Each extension comes with whether it is critical."""
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = (
            x509.CertificateBuilder()
            .issuer_name(self.name)
            .subject_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.begins)
            .not_valid_after(self.ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(authority, False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM)


def make_certificates(
    directory: Path, *, client: str, days: float, now: datetime | None = None
) -> CertificateFiles:
    """Make a CA, a server's certificate and a client's, each with its key.

    Args:
        directory: Where the files go.
        client: The name in the client's certificate: a SPIFFE id, or a common name.
        days: How long they are valid.
        now: When they begin; None: now.

    Raises:
        FileUnusable: One of the files exists, or cannot be written.
    """
    now = now or datetime.now(UTC)
    authority = _Authority(
        name=_named("credit development CA"),
        key=generate_private_key(SECP256R1()),
        begins=now - timedelta(minutes=5),  # clocks differ
        ends=now + timedelta(days=days),
    )
    files = CertificateFiles.within(directory)
    ca = authority.sign(
        authority.name,
        authority.key,
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage(signs_certificates=True), True),
    )
    write_new_file(files.ca, ca, PUBLIC)
    names: list[x509.GeneralName] = []
    if client.startswith("spiffe://"):
        names, client = [x509.UniformResourceIdentifier(client)], client.rpartition("/")[2]
    _write_end(authority, files.server, "localhost", list(_HOSTS), ExtendedKeyUsageOID.SERVER_AUTH)
    _write_end(authority, files.client, client, names, ExtendedKeyUsageOID.CLIENT_AUTH)
    return files


def find_certificates(
    directory: Path, *, client: str | None, now: datetime | None = None
) -> CertificateFiles | None:
    """Find the certificates that were made in a directory earlier.

    Args:
        directory: The directory.
        client: The name that the client's certificate must have; None: any.
        now: When they must be valid; None: now.

    Returns:
        The files; None: there are none.

    Raises:
        FileUnusable: Some of the files are missing, one of them cannot be read, they do not belong
            together, they have ended, or the client's certificate has another name.
    """
    files = CertificateFiles.within(directory)
    if not all_exist(files.all()):
        return None
    fault = _fault(files, client, now or datetime.now(UTC))
    if fault:
        raise FileUnusable(f"{fault}: {remedy(files.all())}")
    return files


def end_of(certificate: Path) -> datetime:
    """Return when a certificate ends."""
    return _read(certificate).not_valid_after_utc


def key_of(certificate: Path) -> Path:
    """Return the file of a certificate's key."""
    return certificate.with_name(f"{certificate.stem}-key.pem")


def _fault(files: CertificateFiles, client: str | None, now: datetime) -> str:
    """Return why the files cannot be used; empty if they can."""
    path = files.ca
    try:
        authority = _read(path)
        for end in (files.server, files.client):
            path = end
            certificate = _read(path)
            certificate.verify_directly_issued_by(authority)
            if now >= certificate.not_valid_after_utc:
                return f"{path} ended {certificate.not_valid_after_utc:%Y-%m-%d}"
            path = key_of(end)
            key = load_pem_private_key(path.read_bytes(), password=None)
            if key.public_key() != certificate.public_key():
                return f"{path} is not the key of {end}"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    except InvalidSignature:
        return f"{path} is not signed by {files.ca}"
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return f"{path} does not hold what was written to it"
    owner = _owner(_read(files.client))
    return "" if client in (None, owner) else f"{files.client} is made out to {owner}"


def _owner(certificate: x509.Certificate) -> str:
    """Return the name in a client's certificate, as it was given to `make_certificates`."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name.value)
    return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


def _read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _write_end(
    authority: _Authority,
    path: Path,
    name: str,
    names: list[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
) -> None:
    key = generate_private_key(SECP256R1())
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([purpose]), False),
    ]
    if names:
        extensions.append((x509.SubjectAlternativeName(names), False))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_new_file(key_of(path), pem, SECRET)
    write_new_file(path, authority.sign(_named(name), key, *extensions), PUBLIC)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
