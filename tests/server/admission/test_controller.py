"""Shedding: a call too many is refused by its headers alone, cheaply, and nobody else notices."""

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

import pytest
from credit_models import CreditRequest, Empty, UserCredits, UserId
from credit_models.codec import encode
from credit_server.admission.controller import WRITES, Gate, LoopLag
from credit_server.grpc.handler import CallLimits
from credit_server.http2.connections import Closing
from credit_server.http2.limits import ConnectionLimits
from credit_testing.http2_client import SERVICE, Answer, Wire, call_headers, framed
from credit_testing.stores import HeldStore
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpclib.const import Status
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from h2.errors import ErrorCodes

from tests.server.serving import serving

ADD = framed(encode(CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)))
PATH = SERVICE + "AddCredits"
ONE_CALL = CallLimits(message_bytes_max=4096, calls_max=1)


def assert_shed(answer: Answer) -> None:
    assert answer.status is Status.UNAVAILABLE
    info, retry = answer.details
    assert isinstance(info, ErrorInfo)
    assert (info.reason, info.domain) == ("OVERLOADED", "credit.v1")
    assert isinstance(retry, RetryInfo)
    assert 0.1 <= retry.retry_delay.ToMilliseconds() / 1000 <= 15
    assert "no change was made" in answer.sentence
    assert not answer.data


async def test_a_call_too_many_is_refused_and_has_no_effect() -> None:
    store = HeldStore()
    async with serving(store, call_limits=ONE_CALL) as served, Wire.connect(served.port) as wire:
        _, running = wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        assert_shed(await wire.request(call_headers(PATH), ADD))
        assert served.server._gate.shed_total == {"calls": 1}
        store.released.set()
        assert (await wire.ended(running)).message(Empty) == Empty()
        await served.wait_quiet()
        holdings = await wire.call("GetUserCredits", UserId(user_id=7))
        assert holdings.message(UserCredits).revision == 1


async def test_it_is_refused_before_any_of_its_message_has_come() -> None:
    store = HeldStore()
    async with serving(store, call_limits=ONE_CALL) as served, Wire.connect(served.port) as wire:
        wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        answer = await wire.request(call_headers(PATH), end=False)
        assert_shed(answer)
        await wire.pong()
        assert answer.reset is ErrorCodes.NO_ERROR  # it need not go on sending
        store.released.set()


async def test_the_limit_is_for_all_connections_together() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=ONE_CALL) as served,
        Wire.connect(served.port) as one,
        Wire.connect(served.port) as other,
    ):
        one.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        assert_shed(await other.request(call_headers(PATH), ADD))
        store.released.set()


async def test_a_refused_call_echoes_its_request_id() -> None:
    store = HeldStore()
    async with serving(store, call_limits=ONE_CALL) as served, Wire.connect(served.port) as wire:
        wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        answer = await wire.request(call_headers(PATH, ("x-request-id", "mine")), ADD)
        assert answer.headers["x-request-id"] == "mine"
        store.released.set()


async def test_health_is_told_whatever_the_load() -> None:
    store = HeldStore()
    async with serving(store, call_limits=ONE_CALL) as served, Wire.connect(served.port) as wire:
        wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        health = await wire.call("/grpc.health.v1.Health/Check", HealthCheckRequest())
        assert health.message(HealthCheckResponse).status == HealthCheckResponse.SERVING
        store.released.set()


async def test_a_path_that_is_none_of_grpcs_services_is_counted_like_any_other() -> None:
    store = HeldStore()
    async with serving(store, call_limits=ONE_CALL) as served, Wire.connect(served.port) as wire:
        wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        assert_shed(await wire.request(call_headers("/grpc.nonsense.v1.Nothing/Do"), ADD))
        store.released.set()


async def test_a_call_that_is_reset_frees_its_place() -> None:
    store = HeldStore()
    async with serving(store, call_limits=ONE_CALL) as served, Wire.connect(served.port) as wire:
        stream_id, _ = wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        wire.h2.reset_stream(stream_id)
        wire.flush()
        await served.wait_quiet()
        read = await wire.call("GetUserCredits", UserId(user_id=7))
        assert read.message(UserCredits) == UserCredits(user_id=7)
        store.released.set()


async def test_a_refused_call_that_was_reset_already_is_no_harm() -> None:
    store = HeldStore()
    async with serving(store, call_limits=ONE_CALL) as served, Wire.connect(served.port) as wire:
        _, running = wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        stream_id = wire.h2.get_next_available_stream_id()
        wire.h2.send_headers(stream_id, call_headers(PATH))
        wire.h2.reset_stream(stream_id)
        wire.flush()
        await wire.pong()
        store.released.set()
        assert (await wire.ended(running)).message(Empty) == Empty()


async def test_refusals_do_not_pile_up_for_a_client_that_does_not_read() -> None:
    store = HeldStore()
    connections = ConnectionLimits(resets_burst=20, resets_per_second=1)
    async with (
        serving(store, call_limits=ONE_CALL, connections=connections) as served,
        Wire.connect(served.port) as deaf,
    ):
        deaf.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        (member,) = served.server._protocols
        member.connection.pause_writing()
        refused = await deaf.request(call_headers(PATH), ADD)
        assert refused.reset is ErrorCodes.REFUSED_STREAM
        assert not refused.headers
        for _ in range(30):
            deaf.begin(call_headers(PATH), ADD)
        await deaf.pong()
        await deaf.pong()  # what the slice before has cost is asked for with the next frame
        await deaf.closed.wait()
        store.released.set()
        assert served.server.connections.closed == {Closing.FLOOD: 1}


async def test_refusals_leave_nothing_behind_in_the_connection() -> None:
    store = HeldStore()
    async with serving(store, call_limits=ONE_CALL) as served, Wire.connect(served.port) as wire:
        wire.begin(call_headers(PATH), ADD)
        await store.entered.wait()
        for _ in range(50):
            assert_shed(await wire.request(call_headers(PATH), ADD))
        (protocol,) = served.server._protocols
        assert len(protocol.processor.streams) == 1
        assert len(protocol.handler._tasks) == 1
        store.released.set()


async def test_refused_calls_share_a_line_of_the_log(
    logged: list[MutableMapping[str, Any]],  # Any: structlog's own type
) -> None:
    gate = Gate(calls_max=1, loop_lag_seconds_max=1)
    for _ in range(100):
        gate.shed("calls")
    lines = [line for line in logged if line["event"] == "calls are refused"]
    assert 1 <= len(lines) < 100
    assert gate.shed_total == {"calls": 100}


async def test_those_who_are_refused_are_sent_away_for_longer_the_more_they_are() -> None:
    gate = Gate(calls_max=1, loop_lag_seconds_max=1)
    early = sum(gate.shed("calls") for _ in range(50)) / 50
    for _ in range(1000):
        gate.shed("calls")
    late = sum(gate.shed("calls") for _ in range(50)) / 50
    assert late > 5 * early


async def test_calls_are_refused_while_the_loop_is_late_and_taken_in_after_it() -> None:
    gate = Gate(calls_max=100, loop_lag_seconds_max=0.02)
    assert gate.refusal("/any") is None
    gate.enter("/any")
    time.sleep(0.1)  # noqa: ASYNC251 - this is what is measured: a loop that stands still
    assert gate.refusal("/any") == "loop_lag"
    while gate.refusal("/any") is not None:  # noqa: ASYNC110 - the next beat finds the loop in time
        await asyncio.sleep(0)


async def test_a_quiet_loop_is_not_late() -> None:
    lag = LoopLag()
    assert lag.seconds() == 0
    lag.watch()
    assert lag.seconds() < 0.05


@pytest.mark.parametrize("count", [1, 3])
async def test_as_many_calls_as_are_allowed_run(count: int) -> None:
    gate = Gate(calls_max=count, loop_lag_seconds_max=60)
    for _ in range(count):
        assert gate.refusal("/any") is None
        gate.enter("/any")
    assert gate.refusal("/any") == "calls"


class Written:
    """Keeps how many writes it was told of."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def refusal(self, writing: int) -> str | None:
        self.told.append(writing)
        return None

    def overdue(self, writing: int) -> bool:
        self.told.append(writing)
        return False


async def test_no_write_is_thought_to_wait_for_calls_that_only_read() -> None:
    writes = Written()
    gate = Gate(calls_max=100, loop_lag_seconds_max=60, writes=writes)
    for path in (PATH, SERVICE + "ListUserTransactions", SERVICE + "GetUserCredits"):
        gate.enter(path)
    assert gate.refusal(PATH) is None
    assert not gate.overdue()
    gate.leave(PATH)
    assert gate.refusal(PATH) is None
    assert writes.told == [1, 1, 0]


def test_the_writes_are_known_from_the_contract() -> None:
    assert {SERVICE + "AddCredits", SERVICE + "UseCredits"} == WRITES
