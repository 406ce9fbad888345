"""The way of every call: attempts, waits, deadlines and the error in the end. Time is made up."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from credit_client import methods
from credit_client.batch import pending_write, send_writes
from credit_client.call import Caller
from credit_client.errors import (
    ClientClosed,
    DeadlineExceeded,
    InternalError,
    InvalidField,
    Overloaded,
    Unavailable,
)
from credit_client.settings import ClientSettings
from credit_client.transport import Answer, AttemptFailed
from credit_models import (
    CreditRequest,
    CreditTransaction,
    DirectoryUser,
    ErrorReason,
    FindUserResponse,
    Purchase,
    WatchResponse,
)
from credit_models.reasons import DOMAIN, reason_name
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpclib.const import Status

VALUES: dict[str, int | str | None] = {
    "user_id": 7,
    "app_id": 1,
    "credits": 5,
    "created_by": 1,
    "idempotency_key": "k",
}
FOUND = Answer(
    reply=FindUserResponse(user=DirectoryUser(user_id=7, app_id=1, external_id="u")), receipt=None
)
LOST = AttemptFailed(Status.UNAVAILABLE, "the connection was lost")
PURCHASES = [Purchase(id="1"), Purchase(id="2"), Purchase(id="3")]

# Any: the transport is the scripted one of conftest, which importlib mode cannot name here.
Scripted = Callable[..., Any]


class MadeUpTime:
    """A clock that only waiting moves, by exactly what was asked for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def caller(self, transport: Any, *, drawn: float = 1.0, **settings: Any) -> Caller:
        return Caller(
            transport,
            ClientSettings(**settings),
            clock=self.clock,
            sleep=self.sleep,
            draw=lambda: drawn,
        )


@pytest.fixture
def time() -> MadeUpTime:
    return MadeUpTime()


def _overloaded(seconds: int) -> AttemptFailed:
    info = ErrorInfo(reason=reason_name(ErrorReason.OVERLOADED), domain=DOMAIN)
    wait = RetryInfo(retry_delay=Duration(seconds=seconds))
    return AttemptFailed(Status.UNAVAILABLE, "busy", details=[info, wait])


async def test_a_repetition_is_the_same_request_under_the_same_id(
    scripted: Scripted, written: Answer[object], time: MadeUpTime
) -> None:
    transport = scripted(LOST, LOST, written)
    answer, request_id = await time.caller(transport).unary(methods.ADD, VALUES)
    assert answer is written
    assert len(transport.sent) == 3
    assert {sent.request_id for sent in transport.sent} == {request_id}
    assert {sent.request.idempotency_key for sent in transport.sent} == {"k"}


async def test_two_calls_have_different_request_ids(
    scripted: Scripted, written: Answer[object], time: MadeUpTime
) -> None:
    transport = scripted(written)
    caller = time.caller(transport)
    await caller.unary(methods.ADD, VALUES)
    await caller.unary(methods.ADD, VALUES)
    first, second = transport.sent
    assert first.request_id != second.request_id


async def test_the_waits_grow_and_the_attempts_end(scripted: Scripted, time: MadeUpTime) -> None:
    transport = scripted(LOST)
    caller = time.caller(
        transport,
        retry_attempts_max=5,
        retry_backoff_initial_seconds=0.1,
        retry_backoff_max_seconds=0.3,
    )
    with pytest.raises(Unavailable) as caught:
        await caller.unary(methods.ADD, VALUES)
    assert time.waits == [0.1, 0.2, 0.3, 0.3]
    assert caught.value.__cause__ is LOST
    assert caught.value.request_id == transport.sent[0].request_id


async def test_the_jitter_goes_down_to_no_wait(
    scripted: Scripted, written: Answer[object], time: MadeUpTime
) -> None:
    await time.caller(scripted(LOST, written), drawn=0.0).unary(methods.ADD, VALUES)
    assert time.waits == [0.0]


@pytest.mark.parametrize(
    "status",
    [status for status in Status if status not in {Status.OK, Status.UNAVAILABLE}],
    ids=lambda status: status.name,
)
async def test_other_failures_are_not_retried(
    scripted: Scripted, time: MadeUpTime, status: Status
) -> None:
    transport = scripted(AttemptFailed(status, "no"))
    with pytest.raises(Exception, match="no"):
        await time.caller(transport).unary(methods.ADD, VALUES)
    assert len(transport.sent) == 1


async def test_the_server_s_retry_info_is_the_least_wait(
    scripted: Scripted, written: Answer[object], time: MadeUpTime
) -> None:
    caller = time.caller(scripted(_overloaded(3), written), retry_backoff_initial_seconds=0.5)
    await caller.unary(methods.ADD, VALUES)
    assert time.waits == [3.5]


async def test_a_wait_past_the_deadline_is_not_begun(scripted: Scripted, time: MadeUpTime) -> None:
    transport = scripted(_overloaded(10))
    with pytest.raises(Overloaded):
        await time.caller(transport, timeout_seconds=10).unary(methods.ADD, VALUES)
    assert time.waits == []


async def test_each_attempt_gets_the_time_that_is_left(
    scripted: Scripted, written: Answer[object], time: MadeUpTime
) -> None:
    transport = scripted(_overloaded(3), written)
    await time.caller(transport, drawn=0.0).unary(methods.ADD, VALUES, timeout_seconds=5)
    assert [sent.timeout_seconds for sent in transport.sent] == [5.0, 2.0]


async def test_a_used_up_budget_ends_the_repetitions_of_all_calls_but_not_the_calls(
    scripted: Scripted, written: Answer[object], time: MadeUpTime
) -> None:
    transport = scripted(LOST)
    caller = time.caller(transport, retry_budget_tokens=4, retry_budget_ratio=1)
    with pytest.raises(Unavailable):
        await caller.unary(methods.ADD, VALUES)
    assert len(transport.sent) == 2
    with pytest.raises(Unavailable):
        await caller.unary(methods.ADD, VALUES)
    assert len(transport.sent) == 3
    transport.outcomes[:] = [written, written, written, LOST, written]
    for _ in range(4):
        await caller.unary(methods.ADD, VALUES)
    assert len(transport.sent) == 8


async def test_an_attempt_without_an_answer_ends_at_the_deadline(
    scripted: Scripted, time: MadeUpTime
) -> None:
    transport = scripted(LOST, asyncio.Event())
    with pytest.raises(
        DeadlineExceeded, match=r"within 0\.02 s.*the connection was lost"
    ) as caught:
        await time.caller(transport, drawn=0.0).unary(methods.ADD, VALUES, timeout_seconds=0.02)
    assert caught.value.__cause__ is LOST
    assert caught.value.request_id == transport.sent[0].request_id


async def test_the_failure_before_is_named_without_its_advice(
    scripted: Scripted, time: MadeUpTime
) -> None:
    unsettled = AttemptFailed(Status.UNAVAILABLE, "not settled; it may have happened: repeat it")
    transport = scripted(unsettled, asyncio.Event())
    with pytest.raises(DeadlineExceeded) as caught:
        await time.caller(transport, drawn=0.0).unary(methods.ADD, VALUES, timeout_seconds=0.02)
    assert caught.value.message == (
        "no answer within 0.02 s; before that: not settled; the write may have taken effect"
    )


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 86_401])
async def test_a_timeout_out_of_range_is_refused(
    scripted: Scripted, written: Answer[object], time: MadeUpTime, seconds: float
) -> None:
    transport = scripted(written)
    with pytest.raises(ValueError, match="timeout_seconds"):
        await time.caller(transport).unary(methods.ADD, VALUES, timeout_seconds=seconds)
    with pytest.raises(ValueError, match="timeout_seconds"):
        time.caller(transport).stream(methods.PURCHASES, {"user_id": 7}, timeout_seconds=seconds)
    assert transport.sent == []


async def test_an_invalid_request_is_not_sent(scripted: Scripted, time: MadeUpTime) -> None:
    transport = scripted(LOST)
    with pytest.raises(InvalidField):
        await time.caller(transport).unary(methods.ADD, VALUES | {"credits": 0})
    with pytest.raises(InvalidField):
        time.caller(transport).stream(methods.PURCHASES, {"user_id": 0})
    assert transport.sent == []


async def test_a_cancelled_call_is_cancelled_and_leaves_no_task(
    scripted: Scripted, time: MadeUpTime
) -> None:
    before, reached = asyncio.all_tasks(), asyncio.Event()
    task = asyncio.create_task(time.caller(scripted(reached)).unary(methods.ADD, VALUES))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


async def test_closing_ends_an_attempt_that_is_under_way(
    scripted: Scripted, time: MadeUpTime
) -> None:
    reached = asyncio.Event()
    caller = time.caller(scripted(reached))
    task = asyncio.create_task(caller.unary(methods.ADD, VALUES))
    await reached.wait()
    caller.close()
    with pytest.raises(ClientClosed):
        await task


async def test_closing_ends_a_wait(scripted: Scripted) -> None:
    waiting = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    caller = Caller(scripted(LOST), ClientSettings(), sleep=sleep)
    task = asyncio.create_task(caller.unary(methods.ADD, VALUES))
    await waiting.wait()
    caller.close()
    with pytest.raises(ClientClosed):
        await task


async def test_a_stream_yields_all_messages(scripted: Scripted, time: MadeUpTime) -> None:
    transport = scripted(PURCHASES)
    messages = time.caller(transport).stream(methods.PURCHASES, {"user_id": 7})
    assert [message async for message in messages] == PURCHASES
    assert transport.closed_streams == 1


async def test_a_stream_without_messages_is_empty(scripted: Scripted, time: MadeUpTime) -> None:
    messages = time.caller(scripted([])).stream(methods.PURCHASES, {"user_id": 7})
    assert [message async for message in messages] == []


async def test_a_stream_is_retried_before_its_first_message(
    scripted: Scripted, time: MadeUpTime
) -> None:
    transport = scripted([LOST], [LOST], PURCHASES)
    messages = time.caller(transport).stream(methods.PURCHASES, {"user_id": 7})
    assert [message async for message in messages] == PURCHASES
    assert len({sent.request_id for sent in transport.sent}) == 1
    assert len(transport.sent) == 3


async def test_a_stream_is_not_retried_after_its_first_message(
    scripted: Scripted, time: MadeUpTime
) -> None:
    transport = scripted([*PURCHASES[:1], LOST], PURCHASES)
    messages = time.caller(transport).stream(methods.PURCHASES, {"user_id": 7})
    assert await anext(messages) == PURCHASES[0]
    with pytest.raises(Unavailable):
        await anext(messages)
    assert len(transport.sent) == 1


async def test_a_stream_that_keeps_failing_raises_the_failure(
    scripted: Scripted, time: MadeUpTime
) -> None:
    transport = scripted([AttemptFailed(Status.INTERNAL, "bug")])
    with pytest.raises(InternalError, match="bug"):
        await anext(time.caller(transport).stream(methods.PURCHASES, {"user_id": 7}))


async def test_leaving_a_loop_early_closes_the_stream(scripted: Scripted, time: MadeUpTime) -> None:
    transport = scripted(PURCHASES)
    async for _ in time.caller(transport).stream(methods.PURCHASES, {"user_id": 7}):
        break
    await transport.stream_closed.wait()


async def test_the_reader_of_a_stream_may_take_its_time(
    scripted: Scripted, time: MadeUpTime
) -> None:
    messages = time.caller(scripted(PURCHASES)).stream(methods.PURCHASES, {"user_id": 7})
    async for _ in messages:
        time.now += 1_000_000


@pytest.mark.parametrize("received", [0, 1, 2])
async def test_a_stream_that_stops_coming_ends_at_the_deadline(
    scripted: Scripted, time: MadeUpTime, received: int
) -> None:
    transport = scripted([*PURCHASES[:received], asyncio.Event()])
    messages = time.caller(transport).stream(
        methods.PURCHASES, {"user_id": 7}, timeout_seconds=0.02
    )
    for _ in range(received):
        await anext(messages)
    with pytest.raises(DeadlineExceeded):
        await anext(messages)
    assert transport.closed_streams == 1


@pytest.mark.parametrize("seconds", [10, 12])
async def test_the_deadline_of_a_list_and_a_watch_includes_the_look_up_of_the_user(
    scripted: Scripted, time: MadeUpTime, seconds: int
) -> None:
    event = WatchResponse(resume_token="t", transaction=CreditTransaction(id="1"))
    for rows in (PURCHASES, [event]):
        time.waits.clear()
        # The look-up waits for 6 seconds, and the first row for 5.
        transport = scripted(_overloaded(6), FOUND, [_overloaded(5)], rows)
        caller = time.caller(transport, timeout_seconds=seconds, users_app_id=1)
        messages: AsyncGenerator[object, None]
        if rows is PURCHASES:
            messages = caller.stream(methods.PURCHASES, {"user_id": "u"})
        else:
            messages = caller.watch({"user_id": "u"}, progress=False)
        if seconds < 11:
            with pytest.raises(Overloaded):
                await anext(messages)
            assert len(time.waits) == 1
        else:
            assert await anext(messages) == rows[0]
            assert len(time.waits) == 2
        await messages.aclose()


async def test_the_deadline_of_a_batch_includes_the_look_up_of_its_users(
    scripted: Scripted, time: MadeUpTime
) -> None:
    write = pending_write(CreditRequest, {**VALUES, "user_id": "u"}, "k", None)
    caller = time.caller(scripted(_overloaded(6), FOUND, _overloaded(5)))
    _, error = await send_writes(caller, [write], atomic=False, timeout_seconds=10)
    assert isinstance(error, Overloaded)
    assert len(time.waits) == 1


async def test_closing_ends_a_stream_now_or_at_its_next_message(
    scripted: Scripted, time: MadeUpTime
) -> None:
    reached = asyncio.Event()
    transport = scripted(PURCHASES, [reached])
    caller = time.caller(transport)
    paused = caller.stream(methods.PURCHASES, {"user_id": 7})
    await anext(paused)
    waiting = asyncio.ensure_future(anext(caller.stream(methods.PURCHASES, {"user_id": 7})))
    await reached.wait()
    caller.close()
    for pending in (waiting, anext(paused)):
        with pytest.raises(ClientClosed):
            await pending
    assert transport.closed_streams == 2
