"""How callers are known: TLS, tokens, certificates."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from credit_server.settings.units import Count


def _split(value: object) -> object:
    """Take a list as people write it, `ES256,RS256`; pydantic-settings would want JSON."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Algorithm = Literal[
    "ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"
]
"""How a token may be signed. Neither `none` nor HS256: whoever verifies could sign as well."""

Algorithms = Annotated[tuple[Algorithm, ...], NoDecode, BeforeValidator(_split)]
Rate = Annotated[float, Field(ge=0, le=1_000_000)]


class IdentitySettings(BaseModel):
    """How callers are known."""

    insecure: bool = Field(
        default=False,
        description="listen without TLS or without identities on an address that is not loopback",
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="PEM file of the server's certificate and those between it and its CA;"
        " none: no TLS. Read again when it changes, as is every file of TLS, keys and identities",
    )
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's key")
    tls_key_password_file: Path | None = Field(
        default=None, description="file that holds the password of tls_key, where it has one"
    )
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file of the CAs that sign clients' certificates; none: clients need none",
    )
    tls_client_auth: Literal["required", "optional"] = Field(
        default="required",
        description="with tls_client_ca: whether a client without a certificate may connect,"
        " and prove who it is by a token",
    )
    token_keys: Path | None = Field(
        default=None,
        description="file of the public keys that verify tokens: PEM, or a JWKS with kids;"
        " none: tokens are not taken",
    )
    token_issuer: str | None = Field(
        default=None, min_length=1, description="the iss that a token must have"
    )
    token_audience: str | None = Field(
        default=None,
        min_length=1,
        description="the aud that a token must have, alone or among others",
    )
    token_algorithms: Algorithms = Field(
        default=("ES256", "EdDSA", "RS256"),
        min_length=1,
        description="how a token may be signed, separated by commas; a key has one way only",
    )
    token_leeway_seconds: float = Field(
        default=30.0,
        ge=0,
        le=300,
        description="how far an issuer's clock may be from this machine's",
    )
    token_length_max: int = Field(
        default=8192, ge=256, le=65536, description="characters of the longest token that is read"
    )
    token_cache_max: int = Field(
        default=10_000,
        ge=0,
        le=1_000_000,
        description="verified tokens that are remembered, so that each is verified once",
    )
    identities_file: Path | None = Field(
        default=None,
        description="JSON or TOML file that says what the owner of a client certificate may do;"
        " none: certificates prove no identity",
    )

    rate_per_second: Rate = Field(
        default=1000.0,
        description="calls that an identity may make per second, on average, of this server;"
        " 0: any number",
    )
    rate_burst: Count = Field(default=2000, description="calls that an identity may make at once")
    calls_per_identity_max: Count = Field(
        default=512,
        description="calls of one identity, and watches of health from one address, that may run at"
        " once; well below calls_max one with slow calls leaves room for the others",
    )
    failures_per_second: Rate = Field(
        default=10.0,
        description="failed authentications that a peer address may have per second, on average;"
        " beyond that only known tokens and certificates are let in; 0: any number",
    )
    failures_burst: Count = Field(
        default=100, description="failed authentications that a peer address may have at once"
    )
    rate_names_max: Count = Field(
        default=10_000, description="identities, and addresses, whose rates are kept count of"
    )

    @property
    def has_identities(self) -> bool:
        """Whether callers have to prove who they are."""
        return self.token_keys is not None or self.identities_file is not None

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
