"""The server's TLS: version 1.3 and HTTP/2 only, with certificates that may change at run time."""

import ssl
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from credit_server.access.identity import FileUnusable
from credit_server.access.watched_file import WatchedFiles

__all__ = ["ENDS_SOON", "ServerTls", "TlsFiles", "Validity", "open_tls"]

log = structlog.get_logger("credit_server.access")

# How long before a certificate expires the log and the doctor warn of it.
ENDS_SOON = timedelta(days=14)

_OTHERS = stat.S_IROTH | stat.S_IWOTH


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """The files of the server's TLS.

    Attributes:
        certificate: PEM file of the server's certificate and those between it and its CA.
        key: PEM file of its key.
        key_password: File that holds the key's password; None: the key has none.
        client_ca: PEM file of the CAs that sign clients' certificates; None: clients need none.
        client_required: Whether a client must have a certificate, if there is a client CA.
    """

    certificate: Path
    key: Path
    key_password: Path | None = None
    client_ca: Path | None = None
    client_required: bool = True

    def paths(self) -> list[Path]:
        """Return all files."""
        paths = (self.certificate, self.key, self.key_password, self.client_ca)
        return [path for path in paths if path is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Validity:
    """When all certificates of a file are valid.

    Attributes:
        path: The file.
        begins: The latest start.
        ends: The earliest end.
    """

    path: Path
    begins: datetime
    ends: datetime


def open_tls(files: TlsFiles | None) -> "ServerTls | None":
    """Open the TLS of these files, or return None if there are none.

    Raises:
        FileUnusable: A certificate, key or CA cannot be used.
    """
    return None if files is None else ServerTls(files)


class ServerTls:
    """A server's TLS, by its files as they are now, or as they last were usable.

    Attributes:
        context: The context to listen with.
    """

    def __init__(self, files: TlsFiles, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Load the files.

        Args:
            files: What to load.
            clock: Returns seconds that never go back.

        Raises:
            FileUnusable: A certificate, key or CA cannot be used.
        """
        self._loaded = WatchedFiles(files.paths(), lambda: _load(files), clock=clock)
        self.context, _ = self._loaded.current()
        # OpenSSL calls it for every handshake, with or without a server name. Loading into the
        # context that listens would renew a certificate, but could never remove a CA from it.
        self.context.sni_callback = self._choose

    def validities(self) -> tuple[Validity, ...]:
        """Return when the certificates in use are valid: the server's, then the clients' CAs'."""
        _, validities = self._loaded.current()
        return validities

    def _choose(
        self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        handshake.context, _ = self._loaded.current()


def _load(files: TlsFiles) -> tuple[ssl.SSLContext, tuple[Validity, ...]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # A resumed session would skip the check of a client's certificate, which may have expired or
    # lost its CA. Connections live long, so tickets would save little.
    context.num_tickets = 0
    _load_certificate(context, files)
    if files.client_ca is not None:
        _load_client_ca(context, files.client_ca)
        required = files.client_required
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    validities = [_validity(files.certificate, "CREDIT_TLS_CERTIFICATE")]
    if files.client_ca is not None:
        validities.append(_validity(files.client_ca, "CREDIT_TLS_CLIENT_CA"))
    return context, tuple(validities)


def _validity(path: Path, setting: str) -> Validity:
    # Imported here, so that a server without TLS starts faster: x509 takes 50 ms of CPU.
    from cryptography import x509  # noqa: PLC0415

    try:
        chain = x509.load_pem_x509_certificates(_read(path, setting).encode())
    except ValueError as error:
        # OpenSSL has loaded it, but a certificate that no strict parser accepts fails in some
        # clients.
        raise FileUnusable(f"{path} has a malformed certificate: {error}.") from None
    return Validity(
        path=path,
        begins=max(one.not_valid_before_utc for one in chain),
        ends=min(one.not_valid_after_utc for one in chain),
    )


def _load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    _read(files.certificate, "CREDIT_TLS_CERTIFICATE")
    _read(files.key, "CREDIT_TLS_KEY")
    # An empty one if there is none: otherwise OpenSSL would prompt for it at the terminal.
    password = (
        ""
        if files.key_password is None
        else _read(files.key_password, "CREDIT_TLS_KEY_PASSWORD_FILE").strip()
    )
    try:
        context.load_cert_chain(files.certificate, files.key, password=lambda: password)
        mode = stat.S_IMODE(files.key.stat().st_mode)
    except (ssl.SSLError, ValueError) as error:
        # OpenSSL's reason, such as KEY_VALUES_MISMATCH. ValueError: the password is too long.
        reason = str(getattr(error, "reason", None) or "password too long")
        reason = reason.replace("_", " ").lower()
        raise FileUnusable(
            f"The certificate {files.certificate} and the key {files.key} cannot be used together"
            f" ({reason}): check that both are PEM, that they are a pair, and that an encrypted key"
            " has its password in CREDIT_TLS_KEY_PASSWORD_FILE."
        ) from None
    except OSError as error:
        raise FileUnusable(
            f"CREDIT_TLS_KEY {files.key} cannot be read: {error.strerror}."
        ) from None
    if mode & _OTHERS:
        log.warning(
            "the TLS key is open to all users of this machine: chmod o= it", path=str(files.key)
        )


def _load_client_ca(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cadata=_read(path, "CREDIT_TLS_CLIENT_CA"))
    except (ssl.SSLError, ValueError):
        raise FileUnusable(f"{path} holds no CA certificates: it must be PEM.") from None
    if not context.get_ca_certs():
        raise FileUnusable(f"{path} holds no CA certificate: a client's own is not one.")


def _read(path: Path, setting: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileUnusable(f"{setting} {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise FileUnusable(
            f"{setting} {path} is not UTF-8 text: certificates and keys must be PEM."
        ) from None
