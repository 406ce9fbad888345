"""Run the whole server in this process, on a free port."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from credit_models import UserCredits, UserId
from credit_server.access import Authenticator
from credit_server.access.audit import AuditLog, Sink
from credit_server.access.authorize import Access, AccessLimits
from credit_server.admission.list_slots import PageTurns
from credit_server.api.service import CreditService
from credit_server.commit import Clock, CommitLimits, Committer
from credit_server.grpc.handler import CallLimits
from credit_server.grpc.server import GrpcServer
from credit_server.grpc.standard import standard_services
from credit_server.http2.limits import ConnectionLimits
from credit_server.ledger import UINT32_MAX
from credit_server.store.memory import MemoryStore
from credit_server.store.port import Store
from credit_testing.http2_client import Wire
from grpclib.health.check import ServiceStatus

MESSAGE_BYTES_MAX = 4096
# A busy machine lets the loop wait for seconds between two steps of a test.
LIMITS = CallLimits(message_bytes_max=MESSAGE_BYTES_MAX, loop_lag_seconds_max=3600.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """A server that serves."""

    server: GrpcServer
    status: ServiceStatus

    @property
    def port(self) -> int:
        return self.server.port

    def later(self, seconds: float) -> None:
        """Lets the server act as if that much time had passed on its connections."""
        connections = self.server.connections
        connections.sweep(connections.clock() + seconds)

    async def wait_quiet(self) -> None:
        """Waits until no call of the contract runs."""
        await until(lambda: self.server._gate._running == 0)

    def running_calls(self) -> int:
        """Counts what the server holds for calls, on all its connections."""
        return sum(
            len(protocol.processor.streams) + (not protocol.handler.check_closed())
            for protocol in self.server._protocols
        )


@asynccontextmanager
async def serving(
    store: Store | None = None,
    *,
    limits: CommitLimits | None = None,
    clock: Clock | None = None,
    connections: ConnectionLimits | None = None,
    tls: ssl.SSLContext | None = None,
    authenticator: Authenticator | None = None,
    access_limits: AccessLimits | None = None,
    audit_sink: Sink | None = None,
    call_limits: CallLimits | None = None,
    credits_max: int = UINT32_MAX,
    turns: PageTurns | None = None,
) -> AsyncIterator[Serving]:
    """Starts a server, and stops it in the end if the test has not."""
    store = store or MemoryStore()
    audit = AuditLog(audit_sink)
    async with Committer(store, limits, clock=clock) as committer:
        status = ServiceStatus()
        status.set(True)
        server = GrpcServer(
            standard_services(
                CreditService(committer, store, audit, turns, credits_max=credits_max), status
            ),
            limits=call_limits or LIMITS,
            connections=connections or ConnectionLimits(),
            access=Access(authenticator, audit=audit, limits=access_limits),
        )
        await server.start("127.0.0.1", 0, ssl=tls)
        try:
            yield Serving(server=server, status=status)
        finally:
            if not server.connections.draining:
                await server.stop(grace_seconds=0)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what nothing signals, one turn of the loop after the other."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


async def is_served(wire: Wire) -> None:
    """Fails unless a call of this connection works."""
    answer = await wire.call("GetUserCredits", UserId(user_id=4_000_000_000))
    assert answer.message(UserCredits).user_id == 4_000_000_000
