"""Puts the parts together: settings in, a running server out."""

import asyncio
import contextlib
import errno
import math
import os
import signal
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from grpclib.health.check import ServiceStatus

from credit_server.access import Authenticator, open_authenticator, open_tls
from credit_server.access.audit import AuditLog, ordinary_log
from credit_server.access.audit_file import AuditFile
from credit_server.access.authorize import Access, AccessLimits
from credit_server.access.tls import ServerTls
from credit_server.admission.list_slots import PageTurns
from credit_server.api.service import CreditService
from credit_server.commit import Clock, CommitLimits, Committer
from credit_server.embedded import EmbeddedError, EmbeddedMongod
from credit_server.errors import PartFailed, StartError
from credit_server.grpc.handler import CallLimits
from credit_server.grpc.server import GrpcServer
from credit_server.grpc.standard import standard_services
from credit_server.http2.address import try_address
from credit_server.http2.connections import Closing
from credit_server.http2.limits import ConnectionLimits
from credit_server.http2.unix_socket import socket_path
from credit_server.settings import ServerSettings, StoreSettings, is_loopback
from credit_server.store.connection_string import hosts_of
from credit_server.store.mongo import MongoStore
from credit_server.store.port import StoreUnavailable
from credit_server.supervision import Supervisor, supervised
from credit_server.telemetry import Exposition, HealthWatch, Telemetry, exposed
from credit_server.timer import Timers

log = structlog.get_logger("credit_server")

_RESTARTS_MAX = 3
_RESTARTS_SECONDS = 600.0
"""How often within this time an embedded mongod that dies is started again."""

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
async def open_store(settings: StoreSettings, *, page_size: int = 1000) -> AsyncIterator[OpenStore]:
    """Open the store that the settings name, or an embedded one.

    An embedded one gets its collections made; another must have been migrated.

    Raises:
        StartError: The database cannot be reached.
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
        store = MongoStore(
            uri,
            database=settings.mongodb_database,
            timeout_seconds=settings.store_timeout_seconds,
            page_size=page_size,
        )
        stack.callback(store.close)
        try:
            await store.check_topology()
        except StoreUnavailable as error:
            which = f"MongoDB at {hosts_of(uri)}" if mongod is None else "The embedded MongoDB"
            raise StartError(
                f"{which} cannot be reached. {error}. credit-server doctor tells more."
            ) from error
        if mongod is not None:
            await store.migrate()
        yield OpenStore(store=store, mongod=mongod)


async def migrate(settings: StoreSettings) -> int:
    """Bring the database's schema up to date and return its version."""
    async with open_store(settings) as opened:
        return await opened.store.migrate()


async def serve(settings: ServerSettings) -> None:
    """Serve until SIGINT or SIGTERM, then stop without losing anything.

    Raises:
        StartError: The address cannot be listened on, or the audit log's file not be opened.
        StoreError: The database cannot be reached, or is not what the server needs.
        EmbeddedError: The embedded mongod cannot be started, or does not stay up.
        FileUnusable: A certificate, or a file of keys or identities, cannot be used.
        PartFailed: A part of the running server ended by a bug.
    """
    tls = open_tls(settings)
    authenticator = open_authenticator(settings)
    signalled = _on_signals()
    await _check_address(settings)
    status = ServiceStatus()
    async with (
        _observed(settings, status) as observed,
        _open_audit(settings, authenticator) as audit,
        open_store(settings, page_size=settings.list_page_size) as opened,
        _failures_unwrapped(),
        supervised() as supervisor,
    ):
        store, telemetry = opened.store, observed.telemetry
        await store.verify_schema()
        clock = Clock(skew_seconds_max=settings.clock_skew_seconds_max)
        clock.compare(await store.ping())  # before the first write
        watch = HealthWatch(
            store,
            status,
            telemetry.store,
            clock,
            interval_seconds=settings.health_interval_seconds,
            timeout_seconds=settings.health_timeout_seconds,
        )
        async with (
            Committer(
                store,
                _commit_limits(settings),
                clock=clock,
                observer=telemetry.commits,
                start=supervisor.start,
            ) as committer,
            supervisor.parts_needed(),
        ):
            service = CreditService(
                committer,
                store,
                audit,
                _page_turns(settings),
                credits_max=settings.credits_max,
            )
            services = standard_services(service, status)
            server = GrpcServer(
                services,
                limits=_call_limits(settings),
                connections=_connection_limits(settings),
                access=Access(authenticator, audit=audit, limits=_access_limits(settings)),
                observer=telemetry.calls(
                    services,
                    server_address=socket_path(settings.host) or settings.host,
                    server_port=0 if socket_path(settings.host) else settings.port,
                ),
                writes=committer,
                timers=Timers(supervisor.failed),
            )
            telemetry.commits.watch_queue(lambda: committer.waiting)
            telemetry.connections.watch_open(lambda: len(server.connections.members))
            telemetry.commits.watch_shed(lambda: server.shed_total)
            telemetry.connections.watch_closed(lambda: server.connections.closed, Closing)
            await _listen(server, settings, tls)
            log.info("serving", tls=tls is not None, identities=authenticator is not None)
            await watch.look()  # before anybody reads the banner and probes
            print(banner(settings, server.port, observed.address), flush=True)  # noqa: T201 - it is for people
            watching = supervisor.start("the health watch", watch.run())
            _start_parts(supervisor, observed, tls, opened.mongod)
            try:
                await _first_of(signalled, supervisor)
            finally:
                watching.cancel()
                status.set(False)  # before anything else: probes learn of it first
                log.info(
                    "stopping", at_most_seconds=settings.drain_seconds + settings.grace_seconds
                )
                await server.stop(
                    grace_seconds=settings.grace_seconds, drain_seconds=settings.drain_seconds
                )
    log.info("stopped")


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
        supervisor.start("the embedded mongod", _keep_running(mongod))


async def _first_of(signalled: asyncio.Event, supervisor: Supervisor) -> None:
    """Return when a signal has come or a part has failed."""
    signal_comes = asyncio.create_task(signalled.wait())
    ends: list[asyncio.Future[Any]] = [signal_comes, supervisor.failure]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        signal_comes.cancel()


@asynccontextmanager
async def _failures_unwrapped() -> AsyncIterator[None]:
    """Raise the error of an embedded mongod that stays down as it is: it says what to do."""
    try:
        yield
    except PartFailed as failure:
        if isinstance(failure.__cause__, EmbeddedError):
            raise failure.__cause__ from None
        raise


def banner(settings: ServerSettings, port: int, metrics_address: str | None = None) -> str:
    """Describe a server that has started: addresses, store, how to stop, a line to try."""
    address = _address(settings.host, port)
    metrics = "no metrics" if metrics_address is None else f"http://{metrics_address}/metrics"
    if settings.mongodb_uri is None:
        store = f"embedded mongod, data in {settings.data_dir.resolve()}"
    else:
        hosts = hosts_of(settings.mongodb_uri.get_secret_value())
        store = f"MongoDB {hosts}, database {settings.mongodb_database}"
    lines = [
        f"credit-server listens on {address} ({_protection(settings)})",
        f"  store  {store}",
        f"  scrape {metrics}",
        "  stop   Ctrl-C or SIGTERM",
    ]
    if settings.tls_certificate is None and not settings.has_identities:
        lines.append(f"  try    credit add --target {address} --user 7 --app 1 --credits 120")
    return "\n".join(lines)


def _protection(settings: ServerSettings) -> str:
    """Tell how callers are known, and who may be a caller where they are not."""
    parts = ["no TLS" if settings.tls_certificate is None else "TLS 1.3"]
    if settings.token_keys is not None:
        parts.append("tokens")
    if settings.identities_file is not None:
        parts.append("client certificates")
    if not settings.has_identities:
        parts.append(f"no identities, open to {_reach(settings.host)}")
    return ", ".join(parts)


def _reach(host: str) -> str:
    if socket_path(host) is not None:
        return "all who may write to the socket's file"
    return "all of this machine" if is_loopback(host) else "all of the network: INSECURE"


def _address(host: str, port: int) -> str:
    path = socket_path(host)
    if path is not None:
        return f"unix:{path}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Observed:
    """What observes the server, and what shows it to Prometheus; None: nothing does."""

    telemetry: Telemetry
    exposition: Exposition | None

    @property
    def address(self) -> str | None:
        """Where Prometheus can ask; None: nowhere."""
        shown = self.exposition
        return None if shown is None else _address(shown.host, shown.port)


@asynccontextmanager
async def _observed(settings: ServerSettings, status: ServiceStatus) -> AsyncIterator[_Observed]:
    telemetry = Telemetry()
    with contextlib.ExitStack() as stack:
        exposition = None
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


def _call_limits(settings: ServerSettings) -> CallLimits:
    return CallLimits(
        message_bytes_max=settings.message_bytes_max,
        calls_max=settings.calls_max,
        call_deadline_seconds=settings.call_deadline_seconds,
        stream_deadline_seconds=settings.stream_deadline_seconds,
        deadline_seconds_max=settings.deadline_seconds_max,
        loop_lag_seconds_max=settings.loop_lag_seconds_max,
        overload_streams_max=settings.overload_streams_max,
    )


def _page_turns(settings: ServerSettings) -> PageTurns:
    return PageTurns(
        at_once=settings.list_pages_at_once, wait_seconds_max=settings.list_wait_seconds_max
    )


def _commit_limits(settings: ServerSettings) -> CommitLimits:
    return CommitLimits(
        lanes=settings.commit_lanes,
        waiting_max=settings.commit_waiting_max,
        wait_seconds_max=settings.commit_wait_seconds_max,
        batch_max=settings.commit_batch_max,
        retry_seconds=settings.commit_retry_seconds,
        cache_max=settings.commit_cache_max,
    )


def _connection_limits(settings: ServerSettings) -> ConnectionLimits:
    return ConnectionLimits(
        connections_max=settings.connections_max,
        connections_per_peer_max=settings.connections_per_peer_max,
        handshake_seconds=settings.connection_handshake_seconds,
        idle_seconds=settings.connection_idle_seconds,
        age_seconds=settings.connection_age_seconds,
        age_grace_seconds=settings.connection_age_grace_seconds,
        keepalive_seconds=settings.connection_keepalive_seconds,
        keepalive_timeout_seconds=settings.connection_keepalive_timeout_seconds,
        stalled_seconds=settings.connection_stalled_seconds,
        closing_seconds=settings.connection_closing_seconds,
        streams_max=settings.connection_streams_max,
        lists_max=settings.connection_lists_max,
        header_bytes_max=settings.connection_header_bytes_max,
        stream_window_bytes=settings.connection_stream_window_bytes,
        connection_window_bytes=settings.connection_window_bytes,
        request_bytes_max=settings.connection_request_bytes_max,
        write_buffer_bytes=settings.connection_write_buffer_bytes,
        resets_per_second=settings.connection_resets_per_second,
        resets_burst=settings.connection_resets_burst,
        control_frames_per_second=settings.connection_control_frames_per_second,
        control_frames_burst=settings.connection_control_frames_burst,
    )


@asynccontextmanager
async def _open_audit(
    settings: ServerSettings, authenticator: Authenticator | None
) -> AsyncIterator[AuditLog]:
    """Open the audit log: the file that is named, or the ordinary log where identities are known.

    Raises:
        StartError: The file cannot be opened.
    """
    if settings.audit_log is None:
        yield AuditLog(None if authenticator is None else ordinary_log)
        return
    try:
        file = AuditFile(settings.audit_log)
    except OSError as error:
        raise StartError(
            f"The audit log {settings.audit_log} cannot be opened: {error.strerror}."
            " See --audit-log."
        ) from error
    try:
        yield AuditLog(file)
    finally:
        file.close()


def _access_limits(settings: ServerSettings) -> AccessLimits:
    return AccessLimits(
        calls_per_second=settings.rate_per_second,
        calls_burst=settings.rate_burst,
        calls_running_max=settings.calls_per_identity_max,
        failures_per_second=settings.failures_per_second,
        failures_burst=settings.failures_burst,
        names_max=settings.rate_names_max,
    )


def _on_signals() -> asyncio.Event:
    """Return an event that SIGINT or SIGTERM sets; a later second signal ends the process at once.

    Supervisors and shells send one signal twice, within milliseconds: to the process and to its
    group. A second one counts from `SECOND_SIGNAL_SECONDS` after the first.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    counts_from = math.inf

    def stop() -> None:
        nonlocal counts_from
        if not stopped.is_set():
            counts_from = loop.time() + SECOND_SIGNAL_SECONDS
        elif loop.time() >= counts_from:
            # What was acknowledged is stored; an embedded mongod ends with this process.
            log.warning("stopped at once, by a second signal")
            os._exit(130)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopped


async def _check_address(settings: ServerSettings) -> None:
    """Fail on an address that cannot be listened on before a store is started in vain."""
    try:
        await try_address(settings.host, settings.port)
    except OSError as error:
        raise _not_listening(settings, error) from error


async def _listen(server: GrpcServer, settings: ServerSettings, tls: ServerTls | None) -> None:
    try:
        context = None if tls is None else tls.context
        await server.start(settings.host, settings.port, ssl=context)
    except OSError as error:
        raise _not_listening(settings, error) from error


def _not_listening(settings: ServerSettings, error: OSError) -> StartError:
    path = socket_path(settings.host)
    if path is not None:
        return _no_socket(path, error)
    remedy = {
        errno.EADDRINUSE: "another program uses it: choose another with --port, or 0 for any",
        errno.EACCES: "ports below 1024 need privileges: choose another with --port",
        errno.EADDRNOTAVAIL: "this machine does not have that address: see --host",
    }.get(error.errno or 0, "see --host and --port")
    return StartError(f"Cannot listen on {settings.host} port {settings.port}: {remedy}.")


def _no_socket(path: str, error: OSError) -> StartError:
    remedy = {
        errno.EADDRINUSE: "another server listens there: stop it, or choose another path",
        errno.EEXIST: "there is a file that is no socket: remove it, or choose another path",
        errno.ENOENT: "its folder does not exist: make it",
        errno.EACCES: "its folder cannot be written to: see its permissions",
    }.get(error.errno or 0, error.strerror or str(error))
    return StartError(f"Cannot listen on unix:{path}: {remedy}. See --host.")


async def _keep_running(mongod: EmbeddedMongod) -> None:
    """Start the embedded mongod again when it dies.

    Raises:
        EmbeddedError: It died too often, or cannot be started again.
    """
    loop = asyncio.get_running_loop()
    deaths: deque[float] = deque(maxlen=_RESTARTS_MAX)
    while True:
        reason = await mongod.wait_exited()
        if len(deaths) == _RESTARTS_MAX and loop.time() - deaths[0] < _RESTARTS_SECONDS:
            raise EmbeddedError(
                f"The embedded mongod died more than {_RESTARTS_MAX} times within"
                f" {_RESTARTS_SECONDS:.0f} s: {reason}"
            )
        deaths.append(loop.time())
        log.error("the embedded mongod is started again", reason=reason)
        await mongod.restart()
        log.info("the embedded mongod is back")
