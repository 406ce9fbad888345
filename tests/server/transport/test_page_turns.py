"""Pages are made in turns."""

import asyncio

import pytest
from credit_models import ErrorReason
from credit_models.reasons import reason_name
from credit_server.transport.page_turns import PageTurns
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpclib.const import Status
from grpclib.exceptions import GRPCError

PATIENT = 3600.0


async def test_no_more_pages_are_made_at_once_than_is_said() -> None:
    turns, running, most = PageTurns(at_once=2, wait_seconds_max=PATIENT), 0, 0

    async def make() -> None:
        nonlocal running, most
        async with turns.turn():
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(make() for _ in range(9)))
    assert most == 2


async def test_who_has_waited_too_long_is_told_to_come_again() -> None:
    turns = PageTurns(at_once=1, wait_seconds_max=1e-6)
    async with turns.turn():
        with pytest.raises(GRPCError) as refused:
            await turns.turn().__aenter__()
    info, retry = refused.value.details
    assert refused.value.status is Status.UNAVAILABLE
    assert isinstance(info, ErrorInfo)
    assert info.reason == reason_name(ErrorReason.OVERLOADED)
    assert isinstance(retry, RetryInfo)
    assert retry.retry_delay.ToMilliseconds() > 0


async def test_a_page_that_fails_gives_its_turn_back() -> None:
    turns = PageTurns(at_once=1, wait_seconds_max=PATIENT)
    with pytest.raises(ZeroDivisionError):
        async with turns.turn():
            raise ZeroDivisionError
    async with turns.turn():
        pass


async def test_who_is_given_up_at_the_moment_of_its_turn_gives_it_back() -> None:
    turns = PageTurns(at_once=1, wait_seconds_max=PATIENT)
    async with turns.turn():
        second = asyncio.create_task(turns.turn().__aenter__())
        await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    async with turns.turn():
        pass
