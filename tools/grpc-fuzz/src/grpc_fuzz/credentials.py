"""What proves to the server who calls, and forms of it that must not."""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from typing import assert_never

from grpc_fuzz.model import Metadata, Method, Presented
from grpc_fuzz.selection import matches

# Header, claims and signature of a JWT (RFC 7519).
_JWT_PARTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A token that goes with every call.

    Attributes:
        token: The valid one. It is never shown: not in a report, a crash or a reproducer.
        expired: One that was valid once, or None where there is none to try.
        key: The metadata that carries it, in lower case.
        scheme: What stands before it, with a space between; empty: nothing.
        public: Globs; the methods whose path or name match one need no credentials.
    """

    token: str = field(repr=False)
    expired: str | None = field(default=None, repr=False)
    key: str = "authorization"
    scheme: str = "Bearer"
    public: tuple[str, ...] = ()

    def protect(self, method: Method) -> bool:
        """Whether a method is one that needs credentials."""
        return not matches(method, self.public)

    def bad(self) -> tuple[Presented, ...]:
        """All that a call may come with instead, and must be refused for."""
        made: list[Presented] = ["missing", "forged"]
        if _unsigned(self.token) is not None:
            made.append("unsigned")
        if self.expired is not None:
            made.append("expired")
        return tuple(made)

    def metadata(self, presented: Presented) -> Metadata:
        """What a call carries; nothing, where there is no such token."""
        return self._entry(self._token(presented))

    def shown(self, presented: Presented, token: str, expired: str) -> tuple[tuple[str, str], ...]:
        """What a call carries, with placeholders for the tokens that are secret.

        Args:
            presented: Which credentials.
            token: Stands for the valid token.
            expired: Stands for the expired one.
        """
        placeholders = {"valid": token, "expired": expired}
        return self._entry(placeholders.get(presented) or self._token(presented))

    def _entry(self, token: str | None) -> tuple[tuple[str, str], ...]:
        return () if token is None else ((self.key, f"{self.scheme} {token}".lstrip()),)

    def _token(self, presented: Presented) -> str | None:
        match presented:
            case "valid":
                return self.token
            case "missing":
                return None
            case "forged":
                return _forged(self.token)
            case "unsigned":
                return _unsigned(self.token)
            case "expired":
                return self.expired
            case _:
                assert_never(presented)


def _forged(token: str) -> str:
    """The token with another signature, or another token where it has none.

    The signature is made from the valid one in a way that cannot be undone, so that what is made
    can be shown.
    """
    head, dot, signature = token.rpartition(".")
    return f"{head}{dot}{_scrambled(signature)}"


def _scrambled(text: str) -> str:
    digest = hashlib.shake_256(text.encode()).digest(len(text))
    return base64.urlsafe_b64encode(digest).decode()[: len(text)]


def _unsigned(token: str) -> str | None:
    """A JWT with the same claims that says it needs no signature (RFC 8725, 2.1); None: no JWT."""
    parts = token.split(".")
    if len(parts) != _JWT_PARTS:
        return None
    try:
        header = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except (binascii.Error, ValueError):
        return None
    if not isinstance(header, dict):
        return None
    text = json.dumps({**header, "alg": "none"}, separators=(",", ":")).encode()
    return f"{base64.urlsafe_b64encode(text).rstrip(b'=').decode()}.{parts[1]}."
