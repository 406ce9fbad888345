"""The address of the server under test, and how to connect to it."""

from dataclasses import dataclass
from pathlib import Path

_FORM = "give HOST:PORT, such as localhost:50051 or [::1]:50051, or unix:/path/to/socket"
_PORTS = range(1, 65536)
# The schemes of gRPC's naming document that name a host and a port. The system resolves the name,
# and every address of the name is tried.
_HOST_SCHEMES = ("dns:///", "dns:", "passthrough:///", "ipv4:", "ipv6:")
_UNIX, _ABSTRACT = "unix:", "unix-abstract:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """The TLS settings of the connection.

    Attributes:
        ca: The PEM file of the certificates to trust; None to trust those of the system.
        certificate: The PEM file of the client certificate, if the server requires one.
        key: The PEM file of the key of the client certificate.
        server_name: The name to expect in the server's certificate, if it is not the host.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The address of a server.

    Attributes:
        host: A name or an address; IPv6 without brackets. "localhost" for a Unix socket.
        port: 1 to 65535; 0 for a Unix socket.
        tls: The TLS settings; None for plaintext.
        socket: The path of a Unix socket, or NUL and a name for one in Linux's abstract namespace;
            None for TCP.
    """

    host: str
    port: int
    tls: Tls | None = None
    socket: str | None = None

    @classmethod
    def parse(cls, text: str, tls: Tls | None = None) -> "Target":
        """Parse "host:port", "[address]:port", "dns:///host:port" or "unix:/path".

        Raises:
            ValueError: The text is none of them. The message names the right form.
        """
        if text.startswith(_ABSTRACT):
            return cls._on_socket(text, "\0" + text.removeprefix(_ABSTRACT), tls)
        if text.startswith(_UNIX):
            path = text.removeprefix(_UNIX)
            return cls._on_socket(text, path.removeprefix("//"), tls)
        host, port = _host_and_port(text)
        return cls(host=host, port=port, tls=tls)

    @classmethod
    def _on_socket(cls, text: str, path: str, tls: Tls | None) -> "Target":
        if not path.strip("\0"):
            raise ValueError(f"{text!r} names no socket: {_FORM}")
        return cls(host="localhost", port=0, tls=tls, socket=path)

    @property
    def authority(self) -> str:
        """The `:authority` of calls."""
        if self.socket is not None:
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        if self.socket is None:
            return self.authority
        if self.socket.startswith("\0"):
            return f"{_ABSTRACT}{self.socket[1:]}"
        return f"{_UNIX}{self.socket}"


def _host_and_port(text: str) -> tuple[str, int]:
    plain = text
    for scheme in _HOST_SCHEMES:
        if text.startswith(scheme):
            plain = text.removeprefix(scheme)
            break
    if "/" in plain:
        raise ValueError(f"{text!r} {_why_not(text)}: {_FORM}")
    host, separator, port = plain.rpartition(":")
    if plain.startswith("[") and plain.endswith("]"):
        host, separator, port = plain, "", ""
    if not separator or not host or not port:
        raise ValueError(f"{text!r} has no port: {_FORM}")
    if not (port.isascii() and port.isdecimal()):
        raise ValueError(f"{text!r} is not host:port: {_FORM}")
    if int(port) not in _PORTS:
        raise ValueError(f"{text!r}: the port must be 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address needs brackets; {_FORM}")
    if not host:
        raise ValueError(f"{text!r} has no host: {_FORM}")
    return host, int(port)


def _why_not(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    if not separator:
        return "is not host:port"
    if scheme == "https":
        return "is a URL; leave out https:// and add --tls"
    if scheme == "http":
        return "is a URL; leave out http://"
    if scheme == "dns":
        return "names a DNS server, but only that of the system is used; give dns:///HOST:PORT"
    return f"has the scheme {scheme!r}, which is not supported"
