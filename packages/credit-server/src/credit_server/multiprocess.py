"""Serves with several processes: the supervisor starts the workers, and serves no call itself."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager

import structlog

from credit_server.app import failures_unwrapped, first_of, open_store, stop_signals
from credit_server.banner import address_of, banner
from credit_server.embedded import EmbeddedMongod
from credit_server.embedded.restarting import keep_running
from credit_server.http2.listener import stop_listening
from credit_server.listening import check_address, listen_for_workers
from credit_server.settings import ServerSettings
from credit_server.supervision import Supervisor, supervised
from credit_server.telemetry import Exposition, exposed
from credit_server.telemetry.workers import SummedMetrics
from credit_server.workers.group import WorkerGroup
from credit_server.workers.listener import Listener

log = structlog.get_logger("credit_server")

# A worker that does not stop in its time is killed after this additional time.
_OVERDUE_SECONDS = 10.0


async def serve(settings: ServerSettings) -> None:
    """Serve with workers until SIGINT or SIGTERM, then stop without losing anything.

    SIGHUP restarts the workers one by one.

    Raises:
        WorkerFailed: A worker could not start. It has printed the reason.
        StartError: The server cannot listen on its address.
        EmbeddedError: The embedded mongod cannot be started, or does not stay up.
        PartFailed: A part of the supervisor ended because of a bug.
    """
    hangup = asyncio.Event()
    # First: without a handler, SIGHUP ends the process.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
    metrics = SummedMetrics()
    group = WorkerGroup(
        settings.workers,
        metrics,
        shards=settings.commit.shards,
        stop_seconds=settings.grace_seconds + _OVERDUE_SECONDS,
    )
    metrics.watch_serving(lambda: group.serving)
    signalled = stop_signals(at_once=group.kill)
    await check_address(settings)
    async with (
        _embedded_mongod(settings) as mongod,
        failures_unwrapped(),
        supervised() as supervisor,
    ):
        if mongod is not None:
            supervisor.start("the embedded mongod", keep_running(mongod))
        async with AsyncExitStack() as stack:
            exposition = stack.enter_context(_exposed(settings, group, metrics))
            stack.push_async_callback(group.stop)
            await group.start(None if mongod is None else mongod.uri)
            listener = stack.enter_context(closing(await listen_for_workers(settings)))
            listener.start(group.pass_on)
            async with supervisor.parts_needed():
                supervisor.start("the restart of the workers", _restart_on(hangup, group))
                _start_parts(supervisor, group, exposition, settings.workers)
                log.info("serving", workers=settings.workers)
                shown = None if exposition is None else address_of(exposition.host, exposition.port)
                print(banner(settings, listener.port, shown), flush=True)  # noqa: T201 - it is for people
                await first_of(signalled, supervisor)
            await _stop_listening(group, listener, settings)
    log.info("stopped")


async def _stop_listening(group: WorkerGroup, listener: Listener, settings: ServerSettings) -> None:
    """Serve for the time of the drain, and stop listening: see `GrpcServer.stop`."""
    log.info("stopping", at_most_seconds=settings.drain_seconds + settings.grace_seconds)
    group.announce_stop()
    await asyncio.sleep(settings.drain_seconds)
    await stop_listening(listener, settle_seconds_max=settings.drain_seconds)


def _start_parts(
    supervisor: Supervisor, group: WorkerGroup, exposition: Exposition | None, workers: int
) -> None:
    for number in range(1, workers + 1):
        supervisor.start(f"the replacement of worker {number}", group.keep(number))
    if exposition is not None:
        supervisor.start("the server of the metrics", exposition.run())


async def _restart_on(hangup: asyncio.Event, group: WorkerGroup) -> None:
    """Restart the workers at each SIGHUP; signals during a restart are one signal after it."""
    while True:
        await hangup.wait()
        hangup.clear()
        log.info("SIGHUP: the workers are restarted one by one")
        await group.restart()


@asynccontextmanager
async def _embedded_mongod(settings: ServerSettings) -> AsyncIterator[EmbeddedMongod | None]:
    """Run the embedded mongod for all workers; None: the settings name a database."""
    if settings.mongodb_uri is not None:
        yield None
        return
    async with open_store(settings) as opened:
        await opened.store.close()  # the workers have clients of their own
        yield opened.mongod


@contextmanager
def _exposed(
    settings: ServerSettings, group: WorkerGroup, metrics: SummedMetrics
) -> Iterator[Exposition | None]:
    if not settings.metrics:
        yield None
        return
    with exposed(
        metrics.registry,
        ready=group.is_healthy,
        host=settings.metrics_host,
        port=settings.metrics_port,
        any_port_if_in_use="metrics_port" not in settings.model_fields_set,
    ) as exposition:
        yield exposition
