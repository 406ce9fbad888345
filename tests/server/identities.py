"""Identities without keys: a token is a name, and a fake authenticator accepts some names."""

from collections.abc import Mapping

from credit_models.scopes import SCOPES
from credit_server.access import Credentials, Identity, Unauthenticated

EVERYTHING = Identity(name="somebody", scopes=SCOPES, apps=None, actor=None, may_impersonate=True)
"""May do everything everywhere."""


class FakeAuthenticator:
    """Accept tokens by name, remember the callers, and count the requests."""

    def __init__(self, tokens: Mapping[str, Identity]) -> None:
        self._tokens = tokens
        self._came: dict[str, Identity] = {}
        self.asked = 0

    def authenticate(self, credentials: Credentials) -> Identity:
        self.asked += 1
        if credentials.authorization is None:
            raise Unauthenticated("the call has no token")
        identity = self._tokens.get(credentials.authorization.removeprefix("Bearer "))
        if identity is None:
            raise Unauthenticated("the token does not hold")
        self._came[credentials.authorization] = identity
        return identity

    def recognize(self, credentials: Credentials) -> Identity | None:
        return self._came.get(credentials.authorization or "")
