"""The server's settings: environment variables `CREDIT_*`, or options of `credit-server serve`."""

from credit_server.settings.server import ServerSettings, is_loopback
from credit_server.settings.store import StoreSettings
from credit_server.settings.unknown import unknown_variables

__all__ = ["ServerSettings", "StoreSettings", "is_loopback", "unknown_variables"]
