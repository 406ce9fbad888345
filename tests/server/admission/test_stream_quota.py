"""Rationing: clients are held back while calls are refused, and let go when none are any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from credit_models import CreditRequest, UserId
from credit_models.codec import encode
from credit_server.admission.stream_quota import Backpressure
from credit_server.grpc.handler import CallLimits
from credit_server.http2.limits import ConnectionLimits
from credit_testing.http2_client import SERVICE, Wire, call_headers, framed, message_bytes
from credit_testing.stores import EndlessStore, HeldStore
from grpclib.const import Status
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.server.serving import Serving, is_served, serving, until

HEALTH = "/grpc.health.v1.Health/"
ADD = framed(encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)))


class FakeConnection:
    """Keeps what it was allowed last."""

    def __init__(self, *, pressing: int = 1) -> None:
        self.pressing = pressing
        self.allowed: int | None = None

    def ration(self, streams_max: int | None) -> None:
        self.allowed = streams_max


async def test_nobody_is_rationed_before_a_call_is_refused() -> None:
    assert not Backpressure([FakeConnection()], streams_max=100).rationing


async def test_the_busy_share_what_all_may_have() -> None:
    connections = [FakeConnection(pressing=1 - number // 2) for number in range(4)]
    rationed = Backpressure(connections, streams_max=100)
    rationed.refused(informed=True)
    assert [connection.allowed for connection in connections] == [50] * 4
    rationed.stop()


class BrokenConnection(FakeConnection):
    """Cannot be told anything."""

    def ration(self, streams_max: int | None) -> None:
        raise RuntimeError("broken")


async def test_a_client_that_cannot_be_told_keeps_no_other_from_it() -> None:
    sound = FakeConnection()
    rationed = Backpressure([BrokenConnection(), sound], streams_max=100)
    rationed.refused(informed=True)
    assert sound.allowed == 50
    assert rationed.rationing
    rationed.stop()


async def test_each_connection_may_have_one_however_many_there_are() -> None:
    connections = [FakeConnection() for _ in range(50)]
    rationed = Backpressure(connections, streams_max=10)
    rationed.refused(informed=True)
    assert {connection.allowed for connection in connections} == {1}
    rationed.stop()


async def test_the_ration_shrinks_while_calls_are_refused_and_grows_back_until_it_ends() -> None:
    connection = FakeConnection()
    rationed = Backpressure([connection], streams_max=100)

    def rounds(*, refused: bool, count: int) -> list[int | None]:
        allowed = []
        for _ in range(count):
            if refused:
                rationed.refused(informed=True)
            rationed.end_round()
            allowed.append(connection.allowed)
        return allowed

    rationed.refused(informed=True)
    assert connection.allowed == 100
    shrinking = rounds(refused=True, count=5)
    assert shrinking == [70, 64, 64, 64, 64]  # batches still come about
    growing = rounds(refused=False, count=4)
    assert growing == [70, 77, 85, 93]
    assert rationed.rationing
    rounds(refused=False, count=10)
    assert not rationed.rationing
    assert connection.allowed is None


async def test_the_ration_shrinks_while_those_who_are_taken_in_are_late() -> None:
    connection, late = FakeConnection(), [True, True, False]
    rationed = Backpressure([connection], streams_max=1000, overdue=lambda: late.pop(0))
    rationed.refused(informed=False)
    allowed = []
    for _ in range(3):
        rationed.end_round()
        allowed.append(connection.allowed)
    assert allowed == [700, 489, 539]
    rationed.stop()


async def test_calls_that_were_sent_before_their_client_knew_do_not_shrink_the_ration() -> None:
    connection = FakeConnection()
    rationed = Backpressure([connection], streams_max=1000)
    rationed.refused(informed=False)
    rationed.end_round()
    assert connection.allowed == 1000
    rationed.refused(informed=True)
    rationed.end_round()
    assert connection.allowed == 700
    rationed.stop()


async def test_clients_that_hold_calls_back_are_not_let_go() -> None:
    connection = FakeConnection(pressing=60)
    rationed = Backpressure([connection], streams_max=100)
    rationed.refused(informed=True)
    for _ in range(30):
        rationed.end_round()
    assert rationed.rationing
    connection.pressing = 40
    for _ in range(10):
        rationed.end_round()
    assert not rationed.rationing


LIMITS = CallLimits(message_bytes_max=4096, calls_max=1, overload_streams_max=1)


@asynccontextmanager
async def overloaded(
    limits: CallLimits = LIMITS, connections: ConnectionLimits | None = None
) -> AsyncIterator[tuple[Serving, HeldStore, Wire]]:
    """A server that has refused a call of this client, and holds another one."""
    store = HeldStore()
    async with (
        serving(store, call_limits=limits, connections=connections) as served,
        Wire.connect(served.port) as wire,
    ):
        await wire.pong()
        wire.begin(call_headers(SERVICE + "AddCredits"), ADD)
        await store.entered.wait()
        refused = await wire.request(call_headers(SERVICE + "AddCredits"), ADD)
        assert refused.status is Status.UNAVAILABLE
        await wire.pong()
        yield served, store, wire
        store.released.set()
        await served.wait_quiet()


def allowed(wire: Wire) -> int:
    return wire.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS]


def end_rounds(served: Serving, count: int) -> None:
    """Lets time pass without refusals."""
    for _ in range(count):
        served.server._backpressure.end_round()


async def test_a_client_is_told_by_the_setting_of_http2_and_is_served_all_the_same() -> None:
    limits = replace(LIMITS, overload_streams_max=3)
    async with overloaded(limits) as (served, store, wire):
        assert allowed(wire) == 3
        store.released.set()
        await served.wait_quiet()
        await wire.pong()
        await is_served(wire)


async def test_a_client_is_let_go_in_the_end() -> None:
    async with overloaded() as (served, store, wire):
        assert allowed(wire) == 1
        store.released.set()
        await served.wait_quiet()
        end_rounds(served, 11)
        await wire.pong()
        assert allowed(wire) == ConnectionLimits().streams_max


async def test_who_has_no_call_open_is_told_of_less_and_of_more_only_when_it_has_one() -> None:
    async with serving() as served, Wire.connect(served.port) as wire:
        await wire.pong()
        (member,) = served.server._protocols
        for ration in (5, 9, 3, 9):
            member.ration(ration)
            await wire.pong()
            assert allowed(wire) <= min(ration, 5)
        assert allowed(wire) == 3
        _, unfinished = wire.begin(call_headers(SERVICE + "AddCredits"), end=False)
        await wire.pong()
        member.ration(9)
        await wire.pong()
        assert allowed(wire) == 9
        assert not unfinished.ended.is_set()


async def test_a_ration_is_never_above_what_a_connection_may_have_anyway() -> None:
    limits = replace(LIMITS, overload_streams_max=1000)
    async with overloaded(limits, ConnectionLimits(streams_max=5)) as (_, _, wire):
        assert allowed(wire) == 5


async def test_health_is_told_to_a_client_with_a_ration_of_one_and_to_a_new_one() -> None:
    async with overloaded() as (served, store, wire), Wire.connect(served.port) as prober:
        health = await prober.call(HEALTH + "Check", HealthCheckRequest())
        assert health.message(HealthCheckResponse).status == HealthCheckResponse.SERVING
        store.released.set()
        await served.wait_quiet()
        await wire.pong()
        health = await wire.call(HEALTH + "Check", HealthCheckRequest())
        assert health.message(HealthCheckResponse).status == HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param(HEALTH + "Watch", HealthCheckRequest(), id="health"),
        pytest.param(SERVICE + "ListUserTransactions", UserId(user_id=7), id="a list"),
    ],
)
async def test_calls_that_last_do_not_use_up_a_ration(
    path: str, message: HealthCheckRequest | UserId
) -> None:
    async with (
        serving(EndlessStore(), call_limits=replace(LIMITS, calls_max=2)) as served,
        Wire.connect(served.port, window=10) as wire,
    ):
        await wire.request(call_headers(SERVICE + "AddCredits"), ADD)
        _, lasting = wire.begin(call_headers(path), framed(message_bytes(message)))
        await lasting.begun()
        served.server._backpressure.refused(informed=True)
        await wire.pong()
        assert allowed(wire) == 2
        await is_served(wire)


async def test_a_stop_ends_the_rationing_with_the_calls() -> None:
    async with overloaded() as (served, store, wire):
        stopping = asyncio.create_task(served.server.stop(grace_seconds=60))
        await until(lambda: served.server.connections.draining)
        store.released.set()
        await stopping
        assert not served.server._backpressure.rationing
        await wire.closed.wait()
        assert wire.goaway is ErrorCodes.NO_ERROR
