"""Finds the identity of a call by its token, or otherwise by its connection's certificate."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from credit_server.access.certificates import CertificateIdentities, identity_parser
from credit_server.access.identity import Authenticator, Credentials, Identity, Unauthenticated
from credit_server.access.keys import parse_keys
from credit_server.access.tokens import TokenRules, TokenVerifier
from credit_server.access.watched_file import WatchedFile

# RFC 6750, section 2.1.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class CallAuthenticator:
    """Authenticates calls by what is configured. If a call has a token, the token decides."""

    def __init__(
        self, *, tokens: TokenVerifier | None, certificates: CertificateIdentities | None
    ) -> None:
        """Prepare to authenticate.

        Args:
            tokens: Verifies tokens; None: tokens prove nothing.
            certificates: Identifies certificates; None: certificates prove nothing.
        """
        self._tokens = tokens
        self._certificates = certificates

    def authenticate(self, credentials: Credentials) -> Identity:
        """Return the identity that credentials prove.

        Raises:
            Unauthenticated: They prove none.
        """
        if self._tokens is not None and credentials.authorization is not None:
            return self._tokens.verify(_bearer(credentials.authorization))
        if self._certificates is not None and credentials.certificate:
            return self._certificates.identify(credentials.certificate)
        raise Unauthenticated(f"{self._lack(credentials)}: {self._ways()}.")

    def recognize(self, credentials: Credentials) -> Identity | None:
        """Return the identity of a remembered token or of a certificate, or None.

        The handshake of the connection has checked the signature of a certificate.
        """
        if self._tokens is not None and credentials.authorization is not None:
            try:
                return self._tokens.recognize(_bearer(credentials.authorization))
            except Unauthenticated:
                return None
        try:
            return self.authenticate(credentials)
        except Unauthenticated:
            return None

    @staticmethod
    def _lack(credentials: Credentials) -> str:
        """Describe why a call without usable credentials has no identity."""
        if credentials.certificate:
            return "The client certificate proves no identity here, as the server lists no owners"
        if credentials.authorization is not None:
            return "The server accepts no tokens, and nothing else proves the call's identity"
        return "The call has no identity"

    def _ways(self) -> str:
        ways = []
        if self._tokens is not None:
            ways.append("send the header 'authorization: Bearer <token>'")
        if self._certificates is not None:
            ways.append("connect with a client certificate")
        return " or ".join(ways)


class AuthenticationSettings(Protocol):
    """The settings of authentication."""

    @property
    def token_keys(self) -> Path | None:
        """The file of the keys that verify tokens; None: tokens prove nothing."""

    @property
    def token_issuer(self) -> str | None:
        """See `TokenRules.issuer`; it must be there if there are keys."""

    @property
    def token_audience(self) -> str | None:
        """See `TokenRules.audience`; it must be there if there are keys."""

    @property
    def token_algorithms(self) -> Sequence[str]:
        """The pinned algorithms, preferred first."""

    @property
    def token_leeway_seconds(self) -> float:
        """See `TokenRules.leeway_seconds`."""

    @property
    def token_length_max(self) -> int:
        """See `TokenRules.length_max`."""

    @property
    def token_cache_max(self) -> int:
        """See `TokenRules.cache_max`."""

    @property
    def identities_file(self) -> Path | None:
        """The file of the owners of certificates; None: certificates prove nothing."""


def open_authenticator(settings: AuthenticationSettings) -> Authenticator | None:
    """Make the authenticator that the settings describe, or return None if they describe none.

    Raises:
        FileUnusable: A file of keys or identities cannot be used.
    """
    tokens = certificates = None
    if settings.token_keys is not None:
        parse = partial(parse_keys, algorithms=settings.token_algorithms)
        # The settings have checked that these two are there.
        rules = TokenRules(
            issuer=settings.token_issuer or "",
            audience=settings.token_audience or "",
            leeway_seconds=settings.token_leeway_seconds,
            length_max=settings.token_length_max,
            cache_max=settings.token_cache_max,
        )
        tokens = TokenVerifier(WatchedFile(settings.token_keys, parse), rules)
    if settings.identities_file is not None:
        path = settings.identities_file
        certificates = CertificateIdentities(WatchedFile(path, identity_parser(path)))
    if tokens is None and certificates is None:
        return None
    return CallAuthenticator(tokens=tokens, certificates=certificates)


def _bearer(authorization: str) -> str:
    """Return the token in the header, by RFC 6750, section 2.1."""
    scheme, _, token = authorization.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(
            "The header 'authorization' is of another scheme: send 'Bearer', a space and the token."
        )
    if _TOKEN.fullmatch(token) is None:
        raise Unauthenticated(
            "The header 'authorization' holds more than a token, or was sent twice: send it once,"
            " with 'Bearer', a space and one token."
        )
    return token
