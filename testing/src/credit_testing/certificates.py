"""Make certificates for tests: an authority and what it signs, and self-signed ones."""

import datetime as dt
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


@dataclass(kw_only=True)
class Authority:
    """A certificate authority.

    Attributes:
        folder: Where its files are written.
        name: What it is called.
        file: Its own certificate.
    """

    folder: Path
    name: str = "test CA"
    file: Path = field(init=False)
    _issued: int = 0

    def __post_init__(self) -> None:
        """Write the certificate of the authority."""
        self.folder.mkdir(exist_ok=True)
        self._ca = trustme.CA(organization_name=self.name)
        self.file = self.folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, *names: str, days: int = 30, passphrase: bytes | None = None) -> Issued:
        """Sign a certificate for servers and clients.

        Args:
            names: Host names and IP addresses; the first is the common name too.
            days: For how long it is valid; below 0, it has expired.
            passphrase: Encrypts the key.
        """
        self._issued += 1
        made = self._ca.issue_cert(
            *names, common_name=names[0], not_after=dt.datetime.now(dt.UTC) + days * _DAY
        )
        issued = Issued(
            certificate=self.folder / f"{self._issued}.pem",
            key=self.folder / f"{self._issued}.key",
        )
        made.cert_chain_pems[0].write_to_path(issued.certificate)
        key = load_pem_private_key(made.private_key_pem.bytes(), None)
        assert isinstance(key, PrivateKey)
        issued.key.touch(mode=0o600)  # as the server wants it
        issued.key.write_bytes(private_pem(key, passphrase))
        return issued


def self_signed(
    key: PrivateKey,
    *,
    begins: dt.datetime | None = None,
    ends: dt.datetime | None = None,
    names: tuple[str, ...] = ("localhost",),
    authority: bool = False,
    algorithm: hashes.SHA256 | hashes.SHA384 = hashes.SHA256(),  # noqa: B008 - it has no state
) -> bytes:
    """Make a certificate that its own key has signed, as PEM; by default it holds for a day.

    trustme makes none: its certificates are signed by an authority, and their dates and
    algorithms cannot be chosen.
    """
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name.from_rfc4514_string("CN=credit")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins or now - _DAY)
        .not_valid_after(ends or now + _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


def private_key() -> ec.EllipticCurvePrivateKey:
    """Make a strong key."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """Return a private key as PEM, encrypted where there is a passphrase."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)
