"""Who calls, and what they may do: authentication, authorization and the audit log."""

from credit_server.access.authenticate import IdentityFiles, open_authenticator
from credit_server.access.identity import (
    Authenticator,
    Credentials,
    FileUnusable,
    Identity,
    Unauthenticated,
)
from credit_server.access.tls import TlsFiles, open_tls

__all__ = [
    "Authenticator",
    "Credentials",
    "FileUnusable",
    "Identity",
    "IdentityFiles",
    "TlsFiles",
    "Unauthenticated",
    "open_authenticator",
    "open_tls",
]
