"""A bug in any part that runs beside the calls ends the server, and each caller gets an answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from credit_models import CreditRequest
from credit_models.ledger import Add
from credit_server import app
from credit_server.admission.load import LoopLag
from credit_server.admission.stream_quota import StreamQuota
from credit_server.commit import Committer, Stopping
from credit_server.commit.shard import Shard
from credit_server.embedded import EmbeddedMongod
from credit_server.errors import PartFailed
from credit_server.grpc.server import GrpcServer
from credit_server.http2.connections import Connections
from credit_server.telemetry import HealthWatch
from credit_server.telemetry.exposition import _HttpServer
from credit_server.telemetry.metrics import ProcessMetrics
from credit_testing.http2_client import Connection
from credit_testing.stores import HeldStore
from grpclib.const import Status
from grpclib.health.check import ServiceStatus
from structlog.testing import capture_logs

from tests.server.serving import until
from tests.server.test_app import Mongod, SchemaStore, _serving, _settings

REQUEST = CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)


class HeldSchemaStore(HeldStore, SchemaStore):
    """Hold the first transaction until it is released."""


@dataclass
class Running:
    """A server that runs, and what a test brings a bug into.

    Attributes:
        patch: Brings bugs in.
        store: Its store.
        mongod: Stands for its embedded mongod.
        broken: The metric of the event loop fails once it is set.
        made: The server's own objects, by class.
    """

    patch: pytest.MonkeyPatch
    store: HeldSchemaStore
    mongod: Mongod
    broken: asyncio.Event
    made: dict[type, Any]  # Any: each is of its own class

    def break_method(self, owner: type, name: str) -> None:
        """Makes a method raise from now on."""

        def fail(*_: object) -> None:
            raise RuntimeError("a bug")

        self.patch.setattr(owner, name, fail)


def _break_shard(running: Running) -> None:
    running.break_method(Shard, "_take")
    running.store.released.set()  # it takes the next batch once this one is settled


def _break_health(running: Running) -> None:
    running.break_method(HealthWatch, "_log_clock")


def _break_loop_metric(running: Running) -> None:
    running.broken.set()


def _break_metrics_thread(running: Running) -> None:
    running.break_method(_HttpServer, "service_actions")


def _break_sweep(running: Running) -> None:
    running.break_method(Connections, "sweep")


def _break_stream_quota(running: Running) -> None:
    running.break_method(StreamQuota, "end_round")
    running.made[GrpcServer]._stream_quota.note_shed(informed=True)


def _break_lag(running: Running) -> None:
    running.break_method(LoopLag, "_beat")
    lag = running.made[GrpcServer]._admission._lag
    lag._due = None
    lag.measure()


def _break_mongod(running: Running) -> None:
    running.break_method(Mongod, "restart")
    running.mongod.deaths.put_nowait("killed")


PARTS: dict[str, Callable[[Running], None]] = {
    "shard 1 of the writes": _break_shard,
    "the health watch": _break_health,
    "the metric of the event loop": _break_loop_metric,
    "the server of the metrics": _break_metrics_thread,
    "the check of connections": _break_sweep,
    "the quota of streams": _break_stream_quota,
    "the measure of the event loop": _break_lag,
    "the embedded mongod": _break_mongod,
}


@asynccontextmanager
async def _running(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Running, int, "asyncio.Task[None]"]]:
    made: dict[type, Any] = {}
    for kind in (GrpcServer, Committer, ServiceStatus):

        def make(*arguments: Any, kind: type = kind, **options: Any) -> Any:
            made[kind] = kind(*arguments, **options)
            return made[kind]

        monkeypatch.setattr(app, kind.__name__, make)
    broken = asyncio.Event()

    async def watch_loop(_: ProcessMetrics) -> None:
        await broken.wait()
        raise RuntimeError("a bug")

    monkeypatch.setattr(ProcessMetrics, "watch_loop", watch_loop)
    monkeypatch.setattr("credit_server.grpc.server._SWEEP_SECONDS", 0.01)
    running = Running(monkeypatch, HeldSchemaStore(), Mongod(), broken, made)
    settings = _settings(grace_seconds=0.05)
    async with _serving(monkeypatch, running.store, running.mongod, settings) as (port, task):
        yield running, port, task


@pytest.mark.parametrize("part", PARTS)
async def test_a_bug_in_a_part_ends_the_server_and_answers_the_callers_that_wait(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as logged:
        async with _running(monkeypatch) as (running, port, task), Connection.connect(port) as wire:
            status, committer = running.made[ServiceStatus], running.made[Committer]
            assert status.__status__() is True
            under_way = asyncio.create_task(wire.call("AddCredits", REQUEST))
            await running.store.entered.wait()
            waiting = asyncio.create_task(wire.call("AddCredits", REQUEST))
            await until(lambda: committer.waiting == 2)
            PARTS[part](running)
            answers = [await under_way, await waiting]
            assert status.__status__() is False
            running.store.released.set()
            with pytest.raises(PartFailed, match=part) as caught:
                await task
    assert caught.value.part == part
    failed = [line for line in logged if line["event"] == "a part of the server has failed"]
    assert (failed[0]["part"], failed[0]["log_level"]) == (part, "error")
    # No caller waits forever, and each answer is true.
    for answer in answers:
        if answer.status is not Status.OK:
            assert answer.status is Status.UNAVAILABLE
            assert "no change was made" in answer.sentence or "may or may not" in answer.sentence
    account = await running.store.account(7)
    written = 0 if account is None else account.revision
    certain = sum(answer.status is Status.OK for answer in answers)
    open_ = sum("may or may not" in answer.sentence for answer in answers)
    assert certain <= written <= certain + open_


async def test_a_write_for_an_ended_shard_is_rejected_until_the_server_has_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with capture_logs():
        async with _running(monkeypatch) as (running, _port, task):
            running.break_method(Shard, "_take")
            committer = running.made[Committer]
            running.store.released.set()
            add = Add(user_id=7, app_id=1, credits=1, created_by=1, key="", transaction_id="0" * 24)
            for _ in range(2):
                with pytest.raises(Stopping):
                    await committer.submit(add)
            with pytest.raises(PartFailed):
                await task


async def test_the_watcher_of_the_embedded_mongod_that_fails_is_reported(tmp_path: Path) -> None:
    class Process:
        pid = 1

        async def wait(self) -> None:
            raise RuntimeError("a bug")

        async def end(self, *, timeout_seconds: float) -> None:
            """Has ended."""

    mongod = EmbeddedMongod(data_dir=tmp_path)
    mongod._serve(Process(), 1)  # type: ignore[arg-type] # stands for a process
    with pytest.raises(RuntimeError, match="a bug"):
        await mongod.wait_exited()
    await mongod.stop()
