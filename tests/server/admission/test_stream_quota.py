"""The quota of streams: it exists while calls are shed, and ends when none are shed any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from credit_models import CreditRequest, UserId
from credit_models.codec import encode
from credit_server.admission.stream_quota import StreamQuota
from credit_server.grpc.handler import CallLimits
from credit_server.http2.limits import ConnectionLimits
from credit_testing.calls import SERVICE, call_headers, framed, message_bytes
from credit_testing.frames import ErrorCode
from credit_testing.http2_client import Connection
from credit_testing.stores import EndlessStore, HeldStore
from grpclib.const import Status
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.server.serving import Serving, is_served, serving, until

HEALTH = "/grpc.health.v1.Health/"
ADD = framed(encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)))


class FakeConnection:
    """Keeps the latest quota."""

    def __init__(self, *, short_streams: int = 1) -> None:
        self.short_streams = short_streams
        self.allowed: int | None = None

    def limit_streams(self, streams_max: int | None) -> None:
        self.allowed = streams_max


async def test_there_is_no_quota_before_a_call_is_shed() -> None:
    assert not StreamQuota([FakeConnection()], streams_max=100).active


async def test_the_busy_share_what_all_may_have() -> None:
    connections = [FakeConnection(short_streams=1 - number // 2) for number in range(4)]
    quota = StreamQuota(connections, streams_max=100)
    quota.note_shed(informed=True)
    assert [connection.allowed for connection in connections] == [50] * 4
    quota.stop()


class BrokenConnection(FakeConnection):
    """Fails for every quota."""

    def limit_streams(self, streams_max: int | None) -> None:
        raise RuntimeError("broken")


async def test_a_connection_that_fails_keeps_no_other_from_its_quota() -> None:
    sound = FakeConnection()
    quota = StreamQuota([BrokenConnection(), sound], streams_max=100)
    quota.note_shed(informed=True)
    assert sound.allowed == 50
    assert quota.active
    quota.stop()


async def test_each_connection_may_have_one_however_many_there_are() -> None:
    connections = [FakeConnection() for _ in range(50)]
    quota = StreamQuota(connections, streams_max=10)
    quota.note_shed(informed=True)
    assert {connection.allowed for connection in connections} == {1}
    quota.stop()


async def test_the_quota_shrinks_while_calls_are_shed_and_grows_back_until_it_ends() -> None:
    connection = FakeConnection()
    quota = StreamQuota([connection], streams_max=100)

    def rounds(*, refused: bool, count: int) -> list[int | None]:
        allowed = []
        for _ in range(count):
            if refused:
                quota.note_shed(informed=True)
            quota.end_round()
            allowed.append(connection.allowed)
        return allowed

    quota.note_shed(informed=True)
    assert connection.allowed == 100
    shrinking = rounds(refused=True, count=5)
    assert shrinking == [70, 64, 64, 64, 64]  # batches still come about
    growing = rounds(refused=False, count=4)
    assert growing == [70, 77, 85, 93]
    assert quota.active
    rounds(refused=False, count=10)
    assert not quota.active
    assert connection.allowed is None


async def test_the_quota_shrinks_while_admitted_calls_are_late() -> None:
    connection, late = FakeConnection(), [True, True, False]
    quota = StreamQuota([connection], streams_max=1000, is_overdue=lambda: late.pop(0))
    quota.note_shed(informed=False)
    allowed = []
    for _ in range(3):
        quota.end_round()
        allowed.append(connection.allowed)
    assert allowed == [700, 489, 539]
    quota.stop()


async def test_calls_that_were_sent_before_their_client_knew_the_quota_do_not_shrink_it() -> None:
    connection = FakeConnection()
    quota = StreamQuota([connection], streams_max=1000)
    quota.note_shed(informed=False)
    quota.end_round()
    assert connection.allowed == 1000
    quota.note_shed(informed=True)
    quota.end_round()
    assert connection.allowed == 700
    quota.stop()


async def test_the_quota_stays_while_clients_hold_calls_back() -> None:
    connection = FakeConnection(short_streams=60)
    quota = StreamQuota([connection], streams_max=100)
    quota.note_shed(informed=True)
    for _ in range(30):
        quota.end_round()
    assert quota.active
    connection.short_streams = 40
    for _ in range(10):
        quota.end_round()
    assert not quota.active


LIMITS = CallLimits(message_bytes_max=4096, calls_max=1, overload_streams_max=1)


@asynccontextmanager
async def overloaded(
    limits: CallLimits = LIMITS, connections: ConnectionLimits | None = None
) -> AsyncIterator[tuple[Serving, HeldStore, Connection]]:
    """A server that has shed a call of this client, and holds another one."""
    store = HeldStore()
    async with (
        serving(store, call_limits=limits, connections=connections) as served,
        Connection.connect(served.port) as wire,
    ):
        await wire.in_order()
        wire.begin(call_headers(SERVICE + "AddCredits"), ADD)
        await store.entered.wait()
        refused = await wire.request(call_headers(SERVICE + "AddCredits"), ADD)
        assert refused.status is Status.UNAVAILABLE
        await wire.in_order()
        yield served, store, wire
        store.released.set()
        await served.wait_quiet()


def allowed(wire: Connection) -> int:
    assert wire.streams_max is not None
    return wire.streams_max


def end_rounds(served: Serving, count: int) -> None:
    """Let time pass without shed calls."""
    for _ in range(count):
        served.server._stream_quota.end_round()


async def test_a_client_gets_its_quota_by_the_setting_of_http2_and_is_served_all_the_same() -> None:
    limits = replace(LIMITS, overload_streams_max=3)
    async with overloaded(limits) as (served, store, wire):
        assert allowed(wire) == 3
        store.released.set()
        await served.wait_quiet()
        await wire.in_order()
        await is_served(wire)


async def test_the_quota_of_a_client_ends() -> None:
    async with overloaded() as (served, store, wire):
        assert allowed(wire) == 1
        store.released.set()
        await served.wait_quiet()
        end_rounds(served, 11)
        await wire.in_order()
        assert allowed(wire) == ConnectionLimits().streams_max


async def test_a_client_without_an_open_call_gets_smaller_quotas_but_no_larger_ones() -> None:
    async with serving() as served, Connection.connect(served.port) as wire:
        await wire.in_order()
        (member,) = served.server._protocols
        for quota in (5, 9, 3, 9):
            member.limit_streams(quota)
            await wire.in_order()
            assert allowed(wire) <= min(quota, 5)
        assert allowed(wire) == 3
        _, unfinished = wire.begin(call_headers(SERVICE + "AddCredits"), end=False)
        await wire.in_order()
        member.limit_streams(9)
        await wire.in_order()
        assert allowed(wire) == 9
        assert not unfinished.ended.is_set()


async def test_a_quota_is_never_above_the_usual_limit_of_a_connection() -> None:
    limits = replace(LIMITS, overload_streams_max=1000)
    async with overloaded(limits, ConnectionLimits(streams_max=5)) as (_, _, wire):
        assert allowed(wire) == 5


async def test_health_is_answered_to_a_client_with_a_quota_of_one_and_to_a_new_one() -> None:
    async with overloaded() as (served, store, wire), Connection.connect(served.port) as prober:
        health = await prober.call(HEALTH + "Check", HealthCheckRequest())
        assert health.message(HealthCheckResponse).status == HealthCheckResponse.SERVING
        store.released.set()
        await served.wait_quiet()
        await wire.in_order()
        health = await wire.call(HEALTH + "Check", HealthCheckRequest())
        assert health.message(HealthCheckResponse).status == HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param(HEALTH + "Watch", HealthCheckRequest(), id="health"),
        pytest.param(SERVICE + "ListUserTransactions", UserId(user_id=7), id="a list"),
    ],
)
async def test_calls_that_last_do_not_use_up_a_quota(
    path: str, message: HealthCheckRequest | UserId
) -> None:
    async with (
        serving(EndlessStore(), call_limits=replace(LIMITS, calls_max=2)) as served,
        Connection.connect(served.port, window=20) as wire,
    ):
        await wire.request(call_headers(SERVICE + "AddCredits"), ADD)
        _, lasting = wire.begin(call_headers(path), framed(message_bytes(message)))
        await lasting.begun()
        served.server._stream_quota.note_shed(informed=True)
        await wire.in_order()
        assert allowed(wire) == 2
        await is_served(wire)


async def test_a_stop_ends_the_quota_with_the_calls() -> None:
    async with overloaded() as (served, store, wire):
        stopping = asyncio.create_task(served.server.stop(grace_seconds=60))
        await until(lambda: served.server.connections.draining)
        store.released.set()
        await stopping
        assert not served.server._stream_quota.active
        await wire.closed.wait()
        assert wire.goaway is ErrorCode.NO_ERROR
