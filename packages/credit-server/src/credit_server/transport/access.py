"""Who may make which call: everything is denied but what is permitted here.

The scopes of the contract's calls come from its options. What a call may do to which app, and in
whose name, is decided in `transport.permission`, once its message is read.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from credit_models.scopes import METHOD_SCOPES
from grpclib.exceptions import GRPCError

from credit_server.identity import Authenticator, Credentials, Identity, Unauthenticated
from credit_server.transport import refusal
from credit_server.transport.audit import AuditLog
from credit_server.transport.call import Call
from credit_server.transport.network import network_of
from credit_server.transport.rate import RateLimit

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


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessLimits:
    """How often identities may call, and strangers may fail to prove one. 0 per second: no limit.

    Attributes:
        calls_per_second: How many calls an identity may make, on average.
        calls_burst: How many it may make at once, at least 1.
        failures_per_second: How many failed authentications a peer address may have, on average.
        failures_burst: How many it may have at once, at least 1.
        names_max: How many identities, and how many addresses, are kept count of; at least 1.
    """

    calls_per_second: float = 1000.0
    calls_burst: int = 2000
    failures_per_second: float = 10.0
    failures_burst: int = 100
    names_max: int = 10_000


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
            burst=limits.calls_burst,
            names_max=limits.names_max,
        )
        self._failures = RateLimit(
            per_second=limits.failures_per_second,
            burst=limits.failures_burst,
            names_max=limits.names_max,
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
        """Let a call in, and note on it who makes it.

        A path that is not served is let in too, to be answered as such: who calls has then proved
        an identity, so that strangers cannot find out what is served.

        Args:
            call: The call; its message has not been read. Any: a call of any messages.
            authorization: Its header of that name.

        Raises:
            GRPCError: It is not let in.
        """
        if self._authenticator is None or call.path in _PUBLIC:
            return
        try:
            call.identity = self._identity(self._authenticator, call, authorization)
            self._permit(call.identity, call.path)
        except GRPCError as refused:
            self._audit.refused(call, refused)
            raise

    def _identity(
        self, authenticator: Authenticator, call: Call[Any, Any], authorization: str | None
    ) -> Identity:
        address, now = network_of(call.host), self._clock()
        # Asked first: a signature takes far longer to check than this.
        wait = self._failures.wait_seconds(address, now)
        if wait:
            raise refusal.rate_limited("the address has failed to prove an identity", wait)
        try:
            return authenticator.authenticate(
                Credentials(authorization=authorization, certificate=call.certificate)
            )
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
