"""The credentials of a run, and invalid ones that are made from them."""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from typing import assert_never

from grpc_fuzz.model import Metadata, Method, Presented

# Header, claims and signature of a JWT (RFC 7519).
_JWT_PARTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A token that goes with every call.

    Attributes:
        token: The valid token. No report, crash or reproducer contains it.
        expired: A token that has expired, or None to test without one.
        key: The metadata key of the token, in lower case.
        scheme: What precedes the token, with a space between; empty for nothing.
        public: Globs. Methods whose path or name matches one need no credentials.
    """

    token: str = field(repr=False)
    expired: str | None = field(default=None, repr=False)
    key: str = "authorization"
    scheme: str = "Bearer"
    public: tuple[str, ...] = ()

    def required_by(self, method: Method) -> bool:
        """Return whether a method needs credentials."""
        return not method.matches(self.public)

    def invalid(self) -> tuple[Presented, ...]:
        """Return the kinds of credentials for which the server must reject a call."""
        kinds: list[Presented] = ["missing", "forged"]
        if _unsigned(self.token) is not None:
            kinds.append("unsigned")
        if self.expired is not None:
            kinds.append("expired")
        return tuple(kinds)

    def metadata(self, presented: Presented) -> Metadata:
        """Return the metadata of a call; empty if there is no such token."""
        return self._entry(self._token(presented))

    def redacted(
        self, presented: Presented, token: str, expired: str
    ) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call, with placeholders for the secret tokens.

        Args:
            presented: The kind of credentials.
            token: The placeholder of the valid token.
            expired: The placeholder of the expired token.
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
    """Return the token with another signature, or another token if it has no signature.

    The signature is a hash of the valid one, so the forged token can be shown.
    """
    head, dot, signature = token.rpartition(".")
    return f"{head}{dot}{_scrambled(signature)}"


def _scrambled(text: str) -> str:
    digest = hashlib.shake_256(text.encode()).digest(len(text))
    return base64.urlsafe_b64encode(digest).decode()[: len(text)]


def _unsigned(token: str) -> str | None:
    """Return the JWT with "alg": "none" and no signature (RFC 8725, 2.1); None if it is no JWT."""
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
