"""One server: the published parts on their own connection to the store. A crash ends it at once."""

import asyncio
import itertools
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from random import Random
from typing import Any

from credit_models.entry_hash import GENESIS
from credit_server.access.audit import AuditLog
from credit_server.access.authorize import Access
from credit_server.admission.list_slots import ListSlots
from credit_server.api.alert_service import AlertService
from credit_server.api.commands import Commands
from credit_server.api.contract import CONTRACT
from credit_server.api.directory_service import DirectoryService
from credit_server.api.history_service import HistoryService
from credit_server.api.ledger_service import LedgerService
from credit_server.api.service import CreditService
from credit_server.api.watch_hub import WatchHub
from credit_server.commit import (
    Clock,
    CommitLimits,
    Committer,
    EventOrder,
    Sweeper,
    SweepLimits,
)
from credit_server.store.port import StoreError
from credit_server.webhooks.dispatcher import Dispatcher
from grpclib.const import Handler, Status
from grpclib.exceptions import GRPCError

from credit_simulate.call import ServedCall
from credit_simulate.cluster import Cluster
from credit_simulate.connection import Connection
from credit_simulate.faults import Faults
from credit_simulate.policies import StoredPolicies
from credit_simulate.receiver import Receiver
from credit_simulate.trace import Trace

CLOCK_SECONDS_MAX = 2.0
"""How far the clock of a server may differ from that of the store."""

_CHECK_SECONDS = 2.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SETTINGS = (
    CommitLimits(shards=2, batch_max=4, waiting_max=16, retry_seconds=3.0),
    # Without caches, so that every batch reads from the store.
    CommitLimits(shards=1, batch_max=2, waiting_max=8, retry_seconds=2.0, cache_max=0),
    CommitLimits(shards=3, batch_max=64, waiting_max=6, retry_seconds=5.0, cache_max=6),
)
"""The settings of servers. Each start takes one of them."""


@dataclass(kw_only=True, slots=True)
class World:
    """What all servers share.

    Attributes:
        cluster: The replica set.
        random: The source of randomness.
        faults: Decides which messages are lost or slow.
        trace: Receives a line for each event.
        receiver: Receives the events of webhooks.
        policies: Records the policies that are stored.
        bugs: The calls that failed with INTERNAL, and the tasks that ended with an error.
    """

    cluster: Cluster
    random: Random
    faults: Faults
    trace: Trace
    receiver: Receiver
    policies: StoredPolicies
    bugs: list[str]


class Server:
    """A server that can crash, and start again on the same store.

    Attributes:
        name: Its name.
        skewed_until: Until when its clock was wrong by more than is allowed, in the loop's time.
    """

    def __init__(self, name: str, world: World) -> None:
        """Prepare to start."""
        self.name = name
        self.skewed_until = -1.0
        self._offset_seconds = 0.0
        self._world = world
        self._ids = itertools.count(int.from_bytes(name.encode(), "big") << 32)
        self._tasks: list[asyncio.Task[None]] = []
        self._calls: dict[asyncio.Task[None], ServedCall] = {}
        self._connection: Connection | None = None
        self._handlers: Mapping[str, Handler] = {}

    @property
    def runs(self) -> bool:
        """Whether it accepts calls."""
        return bool(self._handlers)

    def set_clock(self, offset_seconds: float) -> None:
        """Let its clock jump, so that it is ahead of the true time by some seconds."""
        self._world.trace(self.name, f"has a clock that is ahead by {offset_seconds:.3f} s")
        if abs(offset_seconds) > CLOCK_SECONDS_MAX:
            self.skewed_until = inf
        elif self.skewed_until == inf:
            self.skewed_until = asyncio.get_running_loop().time()
        self._offset_seconds = offset_seconds

    def start(self) -> None:
        """Start it, unless it runs."""
        if not self._tasks:
            settings = self._world.random.choice(_SETTINGS)
            self._world.trace(self.name, f"starts: {settings.shards} shards")
            self._start("the server", self._run(settings))

    async def crash(self) -> None:
        """End it like SIGKILL: messages that it has sent still arrive."""
        self._world.trace(self.name, "crashes")
        if self._connection is not None:
            self._connection.dead = True
        self._handlers = {}
        ended: list[asyncio.Task[None]] = [*self._calls, *self._tasks]
        for call in self._calls.values():
            call.answers.put_nowait(ConnectionResetError())
        self._tasks, self._calls = [], {}
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)

    async def stop(self) -> None:
        """End it like SIGTERM: waiting writes get their answers, and streams end."""
        self._world.trace(self.name, "stops")
        self._handlers = {}
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if not task.get_name().endswith("of the writes"):  # the committer stops its own tasks
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._connection is not None:
            self._connection.dead = True
        for task, call in list(self._calls.items()):
            call.answers.put_nowait(ConnectionResetError())
            task.cancel()

    def serve(self, call: ServedCall) -> "asyncio.Task[None]":
        """Begin to serve a call."""
        task = asyncio.create_task(self._serve(call, self._handlers[call.request.path]))
        self._calls[task] = call
        task.add_done_callback(lambda ended: self._calls.pop(ended, None))
        return task

    async def _serve(self, call: ServedCall, handler: Handler) -> None:
        ending: Exception | None = None
        try:
            await handler.func(call)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            write = call.request.path in CONTRACT.writes
            ending = CONTRACT.translate(error, write=write)
            if ending is None:
                self._world.bugs.append(f"{call.request.path} ended with {error!r}")
                ending = GRPCError(Status.INTERNAL, "internal error")
        call.answers.put_nowait(ending)

    async def _run(self, settings: CommitLimits) -> None:
        """Put the parts together, as `credit_server.app` does."""
        world, loop = self._world, asyncio.get_running_loop()
        store = Connection(
            world.cluster, world.faults, world.policies, lambda: next(self._ids), loop.time
        )
        self._connection = store
        clock = Clock(
            skew_seconds_max=CLOCK_SECONDS_MAX,
            wall=lambda: world.cluster.wall + self._offset_seconds,
            monotonic=loop.time,
        )
        await self._first_check(clock, store)
        order, dispatcher = EventOrder(store, random=world.random), self._dispatcher(store)
        committer = Committer(
            store,
            settings,
            clock=clock,
            random=world.random,
            start=self._start,
            # As during an upgrade from a release whose servers write no hashes.
            genesis=world.random.choice((GENESIS, GENESIS, None)),
            on_events=order.wake,
        )
        async with committer:
            self._handlers = _handlers(store, committer)
            sweeper = Sweeper(
                store,
                committer,
                clock,
                _Unobserved(),
                SweepLimits(chunk=3, entries=4, lease_seconds=2.0),
                random=world.random,
                monotonic=loop.time,
            )
            self._start("the sweeper", sweeper.run())
            self._start("the order of events", order.run(dispatcher.wake))
            self._start("the webhooks", dispatcher.run())
            while True:
                await asyncio.sleep(_CHECK_SECONDS)
                await _check_clock(clock, store)

    def _dispatcher(self, store: Connection) -> Dispatcher:
        world = self._world
        return Dispatcher(
            store,
            world.receiver,
            _Unobserved(),
            random=world.random,
            clock=lambda: (
                _EPOCH
                + timedelta(milliseconds=int((world.cluster.wall + self._offset_seconds) * 1000))
            ),
        )

    async def _first_check(self, clock: Clock, store: Connection) -> None:
        while not await _check_clock(clock, store):  # noqa: ASYNC110 - it asks again
            await asyncio.sleep(_CHECK_SECONDS / 4)

    # Any: asyncio's type of a coroutine.
    def _start(self, part: str, body: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(body, name=f"{self.name}: {part}")
        self._tasks.append(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self._world.bugs.append(f"{task.get_name()} has ended: {task.exception()!r}")


class _Unobserved:
    """Ignores the progress of the sweeper and of the webhooks."""

    def swept(self, settled: int, lag_seconds: float) -> None:
        """Do nothing."""

    def delivered(self) -> None:
        """Do nothing."""

    def failed(self) -> None:
        """Do nothing."""

    def waiting(self, oldest_seconds: float, dead: int) -> None:
        """Do nothing."""


async def _check_clock(clock: Clock, store: Connection) -> bool:
    try:
        clock.compare(await store.ping())
    except StoreError:
        return False
    return True


def _handlers(store: Connection, committer: Committer) -> Mapping[str, Handler]:
    audit = AuditLog(None, translate=CONTRACT.translate)
    access = Access(None, audit=audit)
    commands, slots = Commands(store), ListSlots()
    return {
        **CreditService(committer, store, audit, slots, commands=commands).__mapping__(),
        **LedgerService(
            committer, store, commands, audit, access, slots, operation_seconds=10.0
        ).__mapping__(),
        **HistoryService(
            store, committer.clock, audit, access, slots, hub=WatchHub(store)
        ).__mapping__(),
        **AlertService(committer, store, audit, slots).__mapping__(),
        **DirectoryService(store, committer.clock, audit).__mapping__(),
    }
