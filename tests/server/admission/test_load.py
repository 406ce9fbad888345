"""Shedding: a call is rejected by its headers alone, cheaply, and without effect on other calls.

Below are the measures of the load that decide it: event loop, shed calls, batches.
"""

import asyncio
import time
from collections.abc import MutableMapping
from random import Random
from typing import Any

import pytest
from credit_models import CreditRequest, Empty, UserCredits, UserId
from credit_models.codec import encode
from credit_server.admission.decision import Decision
from credit_server.admission.load import (
    AdmissionController,
    LatencyEstimate,
    LoopLag,
    ShedRatio,
)
from credit_server.grpc.handler import CallLimits
from credit_server.http2.connections import Closing
from credit_server.http2.limits import ConnectionLimits
from credit_testing.calls import SERVICE, Answer, call_headers, framed
from credit_testing.frames import ErrorCode
from credit_testing.http2_client import Connection
from credit_testing.stores import HeldStore
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpclib.const import Status
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.server.serving import handler_of, serving

ADD = framed(encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)))
PATH = SERVICE + "AddCredits"
ONE_CALL = CallLimits(message_bytes_max=4096, calls_max=1)


def assert_shed(answer: Answer, *, write: bool = True) -> None:
    assert answer.status is Status.UNAVAILABLE
    info, retry = answer.details
    assert isinstance(info, ErrorInfo)
    assert (info.reason, info.domain) == ("OVERLOADED", "credit.v1")
    assert isinstance(retry, RetryInfo)
    assert 0.1 <= retry.retry_delay.ToMilliseconds() / 1000 <= 15
    assert ("no change was made" in answer.sentence) is write
    assert not answer.data


async def test_a_call_beyond_the_limit_is_shed_and_has_no_effect() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=ONE_CALL) as served,
        Connection.connect(served.port) as wire,
    ):
        _, running = wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        assert_shed(await wire.request(call_headers(PATH), ADD))
        assert served.server._admission.shed_total == {"calls": 1}
        store.released.set()
        assert (await wire.ended(running)).message(Empty) == Empty()
        await served.wait_quiet()
        holdings = await wire.call("GetUserCredits", UserId(user_id=7))
        assert holdings.message(UserCredits).revision == 1


async def test_it_is_shed_before_any_of_its_message_has_come() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=ONE_CALL) as served,
        Connection.connect(served.port) as wire,
    ):
        wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        answer = await wire.request(call_headers(PATH), end=False)
        assert_shed(answer)
        await wire.in_order()
        assert answer.reset is ErrorCode.NO_ERROR  # it may stop sending
        store.released.set()


async def test_the_limit_is_for_all_connections_together() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=ONE_CALL) as served,
        Connection.connect(served.port) as one,
        Connection.connect(served.port) as other,
    ):
        one.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        assert_shed(await other.request(call_headers(PATH), ADD))
        store.released.set()


async def test_a_shed_call_echoes_its_request_id() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=ONE_CALL) as served,
        Connection.connect(served.port) as wire,
    ):
        wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        answer = await wire.request(call_headers(PATH, ("x-request-id", "mine")), ADD)
        assert answer.headers["x-request-id"] == "mine"
        store.released.set()


async def test_health_is_answered_at_any_load() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=ONE_CALL) as served,
        Connection.connect(served.port) as wire,
    ):
        wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        health = await wire.call("/grpc.health.v1.Health/Check", HealthCheckRequest())
        assert health.message(HealthCheckResponse).status == HealthCheckResponse.SERVING
        store.released.set()


async def test_a_path_that_is_none_of_grpcs_services_is_counted_like_any_other() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=ONE_CALL) as served,
        Connection.connect(served.port) as wire,
    ):
        wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        nothing = call_headers("/grpc.nonsense.v1.Nothing/Do")
        assert_shed(await wire.request(nothing, ADD), write=False)
        store.released.set()


async def test_a_call_that_is_reset_makes_room_for_another() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=ONE_CALL) as served,
        Connection.connect(served.port) as wire,
    ):
        stream_id, _ = wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        wire.reset(stream_id)
        await served.wait_quiet()
        read = await wire.call("GetUserCredits", UserId(user_id=7))
        assert read.message(UserCredits) == UserCredits(user_id=7)
        store.released.set()


async def test_a_shed_call_that_was_already_reset_does_no_harm() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=ONE_CALL) as served,
        Connection.connect(served.port) as wire,
    ):
        _, running = wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        stream_id, _ = wire.begin(call_headers(PATH), end=False)
        wire.reset(stream_id)
        await wire.in_order()
        store.released.set()
        assert (await wire.ended(running)).message(Empty) == Empty()


async def test_answers_to_shed_calls_do_not_pile_up_for_a_client_that_does_not_read() -> None:
    store = HeldStore()
    connections = ConnectionLimits(resets_burst=20, resets_per_second=1)
    async with (
        serving(store, call_limits=ONE_CALL, connections=connections) as served,
        Connection.connect(served.port) as deaf,
    ):
        deaf.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        (member,) = served.server._protocols
        member.connection.pause_writing()
        refused = await deaf.request(call_headers(PATH), ADD)
        assert refused.reset is ErrorCode.REFUSED_STREAM
        assert not refused.headers
        for _ in range(30):
            deaf.begin(call_headers(PATH), ADD)
        await deaf.settled()
        await deaf.settled()  # the server charges the cost of a slice with the frame after it
        await deaf.closed.wait()
        store.released.set()
        assert served.server.connections.closed == {Closing.FLOOD: 1}


async def test_shed_calls_leave_nothing_behind_in_the_connection() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=ONE_CALL) as served,
        Connection.connect(served.port) as wire,
    ):
        wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        for _ in range(50):
            assert_shed(await wire.request(call_headers(PATH), ADD))
        (protocol,) = served.server._protocols
        assert len(protocol.processor.streams) == 1
        assert len(handler_of(protocol)._tasks) == 1
        store.released.set()


async def test_shed_calls_share_a_line_of_the_log(
    logged: list[MutableMapping[str, Any]],  # Any: structlog's own type
) -> None:
    controller = AdmissionController(calls_max=1, loop_lag_seconds_max=1)
    for _ in range(100):
        controller.shed(Decision.CALLS)
    lines = [line for line in logged if line["event"] == "calls are rejected"]
    assert 1 <= len(lines) < 100
    assert controller.shed_total == {"calls": 100}


async def test_shed_callers_wait_longer_the_more_of_them_there_are() -> None:
    controller = AdmissionController(calls_max=1, loop_lag_seconds_max=1)
    early = sum(controller.shed(Decision.CALLS) for _ in range(50)) / 50
    for _ in range(1000):
        controller.shed(Decision.CALLS)
    late = sum(controller.shed(Decision.CALLS) for _ in range(50)) / 50
    assert late > 5 * early


async def test_calls_are_shed_while_the_loop_is_late_and_admitted_after_it() -> None:
    controller = AdmissionController(calls_max=100, loop_lag_seconds_max=0.02)
    assert controller.admit(write=False) is Decision.ADMIT
    time.sleep(0.1)  # noqa: ASYNC251 - this is what is measured: a loop that stands still
    assert controller.admit(write=False) is Decision.LOOP_LAG
    # The next beat finds the loop in time.
    while controller.admit(write=False) is not Decision.ADMIT:  # noqa: ASYNC110
        await asyncio.sleep(0)


@pytest.mark.parametrize("count", [1, 3])
async def test_as_many_calls_as_are_allowed_run(count: int) -> None:
    controller = AdmissionController(calls_max=count, loop_lag_seconds_max=60)
    for _ in range(count):
        assert controller.admit(write=False) is Decision.ADMIT
    assert controller.admit(write=False) is Decision.CALLS


class FakeQueue:
    """Admits every write, and keeps the numbers of running writes that it was given."""

    def __init__(self) -> None:
        self.running: list[int] = []

    def admission(self, writing: int) -> Decision:
        self.running.append(writing)
        return Decision.ADMIT

    def is_overdue(self, writing: int) -> bool:
        self.running.append(writing)
        return False


async def test_no_write_is_thought_to_wait_for_calls_that_only_read() -> None:
    queue = FakeQueue()
    controller = AdmissionController(calls_max=100, loop_lag_seconds_max=60, write_queue=queue)
    for write in (True, False, False):
        assert controller.admit(write=write) is Decision.ADMIT
    assert not controller.is_overdue()
    assert controller.admit(write=True) is Decision.ADMIT
    controller.leave(write=True)
    controller.leave(write=True)
    assert controller.admit(write=True) is Decision.ADMIT
    assert queue.running == [0, 1, 1, 0]


async def test_a_quiet_loop_is_not_late() -> None:
    lag = LoopLag()
    assert lag.measure() == 0
    assert lag.measure() < 0.05


def settle(estimate: LatencyEstimate, size: int, seconds: float) -> None:
    estimate.begin(size, 0.0)
    estimate.end(seconds)


def test_nothing_is_expected_before_anything_is_known() -> None:
    assert LatencyEstimate(100).seconds_until_settled(1000, 0.0) == 0


def test_a_write_is_settled_after_those_that_wait() -> None:
    estimate = LatencyEstimate(100)
    settle(estimate, 100, 1.0)
    assert estimate.seconds_until_settled(0, 5.0) == pytest.approx(0.01)
    assert estimate.seconds_until_settled(99, 5.0) == pytest.approx(1.0)


def test_the_rest_of_the_batch_under_way_comes_before_it() -> None:
    estimate = LatencyEstimate(100)
    settle(estimate, 100, 1.0)
    estimate.begin(50, 10.0)
    assert estimate.seconds_until_settled(0, 10.2) == pytest.approx(0.5 - 0.2 + 0.01)
    assert estimate.seconds_until_settled(0, 13.0) == pytest.approx(0.01)  # late already


def test_a_small_batch_does_not_make_many_writes_look_slow() -> None:
    estimate = LatencyEstimate(100)
    settle(estimate, 1, 0.01)
    assert estimate.seconds_until_settled(99, 1.0) == 0
    settle(estimate, 100, 0.1)
    settle(estimate, 1, 0.01)
    assert estimate.seconds_until_settled(99, 1.0) == pytest.approx(0.1)


def test_it_follows_a_store_that_becomes_slower_and_recovers_by_small_batches_too() -> None:
    estimate = LatencyEstimate(100)
    settle(estimate, 100, 0.1)
    for _ in range(20):
        settle(estimate, 100, 10.0)
    assert estimate.seconds_until_settled(99, 20.0) == pytest.approx(10.0, rel=0.01)
    for _ in range(20):
        settle(estimate, 10, 0.01)
    assert estimate.seconds_until_settled(99, 20.0) == pytest.approx(0.1, rel=0.1)


def delays(ratio: ShedRatio, count: int, base_seconds: float = 1.0) -> list[float]:
    return [ratio.shed(base_seconds) for _ in range(count)]


def test_the_wait_is_spread_around_the_time_when_there_is_room() -> None:
    seconds = []
    for seed in range(200):
        seconds += delays(ShedRatio(Random(seed)), 1)
    assert 0.5 <= min(seconds) < 0.6
    assert 1.4 < max(seconds) <= 1.6


def test_the_wait_grows_with_the_share_that_is_shed_and_is_bounded() -> None:
    ratio = ShedRatio(Random(1))
    early = sum(delays(ratio, 20))
    delays(ratio, 1000)
    assert sum(delays(ratio, 20)) > 5 * early
    assert max(delays(ratio, 100, base_seconds=3600)) <= 15


def test_the_wait_shrinks_when_calls_are_admitted_again() -> None:
    ratio = ShedRatio(Random(1))
    delays(ratio, 1000)
    ratio.admitted += 1000
    assert max(delays(ratio, 5)) < 2


def test_the_wait_is_never_zero() -> None:
    assert min(delays(ShedRatio(Random(1)), 100, base_seconds=0)) >= 0.05
