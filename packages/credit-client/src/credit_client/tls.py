"""TLS to the server: its files, the requirements on the handshake, and its failures.

TLS 1.3 and HTTP/2 by ALPN (RFC 9113 section 3.2), or no connection. Certificates are always
verified, the server's name too.
"""

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

_log = logging.getLogger(__name__)

_HTTP2 = "h2"

# https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/ has the numbers.
_NOT_YET_VALID = 9
_EXPIRED = 10
_OTHER_NAME = {62, 64}  # a host name, an IP address
_NO_TRUSTED_CA = {2, 18, 19, 20, 21}

_ADVICE = {
    "WRONG_VERSION_NUMBER": "the server does not speak TLS at this port: connect without `tls`,"
    " or to its TLS port",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the server does not offer TLS 1.3, which is required",
    "UNSUPPORTED_PROTOCOL": "the server does not offer TLS 1.3, which is required",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the server does not speak HTTP/2 at this port (ALPN)",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server requires a client certificate: give"
    " `client_certificate` and `client_key`",
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not trust the CA of the client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired: renew it",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the client certificate has been revoked: renew it",
}
_CLIENT_CERTIFICATE_REFUSED = {
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "TLSV1_ALERT_ACCESS_DENIED",
    "TLSV1_ALERT_DECRYPT_ERROR",
}
_RECORD_OF_ANOTHER_PROTOCOL = {"RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}


class HandshakeRefused(OSError):
    """There is a connection, but it is not safe: it was closed before anything was sent."""


class Tls:
    """The certificates that secure connections, read again when one of their files has changed."""

    def __init__(
        self,
        *,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Read the files.

        Args:
            ca: PEM file with the CAs that may sign the server's certificate; None for the system's.
            certificate: PEM file with the client's certificate and its chain; None for none.
            key: PEM file with its key, not encrypted; None if `certificate` holds it too.
            context: Replaces all of these; it will offer HTTP/2.

        Raises:
            ValueError: A file cannot be used; the message names the file and the reason.
        """
        self._ca = ca
        self._certificate = certificate
        self._key = key
        self._given = context is not None
        self._version = self._read_version()
        self._context = context or self._load()
        self._context.set_alpn_protocols([_HTTP2])

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection.

        While changed files cannot be used, as between the writing of a certificate and of its key,
        the certificates from before stay in use.
        """
        if self._given:
            return self._context
        version = self._read_version()
        if version != self._version:
            try:
                context = self._load()
            except ValueError as error:
                _log.warning("the changed TLS files are not used yet: %s", error)
            else:
                context.set_alpn_protocols([_HTTP2])
                self._context, self._version = context, version
        return self._context

    def _read_version(self) -> Sequence[tuple[int, int, int] | None]:
        return [_version(path) for path in (self._ca, self._certificate, self._key)]

    def _load(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:
            why = _why_unusable(error, needed="a certificate in PEM format is needed")
            raise ValueError(f"the CA file {self._ca}: {why}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self._certificate is not None:
            try:
                context.load_cert_chain(self._certificate, self._key, password=_no_passphrase)
            except OSError as error:
                files = " and ".join(str(path) for path in (self._certificate, self._key) if path)
                why = _why_unusable(
                    error, needed="a certificate and its key in PEM format are needed"
                )
                raise ValueError(f"the client certificate in {files}: {why}") from error
        return context


def check_handshake(connection: ssl.SSLObject) -> None:
    """Check a finished handshake.

    Raises:
        HandshakeRefused: It agreed on less than is required.
    """
    if connection.selected_alpn_protocol() != _HTTP2:
        raise HandshakeRefused("the server does not speak HTTP/2 at this port (ALPN)")
    version = connection.version()
    if version != "TLSv1.3":
        raise HandshakeRefused(f"the server agreed on {version}; TLS 1.3 is required")


def problem_of(error: BaseException | None, *, host: str) -> str | None:
    """Return what a failed handshake means and what to do, if a retry would not help.

    Args:
        error: What ended the handshake, or the connection after it: in TLS 1.3 a server looks at
            the client's certificate when the client has finished already.
        host: The server's name in the target.

    Returns:
        None for anything else, such as a connection that was lost in the middle.
    """
    match error:
        case HandshakeRefused():
            return str(error)
        case ssl.SSLCertVerificationError():
            return _certificate_problem(error, host)
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return None
        case ssl.SSLError():
            reason = error.reason or ""
            if reason in _CLIENT_CERTIFICATE_REFUSED:
                return f"the server does not accept the client certificate ({reason})"
            if reason in _RECORD_OF_ANOTHER_PROTOCOL:
                return _ADVICE["WRONG_VERSION_NUMBER"]
            return _ADVICE.get(reason, f"the TLS handshake failed ({reason or error})")
        case _:
            return None


def _certificate_problem(error: ssl.SSLCertVerificationError, host: str) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "the server's certificate has expired: its operator has to renew it"
    if code == _NOT_YET_VALID:
        return "the server's certificate is not valid yet: compare the clocks"
    if code in _OTHER_NAME:
        return f"the server's certificate is made out to another name than {host!r}"
    if code in _NO_TRUSTED_CA:
        return (
            "the server's certificate is signed by no CA that is trusted here: give the file of"
            " its CA as `tls`"
        )
    return f"the server's certificate cannot be trusted: {error.verify_message}"


def _version(path: Path | None) -> tuple[int, int, int] | None:
    try:
        status = None if path is None else path.stat()
    except OSError:
        return None
    return None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)


def _no_passphrase() -> NoReturn:
    # Otherwise OpenSSL would ask for it at the terminal, and block the event loop.
    raise OSError("the key is encrypted; give one without a passphrase")


def _why_unusable(error: OSError, *, needed: str) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key belongs to another certificate"
        if error.reason in {None, "NO_CERTIFICATE_OR_CRL_FOUND"}:  # None: OpenSSL's "PEM lib"
            return needed
        return f"it cannot be used ({error.reason})"
    return error.strerror or str(error)
