"""The address of a server, and the forms in which it may be written."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

PORT_DEFAULT = 50051

# RFC 1123 section 2.1, and `_`, which names in container networks have.
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HOST_LENGTH_MAX = 253
# `sun_path` of Linux, with its final zero byte; other systems allow less.
_PATH_BYTES_MAX = 107
_FORMS = (
    "write host:port, [IPv6 address]:port, a host name alone for port 50051, dns:///host:port, or"
    " unix:path"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where a server listens.

    Attributes:
        host: The name or IP address. For a Unix domain socket `localhost`, as gRPC has it: the
            name that the `:authority` header and a TLS certificate have.
        port: The TCP port; 0 for a Unix domain socket.
        path: The path of the Unix domain socket; None for TCP.
    """

    host: str
    port: int
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host:port`, `[::1]:port`, a host name alone, `dns:///host:port` or `unix:path`.

        The forms with a scheme are those of https://github.com/grpc/grpc/blob/master/doc/naming.md.

        Raises:
            ValueError: The text has none of these forms; the message lists them.
        """
        if text.startswith("unix:"):
            return cls(host="localhost", port=0, path=_socket_path(text))
        address = _without_dns_scheme(text)
        bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(\d*))?", address, flags=re.ASCII)
        plain = re.fullmatch(r"([^:/\[\]]*)(?::(\d*))?", address, flags=re.ASCII)
        if bracketed is not None and _is_ipv6(bracketed[1]):
            host, port = bracketed.groups()
        elif plain is not None and _is_host(plain[1]):
            host, port = plain.groups()
        else:
            raise ValueError(f"{text!r} is not a server's address: {_FORMS}")
        number = PORT_DEFAULT if port is None else int(port or 0)
        if not 1 <= number <= 65535:
            raise ValueError(f"{text!r} has no port from 1 to 65535: {_FORMS}")
        return cls(host=host, port=number)

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine, so that no request leaves it."""
        # RFC 6761 section 6.3: `localhost` and all names below it are loopback.
        name = self.host.lower().removesuffix(".")
        if self.path is not None or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def authority(self) -> str:
        """The value of the `:authority` header."""
        return self.host if self.path is not None else str(self)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _without_dns_scheme(text: str) -> str:
    """Return what follows `dns:` or `dns:///`.

    `dns://authority/…` names a DNS server, which the system's resolver cannot choose. A host may be
    called `dns`, with a port behind it: `dns:50051` is not a scheme.
    """
    if text.startswith("dns:///"):
        return text.removeprefix("dns:///")
    scheme, colon, rest = text.partition(":")
    return rest if colon and scheme == "dns" and not rest.isdecimal() else text


def _socket_path(text: str) -> str:
    path = text.removeprefix("unix:")
    if path.startswith("//"):
        # `unix://authority/…` does not exist: what follows the two slashes is an absolute path.
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(f"{text!r} is not a server's address: {_FORMS}")
    if not path or "\0" in path or len(path.encode()) > _PATH_BYTES_MAX:
        raise ValueError(
            f"{text!r} has no path of 1 to {_PATH_BYTES_MAX} bytes without a zero byte: {_FORMS}"
        )
    return path


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_host(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return len(text) <= _HOST_LENGTH_MAX and all(map(_LABEL.fullmatch, labels))
