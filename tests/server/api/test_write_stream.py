"""Write, the stream of operations, as a client sees it on the wire."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from credit_models import (
    AppId,
    Balance,
    CreditRequest,
    Operation,
    PurchaseRequest,
    WriteRequest,
    WriteResponse,
)
from credit_models.codec import encode
from credit_server.access.audit import Line
from credit_server.access.authorize import AccessLimits
from credit_server.api.write_stream import OPERATIONS_MAX
from credit_server.commit import CommitLimits
from credit_server.grpc.handler import CallLimits
from credit_server.http2.connections import Closing
from credit_server.http2.limits import ConnectionLimits
from credit_testing.calls import Answer, call_headers, framed
from credit_testing.frames import ErrorCode
from credit_testing.http2_client import Connection
from credit_testing.stores import HeldStore
from google.rpc.error_details_pb2 import BadRequest
from grpclib.const import Status

from tests.server.callers import info_of
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.operations import WRITE, as_answer
from tests.server.serving import Serving, is_served, serving, until

# On a busy machine the writes of a test may wait for seconds.
PATIENT = CommitLimits(wait_seconds_max=3600.0)


def _add(number: int, amount: int = 1, *, user: int = 7, key: str = "") -> WriteRequest:
    request = CreditRequest(
        user_id=user, app_id=1, credits=amount, created_by=9, idempotency_key=key
    )
    return WriteRequest(correlation_id=number, operation=Operation(add_credits=request))


def _use(number: int, amount: int) -> WriteRequest:
    request = PurchaseRequest(
        user_id=7, app_id=1, report_id="r", report_name="R", credits=amount, created_by=9
    )
    return WriteRequest(correlation_id=number, operation=Operation(use_credits=request))


class Stream:
    """One stream of operations."""

    def __init__(self, wire: Connection, *more: tuple[str, str]) -> None:
        self._wire = wire
        self.id, self.answer = wire.begin(call_headers(WRITE, *more), end=False)

    async def send(self, *requests: WriteRequest, end: bool = False) -> None:
        """Send operations, in as few frames as possible."""
        data = b"".join(framed(encode(request)) for request in requests)
        if data:
            await self._wire.send_all(self.id, data, end=end)
        elif end:
            self._wire.send(self.id, b"", end=True)

    def received(self) -> list[WriteResponse]:
        """Return the outcomes that have come so far."""
        return self.answer.messages(WriteResponse)

    async def outcomes(self, count: int) -> list[WriteResponse]:
        """Wait for a number of outcomes."""
        while len(self.received()) < count:
            assert not self.answer.ended.is_set(), (self.answer.status, self.answer.sentence)
            self.answer.changed.clear()
            await self.answer.changed.wait()
        return self.received()

    async def end(self) -> Answer:
        """Wait for the end of the stream."""
        return await self._wire.ended(self.answer)


def _ids(responses: Sequence[WriteResponse]) -> list[int]:
    return [response.correlation_id for response in responses]


def _reason(response: WriteResponse) -> str:
    """Return the reason of a failure; empty for a receipt."""
    assert response.outcome is not None
    if response.outcome.receipt is not None:
        return ""
    answer = as_answer(response.outcome)
    return info_of(answer).reason if answer.details else "none"


async def _balance(wire: Connection, *more: tuple[str, str]) -> int:
    answer = await wire.call("GetAppBalance", AppId(app_id=1, user_id=7), *more)
    return answer.message(Balance).balance


@asynccontextmanager
async def _held(lines: list[Line] | None = None) -> AsyncIterator[tuple[Serving, HeldStore]]:
    store = HeldStore()
    async with serving(store, audit_sink=None if lines is None else lines.append) as served:
        yield served, store


async def test_each_operation_is_answered_while_the_stream_is_open(wire: Connection) -> None:
    stream = Stream(wire)
    await stream.send(_add(1, 10))
    (first,) = await stream.outcomes(1)
    await stream.send(_use(2, 4))
    _, second = await stream.outcomes(2)
    for response, balance in ((first, 10), (second, 6)):
        assert response.outcome is not None
        assert response.outcome.receipt is not None
        assert response.outcome.receipt.balance == balance
    assert not stream.answer.ended.is_set()
    await stream.send(end=True)
    assert (await stream.end()).status is Status.OK
    assert _ids(stream.received()) == [1, 2]


async def test_headers_come_before_any_operation(wire: Connection) -> None:
    stream = Stream(wire)
    while not stream.answer.headers:
        stream.answer.changed.clear()
        await stream.answer.changed.wait()
    assert stream.answer.headers["content-type"] == "application/grpc+proto"
    await stream.send(end=True)
    assert (await stream.end()).status is Status.OK


async def test_operations_of_a_user_are_applied_in_their_order(wire: Connection) -> None:
    stream = Stream(wire)
    await stream.send(_add(1, 5), _use(2, 5), _use(3, 1), _add(4, 7), end=True)
    assert (await stream.end()).status is Status.OK
    by_id = {response.correlation_id: response for response in stream.received()}
    assert [_reason(by_id[number]) for number in range(1, 5)] == [
        "",
        "",
        "INSUFFICIENT_CREDITS",
        "",
    ]
    assert await _balance(wire) == 7


async def test_outcomes_come_in_the_order_of_completion() -> None:
    async with _held() as (served, store), Connection.connect(served.port) as wire:
        stream = Stream(wire)
        await stream.send(_add(1), WriteRequest(correlation_id=2))
        assert _ids(await stream.outcomes(1)) == [2]
        store.released.set()
        assert _ids(await stream.outcomes(2)) == [2, 1]


async def test_a_broken_operation_fails_alone(wire: Connection) -> None:
    stream = Stream(wire)
    too_wide = b"\x08\x03\x12\x0e\x0a\x0c\x08\x07\x10\x01\x18\x85\x80\x80\x80\x10\x20\x09"
    await stream.send(_add(1), _add(2, 0))
    wire.send(stream.id, framed(too_wide))
    await stream.send(WriteRequest(correlation_id=4), _add(5), end=True)
    assert (await stream.end()).status is Status.OK
    reasons = {response.correlation_id: _reason(response) for response in stream.received()}
    broken = "INVALID_FIELD"
    assert reasons == {1: "", 2: broken, 3: broken, 4: broken, 5: ""}
    assert await _balance(wire) == 2


async def test_a_correlation_id_that_is_in_use_ends_the_stream_after_the_outcomes() -> None:
    async with _held() as (served, store), Connection.connect(served.port) as wire:
        stream = Stream(wire)
        await stream.send(_add(0), _add(0), _add(1))
        await store.entered.wait()
        await wire.in_order()
        store.released.set()
        answer = await stream.end()
        assert answer.status is Status.INVALID_ARGUMENT
        broken = answer.details[1]
        assert isinstance(broken, BadRequest)
        assert [violation.field for violation in broken.field_violations] == ["correlation_id"]
        assert _ids(stream.received()) == [0]
        assert await _balance(wire) == 1


async def test_a_correlation_id_may_be_used_again_after_its_outcome(wire: Connection) -> None:
    stream = Stream(wire)
    for count in range(1, 4):
        await stream.send(_add(5))
        await stream.outcomes(count)
    await stream.send(end=True)
    assert (await stream.end()).status is Status.OK


async def test_a_malformed_message_ends_the_stream_after_the_outcomes(wire: Connection) -> None:
    stream = Stream(wire)
    await stream.send(_add(1))
    wire.send(stream.id, framed(b"\xff"))
    answer = await stream.end()
    assert answer.status is Status.INTERNAL
    assert _ids(stream.received()) == [1]


async def test_no_more_is_read_than_may_be_without_an_outcome() -> None:
    async with _held() as (served, store), Connection.connect(served.port) as wire:
        stream = Stream(wire)
        await stream.send(*(_add(number) for number in range(2 * OPERATIONS_MAX)))
        (protocol,) = served.server._protocols
        unread = [framed(encode(_add(n))) for n in range(OPERATIONS_MAX, 2 * OPERATIONS_MAX)]
        expected = len(b"".join(unread))
        await wire.in_order()
        (http_stream,) = protocol.processor.streams.values()
        await until(lambda: http_stream.data_received == expected)
        await wire.in_order()
        assert http_stream.data_received == expected
        store.released.set()
        await stream.send(end=True)
        assert (await stream.end()).status is Status.OK
        assert sorted(_ids(stream.received())) == list(range(2 * OPERATIONS_MAX))


async def test_a_client_that_reads_no_outcomes_stops_being_read() -> None:
    async with (
        serving(limits=PATIENT) as served,
        Connection.connect(served.port, window=0) as wire,
    ):
        stream = Stream(wire)
        count = 2 * OPERATIONS_MAX
        await stream.send(*(_add(number) for number in range(count)))
        async with Connection.connect(served.port) as other:
            balance = 0
            while balance < OPERATIONS_MAX:
                balance = await _balance(other)
            for _ in range(10):  # nothing more is applied
                assert await _balance(other) == OPERATIONS_MAX
        assert stream.received() == []
        wire.grow(stream.id, 1 << 20)
        await stream.send(end=True)
        assert (await stream.end()).status is Status.OK
        assert len(stream.received()) == count


async def test_a_stream_may_be_longer_than_what_its_connection_may_hold() -> None:
    connections = ConnectionLimits(request_bytes_max=16_384)
    async with serving(connections=connections) as served, Connection.connect(served.port) as wire:
        stream = Stream(wire)
        key = "k" * 120
        for start in range(0, 600, 50):
            await stream.send(*(_add(start + n, key=f"{start + n}{key}") for n in range(50)))
            await stream.outcomes(start + 50)
        await stream.send(end=True)
        assert (await stream.end()).status is Status.OK
        assert len(encode(_add(1, key=key))) * 600 > 5 * 16_384
        (protocol,) = served.server._protocols
        assert protocol.processor._request_bytes == 0


async def test_small_messages_in_frames_of_their_own_are_no_flood() -> None:
    connections = ConnectionLimits(control_frames_per_second=1, control_frames_burst=200)
    async with serving(connections=connections) as served, Connection.connect(served.port) as wire:
        stream = Stream(wire)
        for number in range(1000):
            await stream.send(_add(number))
        await stream.send(end=True)
        assert (await stream.end()).status is Status.OK


async def test_parts_of_a_message_in_many_frames_are_a_flood(bystander: Connection) -> None:
    connections = ConnectionLimits(control_frames_per_second=1, control_frames_burst=200)
    async with serving(connections=connections) as served, Connection.connect(served.port) as wire:
        stream = Stream(wire)
        for byte in framed(encode(_add(1, key="k" * 100))) * 3:
            wire.send(stream.id, bytes([byte]))
        await wire.closed.wait()
        assert wire.goaway == ErrorCode.ENHANCE_YOUR_CALM


async def test_an_operation_has_the_deadline_of_a_call_and_the_stream_goes_on() -> None:
    store = HeldStore()
    limits = CallLimits(
        message_bytes_max=4096, loop_lag_seconds_max=3600.0, call_deadline_seconds=0.02
    )
    async with (
        serving(store, call_limits=limits) as served,
        Connection.connect(served.port) as wire,
    ):
        stream = Stream(wire)
        await stream.send(_add(1))
        (expired,) = await stream.outcomes(1)
        assert expired.outcome is not None
        failure = expired.outcome.failure
        assert failure is not None
        assert failure.code == Status.DEADLINE_EXCEEDED.value
        assert "may or may not have taken effect" in failure.message
        assert not stream.answer.ended.is_set()
        store.released.set()
        await stream.send(end=True)
        assert (await stream.end()).status is Status.OK


async def test_the_deadline_of_the_stream_is_the_clients() -> None:
    async with _held() as (served, store), Connection.connect(served.port) as wire:
        stream = Stream(wire, ("grpc-timeout", "20m"))
        answer = await stream.end()
        assert answer.status is Status.DEADLINE_EXCEEDED
        store.released.set()


async def test_a_reset_stream_does_not_disturb_what_is_in_a_commit() -> None:
    lines: list[Line] = []
    async with _held(lines) as (served, store), Connection.connect(served.port) as wire:
        stream = Stream(wire)
        await stream.send(_add(1, 5))
        await store.entered.wait()
        await stream.send(_add(2, 3))
        await wire.in_order()
        wire.reset(stream.id)
        await served.wait_quiet()
        store.released.set()
        await until(lambda: len(lines) == 2)
        assert await _balance(wire) == 5
    shown = [(line["status"], line["answered"]) for line in lines]
    assert sorted(shown) == [("CANCELLED", False), ("OK", False)]


async def test_a_broken_connection_ends_the_stream_and_its_tasks(served: Serving) -> None:
    before = asyncio.all_tasks()
    async with Connection.connect(served.port) as wire:
        stream = Stream(wire)
        await stream.send(_add(1))
        await stream.outcomes(1)
        begun = asyncio.all_tasks() - before
    await asyncio.wait(begun)
    await served.wait_quiet()


async def test_a_drain_answers_what_was_read_and_sends_the_client_elsewhere() -> None:
    async with _held() as (served, store), Connection.connect(served.port) as wire:
        stream = Stream(wire)
        await stream.send(_add(1), _add(2))
        await store.entered.wait()
        await wire.in_order()
        stopping = asyncio.create_task(served.server.stop(grace_seconds=3600))
        await wire.received_goaways(1)
        await stream.send(_add(3))  # it crosses the GOAWAY
        await wire.in_order()
        store.released.set()
        answer = await stream.end()
        await stopping
        assert sorted(_ids(stream.received())) == [1, 2]
        assert (answer.status, info_of(answer).reason) == (Status.UNAVAILABLE, "OVERLOADED")
        assert "operations without an outcome had no effect" in answer.sentence
    assert await store.app_total(1) == 2


async def test_a_stream_that_begins_during_a_drain_ends_at_once(served: Serving) -> None:
    async with Connection.connect(served.port) as wire:
        await is_served(wire)
        held = Stream(wire)  # keeps the connection open until it is drained itself
        await held.send(_add(1))
        await held.outcomes(1)
        (protocol,) = served.server._protocols
        protocol.drain(Closing.AGE)
        late = Stream(wire)
        assert (await held.end()).status is Status.UNAVAILABLE
        assert (await late.end()).status is Status.UNAVAILABLE


async def test_an_idle_stream_does_not_keep_a_server_from_stopping(served: Serving) -> None:
    async with Connection.connect(served.port) as wire:
        stream = Stream(wire)
        await stream.send(_add(1))
        await stream.outcomes(1)
        await served.server.stop(grace_seconds=3600)
        assert (await stream.end()).status is Status.UNAVAILABLE


async def test_open_streams_do_not_count_as_waiting_writes(served: Serving) -> None:
    async with Connection.connect(served.port) as wire:
        streams = [Stream(wire) for _ in range(20)]
        for stream in streams:
            await stream.send(_add(1))
            await stream.outcomes(1)
        assert served.server._admission._running == 20
        assert served.server._admission._writing == 0
        for stream in streams:
            await stream.send(end=True)
            assert (await stream.end()).status is Status.OK


async def test_each_operation_counts_towards_the_rate_limit() -> None:
    token = ("authorization", "Bearer caller")
    limits = AccessLimits(calls_per_second=0.001, calls_burst=3)
    async with (
        serving(
            authenticator=FakeAuthenticator({"caller": EVERYTHING}), access_limits=limits
        ) as served,
        Connection.connect(served.port) as wire,
    ):
        stream = Stream(wire, token)  # one call
        await stream.send(*(_add(number) for number in range(4)), end=True)
        assert (await stream.end()).status is Status.OK
        reasons = [_reason(response) for response in stream.received()]
        assert sorted(reasons) == ["", "", "RATE_LIMITED", "RATE_LIMITED"]


async def test_operations_beyond_the_room_in_the_queue_are_rejected_alone() -> None:
    store = HeldStore()
    limits = CommitLimits(shards=1, waiting_max=2)
    async with serving(store, limits=limits) as served, Connection.connect(served.port) as wire:
        stream = Stream(wire)
        await stream.send(*(_add(number) for number in range(4)))
        refused = await stream.outcomes(2)
        assert [_reason(response) for response in refused] == ["OVERLOADED"] * 2
        store.released.set()
        await stream.send(end=True)
        assert (await stream.end()).status is Status.OK
        assert await _balance(wire) == 2


@pytest.mark.parametrize("streams", [1, 8])
async def test_many_operations_of_many_streams_all_take_effect(streams: int) -> None:
    count = 1000
    async with serving(limits=PATIENT) as served, Connection.connect(served.port) as wire:

        async def write(first: int) -> None:
            stream = Stream(wire)
            for start in range(first, first + count, 100):
                await stream.send(*(_add(start + n, user=7 + n % 3) for n in range(100)))
            await stream.send(end=True)
            assert (await stream.end()).status is Status.OK
            responses = stream.received()
            assert sorted(_ids(responses)) == list(range(first, first + count))
            assert all(not _reason(response) for response in responses)

        await asyncio.gather(*(write(number * count) for number in range(streams)))
        answer = await wire.call("GetAppBalance", AppId(app_id=1))
        assert answer.message(Balance).balance == streams * count
