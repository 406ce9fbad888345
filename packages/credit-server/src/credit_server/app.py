"""Puts the parts together: settings in, a running server out."""

import asyncio
import contextlib
import errno
import os
import signal
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from grpclib.health.check import ServiceStatus
from pydantic import SecretStr

from credit_server.commit import CommitLimits, Committer
from credit_server.embedded import EmbeddedError, EmbeddedMongod
from credit_server.errors import StartError
from credit_server.settings import ServerSettings, StoreSettings
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Store, StoreUnavailable
from credit_server.transport.handler import CallLimits
from credit_server.transport.server import GrpcServer
from credit_server.transport.service import CreditService
from credit_server.transport.standard import standard_services

log = structlog.get_logger("credit_server")

_RESTARTS_MAX = 3
_RESTARTS_SECONDS = 600.0
"""How often within this time an embedded mongod that dies is started again."""


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
            where = "embedded" if settings.mongodb_uri is None else _hosts(settings.mongodb_uri)
            raise StartError(f"The store at {where} cannot be reached. {error}.") from error
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
        StartError: The address cannot be listened on.
        StoreError: The database cannot be reached, or is not what the server needs.
        EmbeddedError: The embedded mongod cannot be started, or does not stay up.
    """
    stopped = _on_signals()
    async with open_store(settings, page_size=settings.list_page_size) as opened:
        store = opened.store
        await store.verify_schema()
        status = ServiceStatus()
        async with Committer(store, _commit_limits(settings)) as committer:
            server = GrpcServer(
                standard_services(CreditService(committer, store), status),
                limits=_call_limits(settings),
            )
            await _listen(server, settings)
            status.set(True)
            print(banner(settings, server.port), flush=True)  # noqa: T201 - it is for people
            watch = asyncio.create_task(_watch_store(store, status, settings))
            tasks: list[asyncio.Task[Any]] = [asyncio.create_task(stopped.wait())]
            if opened.mongod is not None:
                tasks.append(asyncio.create_task(_keep_running(opened.mongod)))
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                log.info("stopping", at_most_seconds=settings.grace_seconds)
                watch.cancel()
                status.set(False)
                await server.stop(grace_seconds=settings.grace_seconds)
                for task in tasks:
                    task.cancel()
                await _first_error(tasks)


def banner(settings: ServerSettings, port: int) -> str:
    """Describe a server that has started: address, store, how to stop, a line to try."""
    address = f"[{settings.host}]:{port}" if ":" in settings.host else f"{settings.host}:{port}"
    if settings.mongodb_uri is None:
        store = f"embedded mongod, data in {settings.data_dir.resolve()}"
    else:
        store = f"MongoDB {_hosts(settings.mongodb_uri)}, database {settings.mongodb_database}"
    return "\n".join(
        [
            f"credit-server listens on {address} (no TLS, no identities)",
            f"  store  {store}",
            "  stop   Ctrl-C or SIGTERM",
            f"  try    credit add --target {address} --user 7 --app 1 --credits 120",
        ]
    )


def _hosts(uri: SecretStr) -> str:
    """Tell a connection string's hosts; its user, password and options are nobody's business."""
    server = uri.get_secret_value().partition("://")[2]
    # A password may hold any sign but these two unescaped; MongoDB refuses it otherwise.
    return server.partition("/")[0].partition("?")[0].rpartition("@")[2]


def _call_limits(settings: ServerSettings) -> CallLimits:
    return CallLimits(
        message_bytes_max=settings.message_bytes_max,
        calls_max=settings.calls_max,
        call_deadline_seconds=settings.call_deadline_seconds,
        stream_deadline_seconds=settings.stream_deadline_seconds,
        deadline_seconds_max=settings.deadline_seconds_max,
        loop_lag_seconds_max=settings.loop_lag_seconds_max,
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


def _on_signals() -> asyncio.Event:
    """Return an event that SIGINT or SIGTERM sets; a second signal ends the process at once."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopped.is_set():
            # What was acknowledged is stored; an embedded mongod ends with this process.
            log.warning("stopped at once, by a second signal")
            os._exit(130)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopped


async def _listen(server: GrpcServer, settings: ServerSettings) -> None:
    try:
        await server.start(settings.host, settings.port)
    except OSError as error:
        remedy = {
            errno.EADDRINUSE: "another program uses it: choose another with --port, or 0 for any",
            errno.EACCES: "ports below 1024 need privileges: choose another with --port",
            errno.EADDRNOTAVAIL: "this machine does not have that address: see --host",
        }.get(error.errno or 0, "see --host and --port")
        raise StartError(
            f"Cannot listen on {settings.host} port {settings.port}: {remedy}."
        ) from error


async def _watch_store(store: Store, status: ServiceStatus, settings: ServerSettings) -> None:
    """Keep the health service true: whether the store takes writes."""
    while True:
        await asyncio.sleep(settings.health_interval_seconds)
        try:
            async with asyncio.timeout(settings.store_timeout_seconds):
                await store.ping()
            healthy = True
        except Exception as error:  # noqa: BLE001 - whatever it is, the store did not say it is well
            healthy = False
            if status.__status__():
                log.warning("the store is away", error=str(error) or type(error).__name__)
        if healthy and not status.__status__():
            log.info("the store is back")
        status.set(healthy)


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


async def _first_error(tasks: list[asyncio.Task[Any]]) -> None:
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
