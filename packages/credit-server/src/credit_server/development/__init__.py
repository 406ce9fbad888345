"""Keys, certificates and tokens for development: the command `credit-server token`."""

from credit_server.development.command import cli

__all__ = ["cli"]
