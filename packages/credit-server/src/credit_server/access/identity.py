"""Who makes a call, and what they may do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


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
        name: Whom the log names: a token's `sub`, or what a client certificate is made out to.
        scopes: What calls they may make, such as `credits:spend`.
        apps: The apps that they act and see in; None: all.
        actor: The only number that they may give as `created_by`; None: they have none.
        may_impersonate: Whether they may give any number as `created_by`.
        add_limits: The most credits that they may add in one call.
    """

    name: str
    scopes: frozenset[str]
    apps: frozenset[int] | None
    actor: int | None
    may_impersonate: bool
    add_limits: AddLimits = AddLimits()

    def may_act_in(self, app_id: int) -> bool:
        """Say whether they act and see in an app."""
        return self.apps is None or app_id in self.apps

    def may_act_as(self, created_by: int) -> bool:
        """Say whether they may give a number as `created_by`."""
        return self.may_impersonate or created_by == self.actor


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What came with a call to prove an identity.

    Attributes:
        authorization: The header `authorization`; None: it is missing.
        certificate: The client's verified certificate, as `ssl.SSLSocket.getpeercert` tells it;
            None: there is none.
    """

    authorization: str | None
    # Any: the standard library's own shape, tuples of tuples of names and values.
    certificate: Mapping[str, Any] | None


class Authenticator(Protocol):
    """Finds out who makes a call."""

    def authenticate(self, credentials: Credentials) -> Identity:
        """Return the identity that credentials prove.

        Raises:
            Unauthenticated: They prove none.
        """
        ...

    def recognize(self, credentials: Credentials) -> Identity | None:
        """Return the identity of credentials that are known, without checking any signature.

        For peers that are not worth one at the moment; None says nothing about the credentials.
        """
        ...
