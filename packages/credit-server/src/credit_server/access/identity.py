"""Identities: who makes a call, what they may do, and how files and tokens describe it.

Exception
├── AccessDenied          a call is not allowed; the caller's fault
│   ├── Unauthenticated   it proves no identity
│   ├── ScopeMissing      its identity may not make this call
│   ├── AppNotAllowed     its identity may not act in this app
│   └── ActorNotAllowed   its identity may not act in this name
└── FileUnusable          a file of keys, identities or certificates cannot be used; the operator's
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field

_ALL_APPS = "*"
_UINT32_MAX = 2**32 - 1


class AccessDenied(Exception):
    """A call is not allowed. Its text is sent to the caller."""


class Unauthenticated(AccessDenied):
    """A call proves no identity.

    Its text says what to do, and nothing about the server's keys.
    """


class ScopeMissing(AccessDenied):
    """The identity may not make a call.

    Attributes:
        scope: The scope that it needs.
    """

    def __init__(self, scope: str) -> None:
        super().__init__(f"the call requires the scope {scope}")
        self.scope = scope


class AppNotAllowed(AccessDenied):
    """The identity may not act, or read anything, in an app.

    Attributes:
        app_id: The app.
    """

    def __init__(self, app_id: int) -> None:
        super().__init__(f"the identity may not act in app {app_id}")
        self.app_id = app_id


class ActorNotAllowed(AccessDenied):
    """The identity may not act in another's name.

    Attributes:
        created_by: The name.
    """

    def __init__(self, created_by: int) -> None:
        super().__init__(f"the identity may not act in the name of {created_by}")
        self.created_by = created_by


class FileUnusable(Exception):
    """A file of keys, identities or certificates cannot be used.

    Its text is for the operator: it names the file and says what to do, and quotes nothing of it.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRules:
    """The rules that a token must satisfy.

    Attributes:
        issuer: The required `iss`.
        audience: The required `aud`; a token may have others besides.
        leeway_seconds: How far the issuer's clock may be off, at least 0: RFC 7519, section 4.1.4,
            permits a small leeway for clocks that differ.
        length_max: The most characters that a token may have, at least 1. A longer one is rejected
            before it is decoded.
        cache_max: The number of verified tokens that are remembered; 0: none. A remembered token
            saves the check of its signature.
    """

    issuer: str
    audience: str
    leeway_seconds: float = 30.0
    length_max: int = 8192
    cache_max: int = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class AddLimits:
    """The most credits that an identity may add in one call.

    Attributes:
        default: The limit in apps that `by_app` does not name, 1 to 2**32 - 1; None: no limit.
        by_app: The limit by app.
    """

    default: int | None = None
    by_app: Mapping[int, int] = field(default_factory=dict)

    def of(self, app_id: int) -> int | None:
        """Return the limit in an app; None: no limit."""
        return self.by_app.get(app_id, self.default)


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who makes a call, and what they may do.

    Attributes:
        name: The name in the log: a token's `sub`, or the name of a client certificate.
        scopes: The calls that the identity may make, such as `credits:spend`.
        apps: The apps that it may act in and read; None: all.
        actor: The only number that it may send as `created_by`; None: there is none.
        may_impersonate: Whether it may send any number as `created_by`.
        add_limits: The most credits that it may add in one call.
    """

    name: str
    scopes: frozenset[str]
    apps: frozenset[int] | None
    actor: int | None
    may_impersonate: bool
    add_limits: AddLimits = AddLimits()

    def may_act_in(self, app_id: int) -> bool:
        """Return whether the identity may act in an app and read it."""
        return self.apps is None or app_id in self.apps

    def may_act_as(self, created_by: int) -> bool:
        """Return whether the identity may send a number as `created_by`."""
        return self.may_impersonate or created_by == self.actor


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a call; see `credit_server.grpc.ports.Caller`.

    Attributes:
        name: The name under which limits that callers share count the call: its identity, or its
            address where identities are off or not needed.
        identity_name: The name of the identity; None if there is none.
        identity: The identity; None if identities are off or not needed.
        counted: Whether the call counts towards the caller's running calls.
    """

    name: str
    identity_name: str | None
    identity: Identity | None
    counted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What came with a call to prove an identity.

    Attributes:
        authorization: The header `authorization`; None if it is missing.
        certificate: The client's verified certificate, as `ssl.SSLSocket.getpeercert` returns it;
            None if there is none.
    """

    authorization: str | None
    # Any: the standard library's own shape, tuples of tuples of names and values.
    certificate: Mapping[str, Any] | None


class Authenticator(Protocol):
    """Finds the identity of a call."""

    def authenticate(self, credentials: Credentials) -> Identity:
        """Return the identity that credentials prove.

        Raises:
            Unauthenticated: They prove none.
        """
        ...

    def recognize(self, credentials: Credentials) -> Identity | None:
        """Return the identity of known credentials, without checking any signature.

        It is for peers whose signatures are not worth checking at the moment. None does not mean
        that the credentials are bad.
        """
        ...


def _printable(text: str) -> str:
    """Reject what could forge a line of the log."""
    if not text.isprintable():
        raise ValueError("it has characters that cannot be printed")
    return text


def _app(key: str) -> str:
    """Reject what is not an app; keys of JSON and TOML are always text."""
    if key != _ALL_APPS and not (re.fullmatch("[1-9][0-9]{0,9}", key) and int(key) <= _UINT32_MAX):
        raise ValueError(f"it must be an app's number, 1 to {_UINT32_MAX}, or '{_ALL_APPS}'")
    return key


# The types of what tokens and the identities file say of an identity.
Uint32 = Annotated[int, Field(ge=1, le=_UINT32_MAX)]
Name = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_printable)]
Apps = list[Uint32] | Literal["*"]
# One limit for all apps, or limits by app; `*` stands for the apps that are not named.
CreditsMax = Uint32 | dict[Annotated[str, AfterValidator(_app)], Uint32]


def apps_of(apps: Apps) -> frozenset[int] | None:
    """Convert a list of apps, or `*`, to `Identity.apps`."""
    return None if apps == "*" else frozenset(apps)


def add_limits_of(credits_max: CreditsMax | None) -> AddLimits:
    """Convert a `credits_max` to `Identity.add_limits`; None: no limit."""
    if not isinstance(credits_max, dict):
        return AddLimits(default=credits_max)
    by_app = {int(app): limit for app, limit in credits_max.items() if app != _ALL_APPS}
    return AddLimits(default=credits_max.get(_ALL_APPS), by_app=by_app)
