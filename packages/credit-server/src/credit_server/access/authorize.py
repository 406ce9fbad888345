"""Who may make which call: everything is denied but what is permitted here.

The scopes of the contract's calls come from its options. What a call may do to which app, and in
whose name, is decided in `access.permission`, once its message is read.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from credit_models.scopes import METHOD_SCOPES
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from credit_server.access import Authenticator, Credentials, Identity, Unauthenticated
from credit_server.access.audit import AuditLog
from credit_server.admission.rate_limit import RateLimit
from credit_server.api import refusal
from credit_server.grpc.call import Call
from credit_server.http2.network import network_of
from credit_server.units import Count, Rate

_ADMIN = "credits:admin"

# Reflection tells all that the server is made of: it serves operators.
_SCOPES: Mapping[str, str] = MappingProxyType(
    {
        **METHOD_SCOPES,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _ADMIN,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _ADMIN,
    }
)

# Load balancers and orchestrators probe without tokens, and learn no more than up or down.
_PUBLIC = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})

_AUDITED_PER_SECOND = 1
"""Lines of the audit log about one name's calls that come too soon: a flood of calls that cost
their sender nothing must not become one of lines, which fills the disk. The metrics count them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessLimits:
    """How often identities may call, and addresses may fail to prove an identity."""

    calls_per_second: Rate = 1000.0
    """Calls that an identity may make per second, on average, of this server. Twice as many may
    come at once. 0: no limit."""

    calls_burst: int | None = None
    """Calls that an identity may make at once, at least 1; None: those of two seconds."""

    calls_running_max: Count = 512
    """Calls of one identity, and health watches of one address, that may run at once. Keep it well
    below calls_max, so that an identity with slow calls leaves room for others."""

    failures_per_second: Rate = 10.0
    """Failed authentications that an address may have per second, on average. Ten times as many
    may come at once. Beyond that only known tokens and certificates are accepted. 0: no limit."""

    failures_burst: int | None = None
    """Failed authentications that an address may have at once, at least 1; None: those of ten
    seconds."""

    names_max: int = 10_000
    """Identities, and addresses, whose rates are counted; at least 1."""

    @property
    def calls_at_once(self) -> int:
        """The calls that an identity may make at once."""
        return self.calls_burst or max(1, math.ceil(2 * self.calls_per_second))

    @property
    def failures_at_once(self) -> int:
        """The failed authentications that an address may have at once."""
        return self.failures_burst or max(1, math.ceil(10 * self.failures_per_second))


class Access:
    """Says who may make which call. Shared by all connections."""

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
            authenticator: Finds out who calls; None: nobody is asked, and every call is let in.
            audit: Where refusals are written.
            limits: How often who may call.
            clock: Tells the time in seconds and never goes back.
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
        self._running: Counter[str] = Counter()
        self._running_max = limits.calls_running_max
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
        """Make sure that it is known of each path that is served who may call it.

        Raises:
            LookupError: It is not.
        """
        unknown = sorted(set(paths) - _SCOPES.keys() - _PUBLIC)
        if unknown:
            raise LookupError(f"nothing says who may call {', '.join(unknown)}")

    def admit(self, call: Call[Any, Any], authorization: str | None) -> None:
        """Let a call in, and note on it who makes it; `leave` must follow when it has ended.

        A path that is not served is let in too, to be answered as such: who calls has then proved
        an identity, so that strangers cannot find out what is served.

        Args:
            call: The call; its message has not been read. Any: a call of any messages.
            authorization: Its header of that name.

        Raises:
            GRPCError: It is not let in.
        """
        try:
            if self._authenticator is not None and call.path not in _PUBLIC:
                call.identity = self._identity(self._authenticator, call, authorization)
                self._permit(call.identity, call.path)
            self._enter(call)
        except GRPCError as refused:
            if self._is_audited(call, refused):
                self._audit.refused(call, refused)
            raise

    def leave(self, call: Call[Any, Any]) -> None:
        """Note that a call has ended, whether it was let in or not: its answer has been sent."""
        name, call.holder = call.holder, None
        if name is None:
            return
        self._running[name] -= 1
        if not self._running[name]:
            del self._running[name]

    def _enter(self, call: Call[Any, Any]) -> None:
        """Count a call in. A rate is not enough: slow calls would take all places of the server."""
        name = _holder(call)
        if name is None:
            return
        if self._running[name] >= self._running_max:
            raise refusal.too_many_running(self._running_max)
        self._running[name] += 1
        call.holder = name

    def _is_audited(self, call: Call[Any, Any], refused: GRPCError) -> bool:
        if refused.status is not Status.RESOURCE_EXHAUSTED:
            return True
        name = network_of(call.host) if call.identity is None else call.identity.name
        return not self._audited.take(name, self._clock())

    def _identity(
        self, authenticator: Authenticator, call: Call[Any, Any], authorization: str | None
    ) -> Identity:
        address, now = network_of(call.host), self._clock()
        credentials = Credentials(authorization=authorization, certificate=call.certificate)
        # Asked first: a signature takes far longer to check than this.
        wait = self._failures.wait_seconds(address, now)
        if wait:
            # Behind a proxy all have one address: who is known must not suffer for a stranger.
            known = authenticator.recognize(credentials)
            if known is None:
                raise refusal.rate_limited("the address has failed to prove an identity", wait)
            return known
        try:
            return authenticator.authenticate(credentials)
        except Unauthenticated as error:
            self._failures.take(address, now)
            raise refusal.unauthenticated(str(error)) from error

    def _permit(self, identity: Identity, path: str) -> None:
        wait = self._calls.take(identity.name, self._clock())
        if wait:
            raise refusal.rate_limited("the identity has made its calls", wait)
        scope = _SCOPES.get(path)
        if scope is not None and scope not in identity.scopes:
            raise refusal.scope_missing(scope)


def _holder(call: Call[Any, Any]) -> str | None:
    """Say whose place a call takes; None: nobody's, as every caller is trusted alike."""
    if call.identity is not None:
        return f"identity {call.identity.name}"
    return f"address {network_of(call.host)}" if call.path in _PUBLIC else None
