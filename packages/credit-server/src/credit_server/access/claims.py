"""What a verified token says: its claims, checked one by one."""

import re
from typing import Annotated, Literal

from credit_models.scopes import SCOPES
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from credit_server.access.errors import Unauthenticated
from credit_server.access.identity import AddLimits, Identity

__all__ = ["Apps", "Claims", "CreditsMax", "Name", "Uint32", "add_limits_of", "apps_of"]

_ALL_APPS = "*"
_UINT32_MAX = 2**32 - 1


def _printable(text: str) -> str:
    """Refuse what could forge a line of the log."""
    if not text.isprintable():
        raise ValueError("it has characters that cannot be printed")
    return text


def _app(key: str) -> str:
    """Reject what names no app; keys of JSON and TOML are always text."""
    if key != _ALL_APPS and not (re.fullmatch("[1-9][0-9]{0,9}", key) and int(key) <= _UINT32_MAX):
        raise ValueError(f"it must be an app's number, 1 to {_UINT32_MAX}, or '{_ALL_APPS}'")
    return key


Uint32 = Annotated[int, Field(ge=1, le=_UINT32_MAX)]
Name = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_printable)]
Apps = list[Uint32] | Literal["*"]
CreditsMax = Uint32 | dict[Annotated[str, AfterValidator(_app)], Uint32]
"""One limit for all apps, or limits by app; `*` stands for the apps that are not named."""
# RFC 7519, section 2, NumericDate; up to the year 9999.
_Date = Annotated[int | float, Field(ge=0, le=253_402_300_799, allow_inf_nan=False)]


def apps_of(apps: Apps) -> frozenset[int] | None:
    """Translate a list of apps, or `*`, to what an identity has."""
    return None if apps == "*" else frozenset(apps)


def add_limits_of(credits_max: CreditsMax | None) -> AddLimits:
    """Translate a `credits_max` to what an identity has; None: no limit."""
    if not isinstance(credits_max, dict):
        return AddLimits(default=credits_max)
    by_app = {int(app): limit for app, limit in credits_max.items() if app != _ALL_APPS}
    return AddLimits(default=credits_max.get(_ALL_APPS), by_app=by_app)


class Claims(BaseModel):
    """The claims that the server reads; a token may have others.

    Attributes:
        sub: Who calls.
        exp: When the token ends, in seconds since 1970.
        nbf: When it begins.
        iat: When it was issued.
        scope: What calls they may make, separated by spaces; unknown ones are passed over.
        apps: The apps they act and see in, or `*` for all; none where it is missing.
        actor: The `created_by` that they give.
        impersonate: Whether they may give any `created_by`.
        credits_max: The most credits that they may add in one call, in all apps or by app.
        cnf: What key the token is bound to: none. It would have to be shown, and whoever has stolen
            such a token must not be let in without (RFC 7800; RFC 9449, section 7.1).
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)

    sub: Name
    exp: _Date
    nbf: _Date | None = None
    iat: _Date | None = None
    scope: str = ""
    apps: Apps = []
    actor: Uint32 | None = None
    impersonate: bool = False
    credits_max: CreditsMax | None = None
    cnf: None = None

    def check_time(self, now: float, *, leeway_seconds: float) -> None:
        """Check that the token is valid at a time.

        Args:
            now: Seconds since 1970.
            leeway_seconds: How far the issuer's clock may be off.

        Raises:
            Unauthenticated: It has ended or not begun.
        """
        if self.exp <= now - leeway_seconds:
            raise Unauthenticated("The token has expired: get a new one from its issuer.")
        if max(self.nbf or 0, self.iat or 0) > now + leeway_seconds:
            raise Unauthenticated(
                "The token is not valid yet: wait, or compare the clocks of this client, the"
                " issuer and the server."
            )

    def identity(self) -> Identity:
        """Make the identity that the claims describe."""
        return Identity(
            name=self.sub,
            scopes=SCOPES.intersection(self.scope.split(" ")),
            apps=apps_of(self.apps),
            actor=self.actor,
            may_impersonate=self.impersonate,
            add_limits=add_limits_of(self.credits_max),
        )
