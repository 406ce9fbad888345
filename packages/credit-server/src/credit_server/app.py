"""Puts the server together: settings in, a running server out."""

import asyncio
import contextlib
import math
import os
import signal
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from credit_models.checkpoint import Checkpoint
from credit_models.ledger import GENESIS
from grpclib._typing import ICheckable
from grpclib.health.check import ServiceStatus

from credit_server.access import open_authenticator, open_tls
from credit_server.access.audit import open_audit
from credit_server.access.authorize import Access
from credit_server.access.tls import ServerTls
from credit_server.admission.list_slots import ListSlots
from credit_server.api.alert_service import AlertService
from credit_server.api.commands import Commands
from credit_server.api.contract import CONTRACT
from credit_server.api.directory_service import DirectoryService
from credit_server.api.history_service import HistoryService
from credit_server.api.ledger_service import LedgerService
from credit_server.api.operations import KINDS
from credit_server.api.service import CreditService
from credit_server.api.watch_hub import WatchHub
from credit_server.banner import address_of, banner
from credit_server.checkpoint import write_checkpoint
from credit_server.commit import (
    Clock,
    Committer,
    EventOrder,
    EventRetention,
    Sweeper,
    SweepLimits,
)
from credit_server.embedded import EmbeddedError, EmbeddedMongod, open_uri
from credit_server.embedded.restarting import keep_running
from credit_server.errors import PartFailed, StartError
from credit_server.grpc.server import GrpcServer
from credit_server.grpc.standard import with_standard_services
from credit_server.http2.connections import Closing
from credit_server.http2.unix_socket import socket_path
from credit_server.listening import check_address, listen
from credit_server.settings import ServerSettings, StoreSettings
from credit_server.store.connection import hosts_of
from credit_server.store.errors import UserRejected
from credit_server.store.mongo import MongoStore
from credit_server.store.port import StoreUnavailable
from credit_server.supervision import Supervisor, Timers, supervised
from credit_server.telemetry import Exposition, HealthWatch, Telemetry, exposed
from credit_server.telemetry.workers import exported
from credit_server.webhooks.dispatcher import Dispatcher
from credit_server.webhooks.sender import Sender
from credit_server.workers.worker import Assignment, Worker

log = structlog.get_logger("credit_server")

SECOND_SIGNAL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenStore:
    """A store that is ready for use.

    Attributes:
        store: The store.
        mongod: The embedded mongod behind it; None where the settings name a database.
    """

    store: MongoStore
    mongod: EmbeddedMongod | None


@asynccontextmanager
async def open_store(
    settings: StoreSettings, *, migrate_embedded: bool = True
) -> AsyncIterator[OpenStore]:
    """Open the store that the settings name, or an embedded one.

    A database that is not embedded must already be migrated.

    Args:
        settings: Where the store is.
        migrate_embedded: Whether to create the collections of an embedded database.

    Raises:
        StartError: The database cannot be reached, or rejects the user.
        StoreError: The database is not what the server needs.
        EmbeddedError: The embedded mongod cannot be started.
    """
    async with contextlib.AsyncExitStack() as stack:
        mongod = None
        if settings.mongodb_uri is None:
            mongod = await stack.enter_async_context(EmbeddedMongod(data_dir=settings.data_dir))
            uri = mongod.uri
        else:
            uri = settings.mongodb_uri.get_secret_value()
        store = await stack.enter_async_context(_connected(settings, uri))
        if mongod is not None and migrate_embedded:
            await store.migrate()
        yield OpenStore(store=store, mongod=mongod)


@asynccontextmanager
async def _connected(settings: StoreSettings, uri: str) -> AsyncIterator[MongoStore]:
    store = MongoStore(
        uri,
        database=settings.mongodb_database,
        timeout_seconds=settings.store_timeout_seconds,
    )
    try:
        try:
            await store.check_topology()
        except UserRejected as error:
            raise StartError(f"{error}.") from error
        except StoreUnavailable as error:
            embedded = settings.mongodb_uri is None
            which = "The embedded MongoDB" if embedded else f"MongoDB at {hosts_of(uri)}"
            raise StartError(
                f"{which} cannot be reached. {error}. Run credit-server doctor for details."
            ) from error
        yield store
    finally:
        await store.close()


async def migrate(
    settings: StoreSettings, *, shards: bool = True, on_wait: Callable[[], None] = lambda: None
) -> int:
    """Bring the database's schema up to date and return its version.

    Args:
        settings: Where the store is.
        shards: Whether to shard collections if MongoDB is a sharded cluster.
        on_wait: Called once if another process migrates the database. This one waits.
    """
    async with open_store(settings, migrate_embedded=False) as opened:
        return await opened.store.migrate(shards=shards, on_wait=on_wait)


async def planned_migration(settings: StoreSettings, *, shards: bool = True) -> list[str]:
    """Return what `migrate` would do, one sentence for each step. Nothing is changed."""
    async with open_store(settings, migrate_embedded=False) as opened:
        return await opened.store.planned_migration(shards=shards)


async def checkpoint(settings: StoreSettings, app_id: int, *, key: Path, file: Path) -> Checkpoint:
    """Write a checkpoint of an app; see `write_checkpoint`.

    Nothing is migrated. The embedded mongod of a running server is used; without one, it runs until
    the file is complete.
    """
    async with contextlib.AsyncExitStack() as stack:
        if settings.mongodb_uri is None:
            uri = await stack.enter_async_context(open_uri(settings.data_dir))
        else:
            uri = settings.mongodb_uri.get_secret_value()
        store = await stack.enter_async_context(_connected(settings, uri))
        await store.verify_schema()
        return await write_checkpoint(store, app_id, key=key, file=file)


async def serve(settings: ServerSettings, assignment: Assignment | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then stop without losing anything.

    Args:
        settings: The settings; in a worker, those of the worker.
        assignment: What a supervisor has given to this process; None: it serves alone.

    Raises:
        StartError: The server cannot listen on its address or open its audit log.
        StoreError: The database cannot be reached, or does not meet the server's requirements.
        EmbeddedError: The embedded mongod cannot be started, or does not stay up.
        FileUnusable: A certificate, or a file of keys or identities, cannot be used.
        PartFailed: A part of the running server ended because of a bug.
    """
    tls = open_tls(settings.tls_files)
    authenticator = open_authenticator(settings.identity_files)
    worker = None if assignment is None else Worker(assignment)
    if worker is None:
        signalled, status = stop_signals(), ServiceStatus()
        await check_address(settings)
    else:
        signalled, status = worker.stopped, worker.status
    async with (
        _observed(settings, status, worker) as observed,
        open_audit(
            settings.audit_log,
            identities=authenticator is not None,
            translate=CONTRACT.translate,
        ) as audit,
        open_store(settings) as opened,
        failures_unwrapped(),
        supervised() as supervisor,
    ):
        await opened.store.verify_schema()
        clock = Clock(
            store_seconds_max=2 * settings.store_timeout_seconds,
        )
        watch = HealthWatch(opened.store, status, observed.telemetry.store, clock)
        await watch.begin()  # the clocks are compared before the first write
        order = EventOrder(opened.store)
        async with (
            Committer(
                opened.store,
                settings.commit,
                clock=clock,
                observer=observed.telemetry.commits,
                start=supervisor.start,
                turns=() if worker is None else worker.turns,
                genesis=GENESIS if settings.begin_hash_chains else None,
                on_events=order.wake,
            ) as committer,
            supervisor.parts_needed(),
            Sender(allow_private=settings.webhook_allow_private) as sender,
        ):
            access = Access(authenticator, audit=audit, limits=settings.access)
            commands = Commands(opened.store, credits_max=settings.credits_max)
            list_slots = ListSlots()
            hub = WatchHub(
                opened.store,
                watchers_max=settings.call.calls_max,
                observer=observed.telemetry.watchers,
            )
            contract = (
                CreditService(committer, opened.store, audit, list_slots, commands=commands),
                LedgerService(
                    committer,
                    opened.store,
                    commands,
                    audit,
                    access,
                    list_slots,
                    operation_seconds=settings.call.call_deadline_seconds,
                ),
                HistoryService(opened.store, committer.clock, audit, access, list_slots, hub=hub),
                AlertService(
                    committer,
                    opened.store,
                    audit,
                    list_slots,
                    webhook_allow_private=settings.webhook_allow_private,
                ),
                DirectoryService(
                    opened.store, committer.clock, audit, user_ids_from=settings.user_ids_from
                ),
            )
            server = _server(settings, contract, status, access, committer, observed, supervisor)
            if worker is None:
                await listen(server, settings, tls)
            else:
                server.start_without_listening(ssl=None if tls is None else tls.context)
            log.info("serving", tls=tls is not None, identities=authenticator is not None)
            watch.announce()  # before anyone reads the banner and probes
            if worker is None:
                print(banner(settings, server.port, observed.address), flush=True)  # noqa: T201 - it is for people
            else:
                worker.serve(server.accept)
                supervisor.start(
                    "the report of connections", worker.report(lambda: server.open_connections)
                )
            watching = supervisor.start("the health watch", watch.run())
            sweeper = Sweeper(
                opened.store,
                committer,
                clock,
                observed.telemetry.sweeper,
                SweepLimits(per_second=settings.settle_per_second),
            )
            sweeping = supervisor.start("the sweeper", sweeper.run())
            dispatcher = Dispatcher(opened.store, sender, observed.telemetry.webhooks)
            ordering = supervisor.start("the order of events", order.run(dispatcher.wake))
            retention = EventRetention(opened.store, committer.clock)
            removing = supervisor.start("the removal of old events", retention.run())
            dispatching = supervisor.start("the webhooks", dispatcher.run())
            _start_parts(supervisor, observed, tls, opened.mongod)
            try:
                await first_of(signalled, supervisor)
            finally:
                watching.cancel()
                sweeping.cancel()
                ordering.cancel()
                removing.cancel()
                dispatching.cancel()
                if worker is None or not worker.others_serve:
                    status.set(False)  # before anything else, so that probes see it first
                await _stop(server, settings, worker)
    log.info("stopped")


def _server(
    settings: ServerSettings,
    contract: Collection[ICheckable],
    status: ServiceStatus,
    access: Access,
    committer: Committer,
    observed: "_Observed",
    supervisor: Supervisor,
) -> GrpcServer:
    """Make the server of the calls, and let its figures be observed."""
    services = with_standard_services(contract, status, CONTRACT.files)
    on_socket = socket_path(settings.host)
    telemetry = observed.telemetry
    server = GrpcServer(
        services,
        limits=settings.call,
        connections=settings.connection,
        access=access,
        contract=CONTRACT,
        observer=telemetry.calls(
            services,
            server_address=on_socket or settings.host,
            server_port=0 if on_socket else settings.port,
            operation_kinds=KINDS,
        ),
        write_queue=committer,
        timers=Timers(supervisor.failed),
        engine=settings.http2,
    )
    telemetry.commits.watch_queue(lambda: committer.waiting)
    telemetry.connections.watch_open(lambda: len(server.connections.members))
    telemetry.commits.watch_shed(lambda: server.shed_total)
    telemetry.connections.watch_closed(lambda: server.connections.closed, Closing)
    return server


async def _stop(server: GrpcServer, settings: ServerSettings, worker: Worker | None) -> None:
    log.info("stopping", at_most_seconds=settings.drain_seconds + settings.grace_seconds)
    drain_seconds = settings.drain_seconds
    if worker is not None:  # the supervisor waits for the drain time if the whole server stops
        await worker.leave()
        drain_seconds = 0
    await server.stop(grace_seconds=settings.grace_seconds, drain_seconds=drain_seconds)


def _start_parts(
    supervisor: Supervisor,
    observed: "_Observed",
    tls: ServerTls | None,
    mongod: EmbeddedMongod | None,
) -> None:
    """Start what runs beside the calls and takes no part in answering them."""
    supervisor.start("the metric of the event loop", observed.telemetry.process.watch_loop())
    if observed.exposition is not None:
        supervisor.start("the server of the metrics", observed.exposition.run())
    if tls is not None:
        watch = observed.telemetry.certificates.watch(tls.validities)
        supervisor.start("the watch of the certificates", watch)
    if mongod is not None:
        supervisor.start("the embedded mongod", keep_running(mongod))


async def first_of(signalled: asyncio.Event, supervisor: Supervisor) -> None:
    """Return when a signal has come or a part has failed."""
    signal_comes = asyncio.create_task(signalled.wait())
    ends: list[asyncio.Future[Any]] = [signal_comes, supervisor.failure]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        signal_comes.cancel()


@asynccontextmanager
async def failures_unwrapped() -> AsyncIterator[None]:
    """Raise the error of an embedded mongod that stays down itself: it names the remedy."""
    try:
        yield
    except PartFailed as failure:
        if isinstance(failure.__cause__, EmbeddedError):
            raise failure.__cause__ from None
        raise


@dataclass(frozen=True, kw_only=True, slots=True)
class _Observed:
    """What observes the server.

    Attributes:
        telemetry: What is counted and measured.
        exposition: What shows the metrics to Prometheus; None: nothing does.
    """

    telemetry: Telemetry
    exposition: Exposition | None

    @property
    def address(self) -> str | None:
        """Where Prometheus can read the metrics; None: nowhere."""
        shown = self.exposition
        return None if shown is None else address_of(shown.host, shown.port)


@asynccontextmanager
async def _observed(
    settings: ServerSettings, status: ServiceStatus, worker: Worker | None
) -> AsyncIterator[_Observed]:
    telemetry = Telemetry()
    with contextlib.ExitStack() as stack:
        exposition = None
        if worker is not None:
            stack.enter_context(exported(telemetry.registry, worker.metrics))
        if settings.metrics:
            exposition = stack.enter_context(
                exposed(
                    telemetry.registry,
                    ready=lambda: bool(status.__status__()),
                    host=settings.metrics_host,
                    port=settings.metrics_port,
                    any_port_if_in_use="metrics_port" not in settings.model_fields_set,
                )
            )
        yield _Observed(telemetry=telemetry, exposition=exposition)


def stop_signals(at_once: Callable[[], None] = lambda: None) -> asyncio.Event:
    """Return an event that SIGINT or SIGTERM sets. A later second signal ends the process at once.

    Supervisors and shells send one signal twice, within milliseconds: to the process and to its
    group. A second one counts from `SECOND_SIGNAL_SECONDS` after the first.

    Args:
        at_once: Called before the process ends at once.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    counts_from = math.inf

    def stop() -> None:
        nonlocal counts_from
        if not stopped.is_set():
            counts_from = loop.time() + SECOND_SIGNAL_SECONDS
        elif loop.time() >= counts_from:
            # What was acknowledged is stored. An embedded mongod ends with this process.
            log.warning("stopped at once, by a second signal")
            at_once()
            os._exit(130)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopped
