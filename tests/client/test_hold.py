"""A hold as a block of code: what its end does when calls fail, and when it is cancelled."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_client import ClientSettings, CreditClient, CreditError, HoldExpired, Outcome
from credit_client.testing import FakeCreditService, fake_credits
from credit_client.transport import Answer, AttemptFailed
from credit_models import (
    CaptureHoldResponse,
    ErrorReason,
    PlaceHoldResponse,
    Receipt,
    ReleaseHoldResponse,
    TransactionType,
)
from grpclib.const import Status

# Any: the transport is the scripted one of conftest, which importlib mode cannot name here.
Scripted = Callable[..., Any]

# Any: the arguments of a call have no common type.
HOLD: dict[str, Any] = {"user_id": 7, "app_id": 1, "credits": 20, "created_by": 1}
REPORT: dict[str, Any] = {"report_id": "r-1", "report_name": "Answer"}
ONCE = ClientSettings(retry_attempts_max=1)

ENDS = datetime(2026, 3, 1, tzinfo=UTC)
PLACED = Answer(
    reply=PlaceHoldResponse(
        receipt=Receipt(
            transaction_id="h1",
            sequence=2,
            type=TransactionType.HOLD,
            credits=20,
            held=20,
            expires_at=ENDS,
        )
    ),
    receipt=None,
)
RELEASED = Answer(
    reply=ReleaseHoldResponse(receipt=Receipt(transaction_id="t3", sequence=3)), receipt=None
)
LOST = AttemptFailed(Status.UNAVAILABLE, "the connection was lost")


def _captured(held: int) -> Answer[CaptureHoldResponse]:
    receipt = Receipt(transaction_id="t3", purchase_id="p3", sequence=3, held=held)
    return Answer(reply=CaptureHoldResponse(receipt=receipt), receipt=None)


def _paths(transport: Any) -> list[str]:
    return [sent.path.rpartition("/")[2] for sent in transport.sent]


async def test_a_hold_that_was_captured_for_good_needs_no_release(scripted: Scripted) -> None:
    transport = scripted(PLACED, _captured(held=0))
    async with (
        CreditClient(transport=transport) as credits_,
        credits_.hold(**HOLD) as hold,
    ):
        await hold.capture(7, **REPORT)
    assert _paths(transport) == ["PlaceHold", "CaptureHold"]
    request = transport.sent[1].request
    assert (request.hold_id, request.credits, request.final) == ("h1", 7, True)
    assert request.idempotency_key


async def test_a_hold_that_still_holds_credits_is_released_at_the_end(scripted: Scripted) -> None:
    transport = scripted(PLACED, _captured(held=13), RELEASED)
    async with (
        CreditClient(transport=transport) as credits_,
        credits_.hold(**HOLD) as hold,
    ):
        await hold.capture(7, **REPORT, final=False)
        assert (hold.held, hold.expires_at) == (13, ENDS)
    assert _paths(transport) == ["PlaceHold", "CaptureHold", "ReleaseHold"]


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
async def test_a_release_that_fails_is_logged_and_hides_nothing(
    scripted: Scripted, caplog: pytest.LogCaptureFixture, error: type[Exception] | None
) -> None:
    transport = scripted(PLACED, LOST)

    async def block() -> None:
        async with credits_.hold(**HOLD):
            if error is not None:
                raise error

    async with CreditClient(transport=transport, settings=ONCE) as credits_:
        with caplog.at_level(logging.WARNING, logger="credit_client"):
            if error is None:
                await block()
            else:
                with pytest.raises(error):
                    await block()
    (record,) = caplog.records
    assert "hold h1 was not released, and ends by itself" in record.message
    assert "the connection was lost" in record.message


async def test_a_hold_that_has_ended_meanwhile_is_no_failure_of_its_release(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = FakeCreditService()
    async with fake_credits(service) as credits_:
        await credits_.add(**HOLD)
        with caplog.at_level(logging.INFO, logger="credit_client"):
            async with credits_.hold(**HOLD, expires_after=timedelta(minutes=1)) as hold:
                service.clock.advance(timedelta(minutes=1))
                with pytest.raises(HoldExpired):
                    await hold.capture(7, **REPORT)
        assert await credits_.balance(app_id=1, user_id=7) == 20
    assert caplog.records == []


async def test_a_hold_that_cannot_be_placed_does_not_begin_its_block() -> None:
    begun = False
    async with fake_credits() as credits_:
        with pytest.raises(CreditError) as caught:
            async with credits_.hold(**HOLD):
                begun = True
        assert caught.value.reason is ErrorReason.INSUFFICIENT_CREDITS
        assert caught.value.idempotency_key is not None
    assert not begun


async def test_a_block_that_is_cancelled_releases_its_hold() -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with credits_.hold(**HOLD):
            inside.set()
            await asyncio.Event().wait()

    async with fake_credits() as credits_:
        await credits_.add(**HOLD)
        task = asyncio.create_task(work())
        await inside.wait()
        assert await credits_.balance(app_id=1, user_id=7) == 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await credits_.balance(app_id=1, user_id=7) == 20


async def test_the_end_of_a_block_waits_no_longer_than_a_call_of_the_client(
    scripted: Scripted,
) -> None:
    transport = scripted(PLACED, asyncio.Event())
    settings = ClientSettings(timeout_seconds=0.01, connect_timeout_seconds=0.01)
    async with (
        CreditClient(transport=transport, settings=settings) as credits_,
        credits_.hold(**HOLD, timeout_seconds=5),
    ):
        pass
    assert transport.sent[-1].timeout_seconds <= 0.01


async def test_a_capture_without_an_answer_may_have_taken_effect(scripted: Scripted) -> None:
    transport = scripted(PLACED, LOST, RELEASED)
    async with CreditClient(transport=transport, settings=ONCE) as credits_:
        hold = await credits_.hold(**HOLD)
        assert hold.expires_at == ENDS
        with pytest.raises(CreditError) as caught:
            await hold.capture(7, **REPORT, idempotency_key="answer-1")
        assert caught.value.outcome is Outcome.UNKNOWN
        assert caught.value.idempotency_key == "answer-1"
        assert hold.held == 20


async def test_with_is_rejected_where_async_with_is_required() -> None:
    words = r"use `async with`, or credit_client\.sync\.CreditClient"
    # Any: a type checker rejects `with` too.
    client: Any = CreditClient()
    with pytest.raises(TypeError, match="CreditClient has no `with` block: " + words), client:
        pass
    async with fake_credits() as open_client:
        credits_: Any = open_client
        for manager in (
            credits_.hold(**HOLD),
            credits_.hold_of(hold_id="h", user_id=7, app_id=1, created_by=1),
            credits_.batch(),
        ):
            with pytest.raises(TypeError, match=words), manager:
                pass


@pytest.mark.filterwarnings("error")
async def test_a_hold_in_a_with_block_leaves_no_coroutine() -> None:
    async with fake_credits() as credits_:
        hold: Any = credits_.hold(**HOLD)
        with pytest.raises(TypeError, match="async with"), hold:
            pass
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await hold
