"""TLS, tokens and client certificates: how the server knows its callers."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from annotated_types import MinLen
from pydantic import BeforeValidator, model_validator

from credit_server.access import IdentityFiles, TlsFiles
from credit_server.access.identity import TokenRules
from credit_server.settings.fields import Settings


def _split(value: object) -> object:
    """Split a list as people write it, `ES256,RS256`."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


# How a token may be signed. Neither `none` nor HS256: a server that verifies HS256 could also sign.
Algorithm = Literal[
    "ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"
]
Text = Annotated[str, MinLen(1)]


class AccessSettings(Settings):
    """TLS, tokens and client certificates."""

    title: ClassVar[str] = "TLS and identities"

    insecure: bool = False
    """Accept calls without TLS, or without identities, on an address that is not loopback."""

    tls_certificate: Path | None = None
    """PEM file of the server's certificate and the intermediate certificates. Without one there is
    no TLS. The server reads every file of TLS, keys and identities again when it changes."""

    tls_key: Path | None = None
    """PEM file of the certificate's key."""

    tls_key_password_file: Path | None = None
    """File that holds the password of --tls-key, if it has one."""

    tls_client_ca: Path | None = None
    """PEM file of the CAs that sign clients' certificates. Without one, clients need none."""

    tls_client_auth: Literal["required", "optional"] = "required"
    """With --tls-client-ca: whether every client must have a certificate, or may connect without
    one and send a token."""

    token_keys: Path | None = None
    """File of the public keys that verify tokens: PEM, or a JWKS with kids. Without one the server
    accepts no tokens."""

    token_issuer: Text | None = None
    """The iss that a token must have."""

    token_audience: Text | None = None
    """The aud that a token must have, alone or among others."""

    token_algorithms: Annotated[tuple[Algorithm, ...], MinLen(1), BeforeValidator(_split)] = (
        "ES256",
        "EdDSA",
        "RS256",
    )
    """Algorithms that may sign a token, separated by commas. A key signs with one of them only."""

    identities_file: Path | None = None
    """JSON or TOML file of what the owner of a client certificate may do. Without one,
    certificates prove no identity."""

    @property
    def has_identities(self) -> bool:
        """Whether callers have to prove who they are."""
        return self.token_keys is not None or self.identities_file is not None

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files of the server's TLS; None: there is no TLS."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return TlsFiles(
            certificate=self.tls_certificate,
            key=self.tls_key,
            key_password=self.tls_key_password_file,
            client_ca=self.tls_client_ca,
            client_required=self.tls_client_auth == "required",
        )

    @property
    def identity_files(self) -> IdentityFiles:
        """The files that identities are proved with."""
        rules = None
        if self.token_issuer is not None and self.token_audience is not None:
            rules = TokenRules(issuer=self.token_issuer, audience=self.token_audience)
        return IdentityFiles(
            token_keys=self.token_keys,
            token_algorithms=self.token_algorithms,
            token_rules=rules,
            identities=self.identities_file,
        )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError(
                "CREDIT_TLS_CERTIFICATE and CREDIT_TLS_KEY belong together: set both, or neither"
            )
        if self.tls_key_password_file is not None and self.tls_key is None:
            raise ValueError("CREDIT_TLS_KEY_PASSWORD_FILE needs CREDIT_TLS_KEY: set it too")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError(
                "CREDIT_TLS_CLIENT_CA needs TLS: set CREDIT_TLS_CERTIFICATE and CREDIT_TLS_KEY"
            )
        return self

    @model_validator(mode="after")
    def _identities_are_whole(self) -> Self:
        token = (self.token_keys, self.token_issuer, self.token_audience)
        if None in token and token != (None, None, None):
            raise ValueError(
                "CREDIT_TOKEN_KEYS, CREDIT_TOKEN_ISSUER and CREDIT_TOKEN_AUDIENCE belong together:"
                " set all three, or none"
            )
        if self.identities_file is not None and self.tls_client_ca is None:
            raise ValueError(
                "CREDIT_IDENTITIES_FILE is for client certificates: set CREDIT_TLS_CLIENT_CA to the"
                " CA that signs them"
            )
        return self
