"""Finds the identity of a call by its token, or otherwise by its connection's certificate."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from credit_server.access.certificates import CertificateIdentities, identity_parser
from credit_server.access.identity import (
    Authenticator,
    Credentials,
    Identity,
    TokenRules,
    Unauthenticated,
)
from credit_server.access.watched_file import WatchedFile

if TYPE_CHECKING:
    from credit_server.access.tokens import TokenVerifier

# RFC 6750, section 2.1.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityFiles:
    """The files that prove identities.

    Attributes:
        token_keys: The public keys that verify tokens; None: tokens prove nothing.
        token_algorithms: The pinned algorithms, preferred first.
        token_rules: What is demanded of a token; None if there are no keys.
        identities: What the owners of client certificates may do; None: certificates prove nothing.
    """

    token_keys: Path | None = None
    token_algorithms: tuple[str, ...] = ()
    token_rules: TokenRules | None = None
    identities: Path | None = None


class CallAuthenticator:
    """Authenticates calls by what is configured. If a call has a token, the token decides."""

    def __init__(
        self, *, tokens: "TokenVerifier | None", certificates: CertificateIdentities | None
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


def open_authenticator(files: IdentityFiles) -> Authenticator | None:
    """Make the authenticator of these files, or return None if there are none.

    Raises:
        FileUnusable: A file of keys or identities cannot be used.
    """
    tokens = certificates = None
    if files.token_keys is not None and files.token_rules is not None:
        # The import of jwt and cryptography takes a tenth of the start time.
        from credit_server.access.keys import parse_keys  # noqa: PLC0415
        from credit_server.access.tokens import TokenVerifier  # noqa: PLC0415

        parse = partial(parse_keys, algorithms=files.token_algorithms)
        keys = WatchedFile(files.token_keys, parse, setting="CREDIT_TOKEN_KEYS")
        tokens = TokenVerifier(keys, files.token_rules)
    if files.identities is not None:
        parse_identities = identity_parser(files.identities)
        owners = WatchedFile(files.identities, parse_identities, setting="CREDIT_IDENTITIES_FILE")
        certificates = CertificateIdentities(owners)
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
