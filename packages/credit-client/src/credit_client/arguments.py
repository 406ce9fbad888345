"""The resolved config of a client: its arguments, applied to its settings and checked together."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from credit_models.faults import fault
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from credit_client.bearer import Bearer, FetchedToken, FileToken, FixedToken, TokenFetcher
from credit_client.settings import ClientSettings
from credit_client.target import Target
from credit_client.tls import Tls

FilePath: TypeAlias = str | os.PathLike[str]
TokenArgument: TypeAlias = str | os.PathLike[str] | TokenFetcher
TlsArgument: TypeAlias = bool | FilePath | ssl.SSLContext

# The constructor's arguments whose settings have another name.
_NAMES = {
    "client_certificate": "tls_client_certificate",
    "client_key": "tls_client_key",
    "insecure": "token_insecure",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The resolved config of a client.

    Attributes:
        settings: Everything that can be a setting.
        fetch: The function that returns tokens, or None.
        tls: Encrypts the connections, or None.
    """

    settings: ClientSettings
    fetch: TokenFetcher | None
    tls: Tls | None

    @property
    def target(self) -> Target:
        """The server."""
        return Target.parse(self.settings.target)

    def bearer(self) -> Bearer | None:
        """Return the source of the token; None if calls are sent without a token."""
        if self.fetch is not None:
            return FetchedToken(self.fetch)
        if self.settings.token_file is not None:
            return FileToken(self.settings.token_file)
        if self.settings.token is not None:
            return FixedToken(self.settings.token.get_secret_value())
        return None

    def check_token_is_safe(self) -> None:
        """Check that the token cannot be read on its way.

        Raises:
            ValueError: It would be sent to another machine without TLS, and `token_insecure` is
                not set.
        """
        safe = self.tls is not None or self.target.is_loopback or self.settings.token_insecure
        if not safe and self.bearer() is not None:
            raise ValueError(
                f"the token would be sent to {self.target} without TLS, readable on the way: pass"
                " tls=True (CREDIT_TLS), or insecure=True (CREDIT_TOKEN_INSECURE) where that is"
                " acceptable"
            )


def resolve_config(
    settings: ClientSettings | None,
    *,
    token: TokenArgument | None,
    tls: TlsArgument | None,
    **given: str | float | bool | FilePath | None,
) -> Config:
    """Apply arguments to settings.

    Args:
        settings: The settings; None reads the environment.
        token: Replaces a token of the settings, also one in a file.
        tls: Replaces the settings' `tls` and `tls_ca`.
        given: The constructor's other arguments; None leaves the setting unchanged.

    Raises:
        ValueError: A value is not allowed, or contradicts another one.
    """
    values = {_NAMES.get(name, name): value for name, value in given.items() if value is not None}
    base = {} if settings is None else settings.model_dump()
    changed = _token_settings(token) | _tls_settings(tls) | values
    settled = _valid(base | changed)
    return Config(
        settings=settled,
        fetch=token if callable(token) else None,
        tls=_tls(settled, tls if isinstance(tls, ssl.SSLContext) else None),
    )


def _token_settings(token: TokenArgument | None) -> dict[str, object]:
    if token is None:
        return {}
    if isinstance(token, os.PathLike):
        return {"token": None, "token_file": token}
    return {"token": None if callable(token) else token, "token_file": None}


def _tls_settings(tls: TlsArgument | None) -> dict[str, object]:
    none: dict[str, object] = {"tls_client_certificate": None, "tls_client_key": None}
    match tls:
        case None:
            return {}
        case True:
            return {"tls": True}
        case False:
            return {"tls": False, "tls_ca": None, **none}
        case ssl.SSLContext():
            # A context is complete: the environment's TLS files do not apply to it.
            return {"tls": True, "tls_ca": None, **none}
        case _:
            return {"tls": True, "tls_ca": Path(tls)}


def _tls(settings: ClientSettings, context: ssl.SSLContext | None) -> Tls | None:
    if not settings.encrypted:
        return None
    if context is not None and settings.tls_client_certificate is not None:
        raise ValueError(
            "a client certificate cannot be combined with an SSLContext: load it into the context"
        )
    return Tls(
        ca=settings.tls_ca,
        certificate=settings.tls_client_certificate,
        key=settings.tls_client_key,
        context=context,
    )


def _valid(values: Mapping[str, Any]) -> ClientSettings:
    try:
        # Any: the settings have no common type, and pydantic checks each.
        return ClientSettings(**values)
    except ValidationError as error:
        problems = "; ".join(map(_clause, error.errors(include_url=False)))
    # Outside of the clause: the error that was caught holds the values, perhaps a token.
    raise ValueError(problems)


def _clause(error: ErrorDetails) -> str:
    """Return an error of pydantic as a clause that names the setting."""
    name = ".".join(map(str, error["loc"]))
    message = fault(error, secret=name == "token")
    if message.startswith("must "):
        return f"{name} {message}"
    return f"{name}: {message}" if name else message
