"""The workers of a server: start them, spread connections, replace the dead, restart, stop."""

import asyncio
import signal
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection

import structlog

from credit_server.errors import WorkerFailed
from credit_server.telemetry.workers import SummedMetrics
from credit_server.workers.process import WorkerProcess
from credit_server.workers.turns import make_turns

log = structlog.get_logger("credit_server")

# A worker that ran for less than this has died early. The start of its successor is then delayed.
_EARLY_SECONDS = 60.0
_PAUSE_INITIAL_SECONDS = 0.5
_PAUSE_SECONDS_MAX = 30.0
_DOUBLINGS_MAX = 10

Sleep = Callable[[float], Awaitable[None]]


class WorkerGroup:
    """Keeps a number of workers running, and passes connections to them."""

    def __init__(
        self,
        count: int,
        metrics: SummedMetrics,
        *,
        shards: int,
        stop_seconds: float,
    ) -> None:
        """Create the group without starting a worker.

        Args:
            count: The number of workers.
            metrics: Adds up what the workers count.
            shards: The number of shards of each worker's committer.
            stop_seconds: How long a worker may take to finish its calls; then it is killed.
        """
        self._count = count
        self._metrics = metrics
        self._turns = make_turns(shards)
        self._stop_seconds = stop_seconds
        self._mongodb_uri: str | None = None
        # The worker of each number, and all whose process runs: also those that are replaced.
        self._current: dict[int, WorkerProcess] = {}
        self._running: dict[WorkerProcess, asyncio.Task[None]] = {}
        self._changing: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._stopping = False

    @property
    def serving(self) -> int:
        """The number of workers that take connections. Any thread may read it."""
        return len(self._taking())

    def is_healthy(self) -> bool:
        """Return whether there are workers that take connections, and all of them take writes.

        Any thread may call it.
        """
        taking = self._taking()
        return bool(taking) and not self._stopping and all(worker.healthy for worker in taking)

    async def start(self, mongodb_uri: str | None) -> None:
        """Start the workers. The first starts alone, so that a wrong setting is reported once.

        Args:
            mongodb_uri: The connection string of an embedded mongod; None: their settings name one.

        Raises:
            WorkerFailed: One ended before it served.
        """
        self._mongodb_uri = mongodb_uri
        self._current[1] = await self._begin(1)
        numbers = range(2, self._count + 1)
        begun = await asyncio.gather(*(self._begin(number) for number in numbers))
        self._current.update(zip(numbers, begun, strict=True))

    def pass_on(self, connection: socket.socket) -> bool:
        """Pass a connection to the worker that has the fewest; return whether a worker took it."""
        by_load = sorted(self._taking(), key=lambda worker: (worker.connections, worker.passed))
        return any(worker.pass_on(connection) for worker in by_load)

    async def keep(self, number: int, *, sleep: Sleep = asyncio.sleep) -> None:
        """Replace the worker of a number whenever it leaves by itself."""
        early = 0
        while not self._stopping:
            worker = self._current[number]
            await worker.leaving.wait()
            async with self._changing[number]:
                if self._stopping or self._current[number] is not worker:
                    continue  # the worker left because of `stop` or `restart`
                early = early + 1 if worker.seconds() < _EARLY_SECONDS else 0
                log.error(
                    "a worker is replaced", worker=number, pid=worker.pid, reason=ending(worker)
                )
                self._metrics.replaced.inc()
                successor = await self._replacement(number, early, sleep)
                if successor is not None:
                    self._current[number] = successor

    async def restart(self) -> None:
        """Replace the workers one by one. Each finishes its calls when its successor serves."""
        for number in list(self._current):
            async with self._changing[number]:
                try:
                    successor = await self._begin(number)
                except WorkerFailed as failure:
                    if not self._stopping:
                        log.error(
                            "the restart was cancelled; the workers that serve continue",
                            reason=str(failure),
                        )
                    return
                predecessor = self._current[number]
                self._current[number] = successor
            predecessor.drain()
            await self._end([predecessor])
        log.info("all workers were restarted")

    def announce_stop(self) -> None:
        """Make all workers report NOT_SERVING. They serve until `stop`."""
        self._stopping = True
        for worker in list(self._running):
            worker.stop() if worker.ready else worker.kill()

    async def stop(self) -> None:
        """Make all workers finish their calls and end."""
        self._stopping = True
        for worker in list(self._running):
            worker.drain() if worker.ready else worker.kill()
        await self._end(list(self._running))

    def kill(self) -> None:
        """Kill all workers at once."""
        for worker in list(self._running):
            worker.kill()

    def _taking(self) -> list[WorkerProcess]:
        workers = list(self._current.values())
        return [worker for worker in workers if worker.ready and not worker.leaving.is_set()]

    async def _begin(self, number: int) -> WorkerProcess:
        """Start a worker, and return it when it serves.

        Raises:
            WorkerFailed: It ended before, or the system could not start it.
        """
        try:
            worker = await WorkerProcess.launch(
                number, self._count, turns=self._turns, mongodb_uri=self._mongodb_uri
            )
        except OSError as error:  # no memory, or the program is being replaced
            raise WorkerFailed(number, f"it cannot be started ({error})", 0) from error
        self._running[worker] = asyncio.create_task(self._follow(worker))
        if self._stopping:
            worker.kill()
        await worker.settled.wait()
        if not worker.ready:
            raise WorkerFailed(worker.number, ending(worker), worker.exit_status or 0)
        self._metrics.add(worker.metrics)
        return worker

    async def _end(self, workers: Collection[WorkerProcess]) -> None:
        """Wait for the end of workers that stop, and kill those that take too long."""
        following = [self._running[worker] for worker in workers if worker in self._running]
        if not following:
            return
        _, late = await asyncio.wait(following, timeout=self._stop_seconds)
        if late:
            log.error("workers did not stop in time and are killed", workers=len(late))
            for worker in workers:
                worker.kill()
            await asyncio.wait(late)

    async def _follow(self, worker: WorkerProcess) -> None:
        await worker.ended.wait()
        await asyncio.to_thread(self._metrics.end, worker.metrics)
        del self._running[worker]

    async def _replacement(self, number: int, early: int, sleep: Sleep) -> WorkerProcess | None:
        """Start a worker until one serves, with a growing pause if several have died early.

        Returns:
            The worker; None: the whole group stops.
        """
        while not self._stopping:
            if early > 1:
                longer = 2.0 ** min(early - 2, _DOUBLINGS_MAX)
                await sleep(min(_PAUSE_INITIAL_SECONDS * longer, _PAUSE_SECONDS_MAX))
            try:
                return await self._begin(number)
            except WorkerFailed as failure:
                if not self._stopping:
                    log.error("a worker did not start", worker=number, reason=str(failure))
                early += 1
        return None


def ending(worker: WorkerProcess) -> str:
    """Describe how a worker has ended."""
    status = worker.exit_status
    if status is None:
        return "it stops by itself, or by a signal to it alone"
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name
