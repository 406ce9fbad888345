"""Provide identities without keys: a token is a name that a fake authenticator accepts."""

from collections.abc import Mapping

from credit_models.scopes import SCOPES
from credit_server.access import Credentials, Identity, Unauthenticated

EVERYTHING = Identity(name="caller", scopes=SCOPES, apps=None, actor=None, may_impersonate=True)
"""An identity with all scopes in all apps."""


class FakeAuthenticator:
    """Accept tokens by name, remember the callers, and count the requests."""

    def __init__(self, tokens: Mapping[str, Identity]) -> None:
        self._tokens = tokens
        self._accepted: dict[str, Identity] = {}
        self.asked = 0

    def authenticate(self, credentials: Credentials) -> Identity:
        self.asked += 1
        if credentials.authorization is None:
            raise Unauthenticated("the call has no token")
        identity = self._tokens.get(credentials.authorization.removeprefix("Bearer "))
        if identity is None:
            raise Unauthenticated("the token does not hold")
        self._accepted[credentials.authorization] = identity
        return identity

    def recognize(self, credentials: Credentials) -> Identity | None:
        return self._accepted.get(credentials.authorization or "")
