"""A whole server on the memory store, with its telemetry."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from credit_server.access.audit import AuditLog
from credit_server.access.authorize import Access
from credit_server.api.alert_service import AlertService
from credit_server.api.commands import Commands
from credit_server.api.contract import CONTRACT
from credit_server.api.directory_service import DirectoryService
from credit_server.api.history_service import HistoryService
from credit_server.api.ledger_service import LedgerService
from credit_server.api.operations import KINDS
from credit_server.api.service import CreditService
from credit_server.commit import CommitLimits, Committer
from credit_server.grpc.handler import CallLimits
from credit_server.grpc.server import GrpcServer
from credit_server.grpc.standard import with_standard_services
from credit_server.store.memory import MemoryStore
from credit_server.telemetry import Telemetry
from grpclib._typing import ICheckable
from grpclib.health.check import ServiceStatus
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

ADDRESS = "127.0.0.1"


@dataclass(kw_only=True)
class Sdk:
    """An SDK of OpenTelemetry that keeps the spans in memory."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def telemetry(self) -> Telemetry:
        return Telemetry(tracer_provider=self.tracers)

    def spans(self, name: str) -> Sequence[ReadableSpan]:
        """Return the ended spans with a name, oldest first."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        """Return the only span with a name."""
        (span,) = self.spans(name)
        return span


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A server and its telemetry."""

    server: GrpcServer
    telemetry: Telemetry

    @property
    def port(self) -> int:
        return self.server.port

    def value(self, name: str, **labels: str) -> float:
        """Return the value of an exported sample."""
        value = self.telemetry.registry.get_sample_value(name, labels)
        assert value is not None, f"there is no {name} {labels}"
        return value

    async def quiet(self) -> None:
        """Wait until no call of the contract runs."""
        while self.server._admission._running:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


@asynccontextmanager
async def observed(
    telemetry: Telemetry,
    store: MemoryStore | None = None,
    *,
    limits: CommitLimits | None = None,
) -> AsyncIterator[Observed]:
    """Run a server inside the context."""
    store = store or MemoryStore()
    async with Committer(store, limits, observer=telemetry.commits) as committer:
        status, audit = ServiceStatus(), AuditLog(None, translate=CONTRACT.translate)
        status.set(True)
        access, commands = Access(None, audit=audit), Commands(store)
        contract: list[ICheckable] = [
            CreditService(committer, store, audit, commands=commands),
            LedgerService(committer, store, commands, audit, access, operation_seconds=30.0),
            HistoryService(store, committer.clock, audit, access),
            AlertService(committer, store, audit),
            DirectoryService(store, committer.clock, audit),
        ]
        services = with_standard_services(contract, status, CONTRACT.files)
        calls = telemetry.calls(
            services, server_address=ADDRESS, server_port=0, operation_kinds=KINDS
        )
        server = GrpcServer(
            services,
            limits=CallLimits(message_bytes_max=4096),
            access=access,
            contract=CONTRACT,
            observer=calls,
        )
        telemetry.commits.watch_queue(lambda: committer.waiting)
        telemetry.connections.watch_open(lambda: len(server.connections.members))
        await server.start(ADDRESS, 0)
        try:
            yield Observed(server=server, telemetry=telemetry)
        finally:
            await server.stop(grace_seconds=0)
