"""The server's settings: environment variables `CREDIT_*`, or options of `credit-server serve`."""

from credit_server.settings.access import AccessSettings
from credit_server.settings.fields import Setting, Settings, explain, load, settings_of
from credit_server.settings.server import ServerSettings, is_loopback
from credit_server.settings.store import StoreSettings
from credit_server.settings.unknown import removed_options, unknown_variables

__all__ = [
    "AccessSettings",
    "ServerSettings",
    "Setting",
    "Settings",
    "StoreSettings",
    "explain",
    "is_loopback",
    "load",
    "removed_options",
    "settings_of",
    "unknown_variables",
]
