"""Who calls: identities, and how a call proves one."""

from credit_server.identity.errors import IdentityError, Unauthenticated
from credit_server.identity.identity import Authenticator, Credentials, Identity

__all__ = ["Authenticator", "Credentials", "Identity", "IdentityError", "Unauthenticated"]
