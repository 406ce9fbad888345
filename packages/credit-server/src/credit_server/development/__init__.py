"""Keys, certificates and tokens for development: the command `credit-server token`."""

from credit_server.development.command import run

__all__ = ["run"]
