"""The address of a server, and the forms in which it may be written."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

PORT_DEFAULT = 50051

# RFC 1123 section 2.1, and `_`, which names in container networks have.
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HOST_LENGTH_MAX = 253
_FORMS = "write host:port, [IPv6 address]:port, or a host name alone for port 50051"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `host:port`, `[::1]:port` or a host name alone.

        Raises:
            ValueError: The text has none of these forms; the message says which it may have.
        """
        bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(\d*))?", text, flags=re.ASCII)
        plain = re.fullmatch(r"([^:/\[\]]*)(?::(\d*))?", text, flags=re.ASCII)
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
        """Whether what is sent there never leaves this machine."""
        # RFC 6761 section 6.3: `localhost` and all names below it are loopback.
        name = self.host.lower().removesuffix(".")
        if name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_host(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return len(text) <= _HOST_LENGTH_MAX and all(map(_LABEL.fullmatch, labels))
