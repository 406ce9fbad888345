"""Whether a server can be called at all, and what to do if not."""

import contextlib
import socket
import ssl

from grpc_fuzz.target import Target
from grpc_fuzz.wire.connection import connect

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEADER_BYTES = 9
_SETTINGS_TYPE = 4
_ALERT = (b"\x15\x03",)
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})


def why_unreachable(target: Target, seconds: float) -> str | None:
    """Return why no gRPC call can be made to a server, or None if the server speaks HTTP/2.

    Args:
        target: The server.
        seconds: The limit on connecting, and on the server's first bytes.
    """
    try:
        opened = connect(target, seconds)
    except OSError as error:
        return _why_no_connection(error, target, seconds)
    with contextlib.closing(opened):
        try:
            opened.settimeout(seconds)
            opened.sendall(_PREFACE + _SETTINGS)
            return _why_not_http2(_first_bytes(opened), target)
        except TimeoutError:
            return f"{target} accepts the connection but sends nothing within {seconds:g} s"
        except OSError as error:
            return _why_ended(error, target)


def _first_bytes(opened: socket.socket) -> bytes:
    data = b""
    while len(data) < _FRAME_HEADER_BYTES:
        part = opened.recv(4096)
        if not part:
            break
        data += part
    return data


def _why_not_http2(data: bytes, target: Target) -> str | None:
    if data.startswith(_ALERT):
        return f"{target} speaks TLS; add --tls, or --tls-ca with the certificates to trust"
    if data.startswith(b"HTTP/1"):
        return f"{target} speaks HTTP/1 and not HTTP/2: this is not the gRPC port"
    if not data:
        # Servers on OpenSSL send a TLS alert. Others close the connection.
        tls = " It may speak TLS: add --tls or --tls-ca." if target.tls is None else ""
        return f"{target} closes the connection at once, without an HTTP/2 response.{tls}"
    if len(data) < _FRAME_HEADER_BYTES or data[3] != _SETTINGS_TYPE:
        return f"{target} does not speak HTTP/2: this is not the gRPC port"
    return None


def _why_no_connection(error: OSError, target: Target, seconds: float) -> str:
    match error:
        case socket.gaierror():
            return f"{target}: the name {target.host!r} cannot be resolved ({error.strerror})"
        case ssl.SSLError():
            return _why_no_tls(error, target)
        case TimeoutError():
            return f"{target}: no connection within {seconds:g} s. Check firewalls in between."
        case ConnectionRefusedError():
            return f"{target} does not answer: nothing listens there. Check that the server runs."
        case FileNotFoundError() if target.socket is not None:
            return f"{target} does not answer: there is no such socket. Check that the server runs."
        case ConnectionResetError() if target.tls is not None:
            return f"{target} ends the TLS handshake. Check that it speaks TLS."
    return f"{target} cannot be reached: {error.strerror or error}"


def _why_no_tls(error: ssl.SSLError, target: Target) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"{target}: its certificate is not trusted: {error.verify_message}. Name the"
            " certificates to trust with --tls-ca, or the name to expect with --tls-server-name"
        )
    if error.reason in _NOT_TLS or isinstance(error, ssl.SSLEOFError):
        return f"{target} does not speak TLS; leave out --tls and the other --tls-… options"
    return f"{target}: the TLS handshake fails: {error.reason or error}"


def _why_ended(error: OSError, target: Target) -> str:
    if isinstance(error, ssl.SSLError) and "CERTIFICATE" in (error.reason or ""):
        return (
            f"{target} requires a client certificate, or another one; name it with"
            " --tls-certificate and --tls-key"
        )
    if target.tls is None:
        return f"{target} ends the connection: {error.strerror}. It may speak TLS: add --tls"
    return (
        f"{target} ends the connection after the TLS handshake: {error.strerror or error}."
        " It may require a client certificate: add --tls-certificate and --tls-key"
    )
