"""All that `credit-server serve` can be told."""

import ipaddress
from typing import Self

from pydantic import model_validator

from credit_server.http2.unix_socket import socket_path
from credit_server.settings.commit import CommitSettings
from credit_server.settings.identity import IdentitySettings
from credit_server.settings.store import StoreSettings
from credit_server.settings.telemetry import TelemetrySettings
from credit_server.settings.transport import TransportSettings


class ServerSettings(
    TelemetrySettings, CommitSettings, IdentitySettings, TransportSettings, StoreSettings
):
    """All that `credit-server serve` can be told."""

    @model_validator(mode="after")
    def _not_in_the_clear(self) -> Self:
        if self.insecure or is_loopback(self.host):
            return self
        missing = []
        if self.tls_certificate is None:
            missing.append("no TLS (set CREDIT_TLS_CERTIFICATE and CREDIT_TLS_KEY)")
        if not self.has_identities:
            missing.append("no identities (set CREDIT_TOKEN_KEYS or CREDIT_IDENTITIES_FILE)")
        if missing:
            raise ValueError(
                f"CREDIT_HOST {self.host} can be reached from other machines, and the server has"
                f" {' and '.join(missing)}: set them, listen on 127.0.0.1, or say --insecure"
                " (CREDIT_INSECURE=true) where the network itself is trusted"
            )
        return self


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    if host == "localhost" or socket_path(host) is not None:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
