"""Who calls: identities, and how a call proves one."""

from credit_server.access.authenticator import IdentityFiles, open_authenticator
from credit_server.access.errors import FileUnusable, IdentityError, Unauthenticated
from credit_server.access.identity import Authenticator, Credentials, Identity
from credit_server.access.tls import TlsFiles, open_tls

__all__ = [
    "Authenticator",
    "Credentials",
    "FileUnusable",
    "Identity",
    "IdentityError",
    "IdentityFiles",
    "TlsFiles",
    "Unauthenticated",
    "open_authenticator",
    "open_tls",
]
