"""The whole server in this process, on a free port."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from credit_models import UserCredits, UserId
from credit_models.http2_engine import Engine
from credit_models.ledger import UINT32_MAX
from credit_server.access import Authenticator
from credit_server.access.audit import AuditLog, Sink
from credit_server.access.authorize import Access, AccessLimits
from credit_server.admission.list_slots import ListSlots
from credit_server.api.alert_service import AlertService
from credit_server.api.commands import Commands
from credit_server.api.contract import CONTRACT
from credit_server.api.directory_service import DirectoryService
from credit_server.api.history_service import HistoryService
from credit_server.api.ledger_service import LedgerService
from credit_server.api.service import CreditService
from credit_server.api.watch_hub import WatchHub
from credit_server.commit import Clock, CommitLimits, Committer
from credit_server.grpc.handler import CallHandler, CallLimits
from credit_server.grpc.server import GrpcServer
from credit_server.grpc.standard import with_standard_services
from credit_server.http2.connection import ServerProtocol
from credit_server.http2.limits import ConnectionLimits
from credit_server.store.memory import MemoryStore
from credit_server.store.port import Store
from credit_testing.http2_client import Connection
from grpclib.health.check import ServiceStatus

MESSAGE_BYTES_MAX = 4096
# On a busy machine, the event loop may pause for seconds between two steps of a test, and thousands
# of operations may take longer than the server's default deadline.
LIMITS = CallLimits(
    message_bytes_max=MESSAGE_BYTES_MAX, loop_lag_seconds_max=3600.0, call_deadline_seconds=3600.0
)


# The library for HTTP/2 of the servers that a test starts: see the fixture `engine`.
ENGINE = Engine.AUTO


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """A running server."""

    server: GrpcServer
    status: ServiceStatus

    @property
    def port(self) -> int:
        return self.server.port

    def later(self, seconds: float) -> None:
        """Make the server act as if so many seconds had passed on its connections."""
        connections = self.server.connections
        connections.sweep(connections.clock() + seconds)

    async def wait_quiet(self) -> None:
        """Wait until no call of the contract runs."""
        await self.wait_running(0)

    async def wait_running(self, count: int) -> None:
        """Wait until this number of calls of the contract run."""
        await until(lambda: self.server._admission._running == count)

    def running_calls(self) -> int:
        """Count the calls that the server holds, on all its connections."""
        return sum(
            len(protocol.processor.streams) + (not handler_of(protocol).check_closed())
            for protocol in self.server._protocols
        )


def handler_of(protocol: ServerProtocol) -> CallHandler:
    """Return the handler of a connection's calls."""
    assert isinstance(protocol.handler, CallHandler)
    return protocol.handler


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
    list_slots: ListSlots | None = None,
    hub: WatchHub | None = None,
    webhook_allow_private: bool = False,
) -> AsyncIterator[Serving]:
    """Start a server, and stop it at the end unless the test has stopped it."""
    store = store or MemoryStore()
    audit = AuditLog(audit_sink, translate=CONTRACT.translate)
    async with Committer(store, limits, clock=clock) as committer:
        status = ServiceStatus()
        status.set(True)
        access = Access(authenticator, audit=audit, limits=access_limits)
        commands = Commands(store, credits_max=credits_max)
        call_limits = call_limits or LIMITS
        server = GrpcServer(
            with_standard_services(
                [
                    CreditService(committer, store, audit, list_slots, commands=commands),
                    LedgerService(
                        committer,
                        store,
                        commands,
                        audit,
                        access,
                        list_slots,
                        operation_seconds=call_limits.call_deadline_seconds,
                    ),
                    HistoryService(store, committer.clock, audit, access, list_slots, hub=hub),
                    AlertService(
                        committer,
                        store,
                        audit,
                        list_slots,
                        webhook_allow_private=webhook_allow_private,
                    ),
                    DirectoryService(store, committer.clock, audit),
                ],
                status,
                CONTRACT.files,
            ),
            limits=call_limits,
            connections=connections or ConnectionLimits(),
            access=access,
            contract=CONTRACT,
            engine=ENGINE,
        )
        await server.start("127.0.0.1", 0, ssl=tls)
        try:
            yield Serving(server=server, status=status)
        finally:
            if not server.connections.draining:
                await server.stop(grace_seconds=0)


async def until(condition: Callable[[], bool]) -> None:
    """Yield to the event loop until a condition holds."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


async def is_served(wire: Connection) -> None:
    """Check that a call of this connection succeeds."""
    answer = await wire.call("GetUserCredits", UserId(user_id=4_000_000_000))
    assert answer.message(UserCredits).user_id == 4_000_000_000
