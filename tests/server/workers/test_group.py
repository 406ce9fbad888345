"""Test which worker gets a connection, and when one is replaced, with fakes for the processes."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
from credit_server.errors import WorkerFailed
from credit_server.telemetry.workers import Snapshot, SummedMetrics
from credit_server.workers.group import WorkerGroup
from credit_server.workers.process import WorkerProcess


class NoMetrics:
    """The metrics of a worker that counts nothing."""

    def __init__(self) -> None:
        self.latest: Snapshot = {}

    def close(self) -> None:
        """Close nothing."""


class FakeWorker:
    """A worker without a process, which dies when a test makes it."""

    def __init__(self, number: int, *, starts: bool = True) -> None:
        self.number, self.pid = number, 4711
        self.settled, self.leaving, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.ready, self.healthy = starts, starts
        self.passed = self.connections = 0
        self.exit_status: int | None = None
        self.takes = True
        self.age = 0.0
        self.metrics = NoMetrics()
        self.told: list[str] = []
        if starts:
            self.settled.set()
        else:
            self.die(1)

    def seconds(self) -> float:
        return self.age

    def pass_on(self, connection: socket.socket) -> bool:
        self.passed += self.takes
        self.connections += self.takes
        return self.takes

    def stop(self) -> None:
        self.told.append("stop")

    def drain(self) -> None:
        self.told.append("drain")
        self.die(0)

    def kill(self) -> None:
        self.die(-9)

    def die(self, status: int) -> None:
        self.exit_status = status if self.exit_status is None else self.exit_status
        self.healthy = False
        for event in (self.leaving, self.ended, self.settled):
            event.set()


class Launcher:
    """Launches fakes in place of processes.

    Attributes:
        launched: All workers so far.
        starts: Whether the next worker starts, by the count of those before.
    """

    def __init__(self) -> None:
        self.launched: list[FakeWorker] = []
        self.starts: Callable[[int], bool] = lambda _: True
        self.arrived = asyncio.Condition()

    async def __call__(self, number: int, _: int, **__: object) -> FakeWorker:
        worker = FakeWorker(number, starts=self.starts(len(self.launched)))
        self.launched.append(worker)
        async with self.arrived:
            self.arrived.notify_all()
        return worker

    async def count(self, count: int) -> None:
        """Wait until a number of workers were launched."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.launched) >= count)


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    launcher = Launcher()
    monkeypatch.setattr(WorkerProcess, "launch", launcher)
    return launcher


@pytest.fixture
def group(launcher: Launcher, request: pytest.FixtureRequest) -> WorkerGroup:
    """Return a group of two workers, or of as many as the test's parameter."""
    count = getattr(request, "param", 2)
    return WorkerGroup(count, SummedMetrics(), shards=1, stop_seconds=0.01)


@pytest.mark.parametrize("group", [3], indirect=True)
async def test_a_connection_goes_to_the_worker_with_the_fewest(
    launcher: Launcher, group: WorkerGroup
) -> None:
    await group.start(None)
    launcher.launched[0].connections = 2
    with socket.socket() as connection:
        for _ in range(7):
            assert group.pass_on(connection)
    assert [worker.connections for worker in launcher.launched] == [3, 3, 3]


async def test_a_connection_goes_to_another_worker_if_one_does_not_take_it(
    launcher: Launcher, group: WorkerGroup
) -> None:
    await group.start(None)
    launcher.launched[0].takes = False
    with socket.socket() as connection:
        assert group.pass_on(connection)
        assert launcher.launched[1].passed == 1
        launcher.launched[1].takes = False
        assert not group.pass_on(connection)


async def test_the_group_is_healthy_while_all_workers_that_take_connections_are(
    launcher: Launcher, group: WorkerGroup
) -> None:
    assert not group.is_healthy()
    await group.start(None)
    assert group.is_healthy()
    launcher.launched[0].healthy = False  # its store is away
    assert not group.is_healthy()
    launcher.launched[0].die(-9)  # the other still serves
    assert group.is_healthy()
    assert group.serving == 1
    group.announce_stop()
    assert not group.is_healthy()
    assert launcher.launched[1].told == ["stop"]


@pytest.mark.parametrize("group", [4], indirect=True)
async def test_the_others_are_not_started_if_the_first_does_not_start(
    launcher: Launcher, group: WorkerGroup
) -> None:
    launcher.starts = lambda _: False
    with pytest.raises(
        WorkerFailed, match="Worker 1 ended before it served: exit status 1"
    ) as fault:
        await group.start(None)
    assert fault.value.status == 1
    assert len(launcher.launched) == 1


@pytest.mark.parametrize("group", [1], indirect=True)
async def test_a_worker_that_dies_again_and_again_is_replaced_after_growing_pauses(
    launcher: Launcher, group: WorkerGroup
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    await group.start(None)
    keeping = asyncio.create_task(group.keep(1, sleep=sleep))
    launcher.starts = lambda count: count != 3  # the fourth does not start at all
    for count in (2, 3):
        launcher.launched[-1].die(-9)
        await launcher.count(count)
        await asyncio.sleep(0)
    launcher.launched[-1].die(-9)
    await launcher.count(5)
    assert pauses == [0.5, 1.0, 2.0]
    keeping.cancel()


@pytest.mark.parametrize("group", [1], indirect=True)
async def test_a_worker_that_has_served_for_long_is_replaced_at_once(
    launcher: Launcher, group: WorkerGroup
) -> None:
    await group.start(None)
    keeping = asyncio.create_task(group.keep(1, sleep=_never))
    for count in range(2, 6):
        launcher.launched[-1].age = 3600
        launcher.launched[-1].die(-11)
        await launcher.count(count)
        await asyncio.sleep(0)
    keeping.cancel()


async def test_a_restart_replaces_each_worker_before_it_leaves(
    launcher: Launcher, group: WorkerGroup
) -> None:
    await group.start(None)
    keeping = [asyncio.create_task(group.keep(number, sleep=_never)) for number in (1, 2)]
    await group.restart()
    assert [worker.number for worker in launcher.launched] == [1, 2, 1, 2]
    assert [worker.told for worker in launcher.launched] == [["drain"], ["drain"], [], []]
    assert group.serving == 2
    for task in keeping:
        task.cancel()


async def test_a_restart_is_given_up_if_a_worker_does_not_start(
    launcher: Launcher, group: WorkerGroup
) -> None:
    await group.start(None)
    launcher.starts = lambda count: count < 3
    await group.restart()
    assert [worker.told for worker in launcher.launched] == [["drain"], [], [], []]
    assert group.serving == 2


async def test_a_worker_that_the_system_cannot_start_ends_no_other(
    launcher: Launcher, group: WorkerGroup
) -> None:
    await group.start(None)

    def starts(count: int) -> bool:
        if count < 3:
            raise OSError("no memory")
        return True

    launcher.starts = starts
    await group.restart()
    assert group.serving == 2
    launcher.launched[0].die(-9)
    keeping = asyncio.create_task(group.keep(1, sleep=_at_once(launcher)))
    await launcher.count(3)
    await asyncio.sleep(0)
    assert group.serving == 2
    assert not keeping.done()
    keeping.cancel()


def _at_once(launcher: Launcher) -> Callable[[float], Awaitable[None]]:
    """Return a pause that takes no time, and after which workers can be started."""

    async def sleep(_: float) -> None:
        launcher.starts = lambda _: True

    return sleep


async def test_workers_that_do_not_stop_in_time_are_killed(
    launcher: Launcher, group: WorkerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    await group.start(None)
    monkeypatch.setattr(launcher.launched[0], "drain", lambda: None)
    await group.stop()
    assert [worker.exit_status for worker in launcher.launched] == [-9, 0]


async def _never(_: float) -> None:
    pytest.fail("it waits before it replaces a worker")


async def test_a_restart_kills_a_worker_that_does_not_stop_in_time(
    launcher: Launcher, group: WorkerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    await group.start(None)
    monkeypatch.setattr(launcher.launched[0], "drain", lambda: None)
    await group.restart()
    assert [worker.exit_status for worker in launcher.launched] == [-9, 0, None, None]
