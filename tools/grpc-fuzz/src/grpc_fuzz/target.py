"""Where the server under test listens, and how to get there."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """How to speak TLS to the server.

    Attributes:
        ca: The certificates to trust, PEM; None: the system's.
        certificate: The client's own certificate, PEM, where the server asks for one.
        key: The key of the client's certificate, PEM.
        server_name: The name to expect in the server's certificate, where it is not the host's.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The address of a server.

    Attributes:
        host: A name or an address; IPv6 without brackets.
        port: 1 to 65535.
        tls: None: in clear text.
    """

    host: str
    port: int
    tls: Tls | None = None

    @classmethod
    def parse(cls, text: str, tls: Tls | None = None) -> "Target":
        """Reads "host:port" or "[address]:port".

        Raises:
            ValueError: It is neither.
        """
        host, separator, port = text.rpartition(":")
        if not separator or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ValueError(f"{text!r} is not host:port")
        return cls(host=host.strip("[]"), port=int(port), tls=tls)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
