"""Decides which calls are allowed: everything is denied but what is permitted here.

The scopes of the contract's calls come from its options. What a call may do in which app, and in
whose name, is decided once its message is read.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from credit_models.ledger import Account
from credit_models.scopes import METHOD_SCOPES, SCOPED_BY_OPERATION

from credit_server.access.audit import AuditLog
from credit_server.access.identity import (
    AccessDenied,
    ActorNotAllowed,
    AppNotAllowed,
    Authenticator,
    Caller,
    Credentials,
    Identity,
    ScopeMissing,
    Unauthenticated,
)
from credit_server.admission.decision import Decision, NotAdmitted
from credit_server.admission.rate_limit import RateLimit, RunningLimit
from credit_server.grpc import ports
from credit_server.grpc.call import Call
from credit_server.http2.peer import network_of
from credit_server.units import Rate

_ADMIN = "credits:admin"

# Reflection describes all that is served: it is for operators.
_SCOPES: Mapping[str, str] = MappingProxyType(
    {
        **METHOD_SCOPES,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _ADMIN,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _ADMIN,
    }
)

# Load balancers and orchestrators probe without tokens, and learn no more than up or down.
_PUBLIC = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})

# The streams that last until their clients end them. They have a limit of their own, and do not
# count as running calls: otherwise they could use up the limit of running calls.
WATCHES = frozenset({"/credit.v1.HistoryService/Watch"})

# The lines of the audit log for the rate-limited calls of one caller: a flood of calls that cost
# their sender nothing must not become a flood of lines, which fills the disk. The metrics count
# all of them.
_AUDITED_PER_SECOND = 1

_RETRY_RUNNING_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessLimits:
    """How often identities may call, and addresses may fail to prove an identity."""

    calls_per_second: Rate = 1000.0
    """Calls that an identity may make to this server per second, on average. Twice as many may come
    at once. Each worker applies an equal part. Each operation of BatchWrite and Write counts as a
    call. 0: no limit."""

    calls_burst: int | None = None
    """Calls that an identity may make at once, at least 1; None: those of two seconds."""

    # The settings set this to a quarter of `CallLimits.calls_max`.
    calls_running_max: int = 512
    """Calls of one identity, and health watches of one address, that may run at once; at least 1.
    An identity with slow calls must leave room for others."""

    failures_per_second: Rate = 10.0
    """Failed authentications that an address may have per second, on average. Ten times as many
    may come at once. Each worker applies an equal part. Above the limit, only known tokens and
    certificates are accepted. 0: no limit."""

    failures_burst: int | None = None
    """Failed authentications that an address may have at once, at least 1; None: those of ten
    seconds."""

    names_max: int = 10_000
    """Identities, and addresses, whose rates are counted; at least 1. It bounds the memory that
    strangers can make the server use."""

    @property
    def calls_at_once(self) -> int:
        """The calls that an identity may make at once."""
        return self.calls_burst or max(1, math.ceil(2 * self.calls_per_second))

    @property
    def failures_at_once(self) -> int:
        """The failed authentications that an address may have at once."""
        return self.failures_burst or max(1, math.ceil(10 * self.failures_per_second))


class Access:
    """Authenticates, authorizes and admits calls. Shared by all connections."""

    def __init__(
        self,
        authenticator: Authenticator | None,
        *,
        audit: AuditLog,
        limits: AccessLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            authenticator: Finds the identity of a call; None: calls need none, and every call is
                allowed.
            audit: Where denials are written.
            limits: The rate limits.
            clock: Returns seconds that never go back.
        """
        limits = limits or AccessLimits()
        self._authenticator = authenticator
        self._audit = audit
        self._clock = clock
        self._calls = RateLimit(
            per_second=limits.calls_per_second,
            burst=limits.calls_at_once,
            names_max=limits.names_max,
        )
        self._running = RunningLimit(limits.calls_running_max)
        self._failures = RateLimit(
            per_second=limits.failures_per_second,
            burst=limits.failures_at_once,
            names_max=limits.names_max,
        )
        self._audited = RateLimit(
            per_second=_AUDITED_PER_SECOND, burst=1, names_max=limits.names_max
        )

    @staticmethod
    def check(paths: Collection[str]) -> None:
        """Check that each served path has a rule.

        Raises:
            LookupError: A path has none.
        """
        unknown = sorted(set(paths) - _SCOPES.keys() - SCOPED_BY_OPERATION - _PUBLIC)
        if unknown:
            raise LookupError(f"no rule says who may call {', '.join(unknown)}")

    def admit(self, call: Call[Any, Any]) -> Caller:
        """Authenticate, authorize and admit a call, and return its caller.

        If the caller is `counted`, `leave` must follow when the call has ended. A call to a path
        that is not served is admitted too, so that only a caller with a proved identity learns
        which paths are served.

        Args:
            call: The call; its message has not been read. Any: a call of any messages.

        Raises:
            AccessDenied: The call is not allowed.
            NotAdmitted: The caller has used up a rate limit, or has too many running calls.
        """
        network = network_of(call.peer.address)
        identity: Identity | None = None
        try:
            if self._authenticator is not None and call.request.path not in _PUBLIC:
                identity = self._authenticate(self._authenticator, call, network)
                self._authorize(identity, call.request.path)
                counted = call.request.path not in WATCHES
                name = f"identity {identity.name}"
                caller = Caller(name, identity.name, identity, counted=counted)
            else:
                # All callers without an identity are trusted alike: only probes are counted.
                caller = Caller(
                    f"address {network}", None, None, counted=call.request.path in _PUBLIC
                )
            # A rate limit is not enough: slow calls would occupy the whole server.
            if caller.counted and self._running.admit(caller.name) is not Decision.ADMIT:
                raise NotAdmitted(
                    Decision.RUNNING_CALLS,
                    f"the caller has {self._running.running_max} running calls, the most allowed",
                    retry_seconds=_RETRY_RUNNING_SECONDS,
                )
        except (AccessDenied, NotAdmitted) as denial:
            name = network if identity is None else identity.name
            if not isinstance(denial, NotAdmitted) or not self._audited.take(name, self._clock()):
                self._audit.denied(call, identity, denial)
            raise
        return caller

    def check_again(self, call: Call[Any, Any], request: "NamesApp") -> Identity | None:
        """Return the identity of a call that has lasted for long, if it may still make the call.

        Tokens expire, and keys and identities are withdrawn.

        Args:
            call: The call. Any: a call of any messages.
            request: Its request.

        Raises:
            AccessDenied: The call is no longer allowed.
        """
        identity = identity_of(call)
        if self._authenticator is None or identity is None:
            return identity
        try:
            identity = self._authenticator.authenticate(_credentials(call))
            check_scope(identity, call.request.path)
            check_app(identity, request)
        except AccessDenied as denial:
            self._audit.denied(call, identity, denial)
            raise
        return identity

    def admit_batch(
        self, call: Call[Any, Any], count: int, *, together: bool
    ) -> tuple[int, NotAdmitted | None]:
        """Count the operations of a call towards its identity's rate limit.

        The call itself was counted when it was admitted, and stands for the first operation.

        Args:
            call: The call. Any: a call of any messages.
            count: The number of operations, at least 1.
            together: Whether either all of them are admitted or none. A number above the burst is
                admitted if the identity has made no call for some time; its later calls are then
                rejected for longer.

        Returns:
            How many are admitted, and why the others are not.
        """
        identity = identity_of(call)
        if identity is None:
            return count, None
        now = self._clock()
        if together:
            wait = self._calls.take(identity.name, now, count, paid=1)
            admitted = 0 if wait else count
        else:
            more, wait = self._calls.take_some(identity.name, now, count - 1)
            admitted = 1 + more
        return admitted, self._audited_denial(call, identity, wait) if wait else None

    def admit_operation(self, call: Call[Any, Any]) -> NotAdmitted | None:
        """Count one operation of a stream towards its identity's rate limit.

        Args:
            call: The call. Any: a call of any messages.

        Returns:
            Why the operation is not admitted; None: it is.
        """
        identity = identity_of(call)
        if identity is None:
            return None
        wait = self._calls.take(identity.name, self._clock())
        return self._audited_denial(call, identity, wait) if wait else None

    def _audited_denial(
        self, call: Call[Any, Any], identity: Identity, wait_seconds: float
    ) -> NotAdmitted:
        """Return the denial of operations; write an audit line for it at a limited rate."""
        denial = _rate_exceeded(wait_seconds)
        if not self._audited.take(identity.name, self._clock()):
            self._audit.denied(call, identity, denial)
        return denial

    def leave(self, caller: ports.Caller) -> None:
        """Record that a call of a `counted` caller has ended and its answer has been sent."""
        self._running.leave(caller.name)

    def _authenticate(
        self, authenticator: Authenticator, call: Call[Any, Any], network: str
    ) -> Identity:
        now = self._clock()
        credentials = _credentials(call)
        # Before the signature, whose check takes far longer.
        wait = self._failures.wait_seconds(network, now)
        if wait:
            # Behind a proxy all callers have one address: known callers must not be rejected.
            known = authenticator.recognize(credentials)
            if known is None:
                raise NotAdmitted(
                    Decision.RATE,
                    "rate limit exceeded by the address's failed authentications",
                    retry_seconds=wait,
                )
            return known
        try:
            return authenticator.authenticate(credentials)
        except Unauthenticated:
            self._failures.take(network, now)
            raise

    def _authorize(self, identity: Identity, path: str) -> None:
        wait = self._calls.take(identity.name, self._clock())
        if wait:
            raise _rate_exceeded(wait)
        scope = _SCOPES.get(path)
        if scope is not None and scope not in identity.scopes:
            raise ScopeMissing(scope)


# Any: a call of any messages.
def _credentials(call: Call[Any, Any]) -> Credentials:
    return Credentials(
        authorization=call.request.fields.get("authorization"), certificate=call.certificate
    )


def _rate_exceeded(wait_seconds: float) -> NotAdmitted:
    return NotAdmitted(
        Decision.RATE, "rate limit exceeded by the identity's calls", retry_seconds=wait_seconds
    )


def identity_of(call: Call[Any, Any]) -> Identity | None:
    """Return the identity of an admitted call; None if identities are off or not needed.

    Raises:
        LookupError: The call was not admitted. To return None would allow it everything.
    """
    if not isinstance(call.caller, Caller):
        raise LookupError("the call was not admitted")
    return call.caller.identity


def check_scope(identity: Identity | None, path: str) -> None:
    """Check that an identity may make the call that an operation stands for.

    Args:
        identity: The identity; None: there is none, and everything is allowed.
        path: The path of the call.

    Raises:
        ScopeMissing: The identity may not make the call.
    """
    if identity is not None and METHOD_SCOPES[path] not in identity.scopes:
        raise ScopeMissing(METHOD_SCOPES[path])


class NamesApp(Protocol):
    """A request about an app; None: it names none."""

    @property
    def app_id(self) -> int | None:
        """The app."""


class NamesActor(Protocol):
    """A write, which gives the number of its requester."""

    created_by: int


class Write(NamesApp, NamesActor, Protocol):
    """A write in an app."""


def check_write(identity: Identity | None, request: Write) -> None:
    """Check that an identity may write in the apps of a request, and as its actor.

    Raises:
        AccessDenied: The identity may not make the write.
    """
    check_app(identity, request)
    check_actor(identity, request)


def check_app(identity: Identity | None, request: NamesApp) -> None:
    """Check that an identity may act in all apps that a request names, and read them.

    Raises:
        AppNotAllowed: It may not.
    """
    if identity is None:
        return
    # A transfer also names the app that receives the credits, unless it is the same app.
    for app_id in (request.app_id, getattr(request, "to_app_id", None)):
        if app_id is not None and not identity.may_act_in(app_id):
            raise AppNotAllowed(app_id)


def check_actor(identity: Identity | None, request: NamesActor) -> None:
    """Check that an identity may act in the name that a write gives.

    Raises:
        ActorNotAllowed: It may not.
    """
    if identity is not None and not identity.may_act_as(request.created_by):
        raise ActorNotAllowed(request.created_by)


def add_limit(identity: Identity, app_id: int, *, credits_max: int) -> int:
    """Return the most credits that an identity may add in one call.

    Args:
        identity: The identity.
        app_id: The app.
        credits_max: The server's own limit, 1 to 2**32 - 1.
    """
    limit = identity.add_limits.of(app_id)
    return credits_max if limit is None else min(limit, credits_max)


def visible_apps(identity: Identity | None) -> frozenset[int] | None:
    """Return the apps that an identity may read; None: all."""
    return None if identity is None else identity.apps


def visible_revision(account: Account, identity: Identity | None) -> int:
    """Return the revision of an account; 0 if the identity may not read all apps: see below."""
    return account.revision if visible_apps(identity) is None else 0


def visible_account(account: Account, identity: Identity | None) -> Account:
    """Return the part of a user's account that an identity may read.

    What concerns all apps together is left out, as it would reveal the others. A user without
    credits in the visible apps looks like one that never had any.
    """
    apps = visible_apps(identity)
    if apps is None:
        return account
    balances = {app: balance for app, balance in account.balances.items() if app in apps}
    kept = {app: kept for app, kept in account.apps.items() if app in apps}
    return Account(
        user_id=account.user_id, id=account.id if balances else "", balances=balances, apps=kept
    )
