"""Slots for lists: how many pages are made at once, and which list is next."""

import asyncio
from random import Random

import pytest
from credit_models import ErrorReason
from credit_models.reasons import reason_name
from credit_server.admission.decision import Decision, NotAdmitted
from credit_server.admission.list_slots import CallerSlots, ListSlots
from credit_server.api.errors import translate
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpclib.const import Status

PATIENT = 3600.0


async def test_no_more_pages_are_made_at_once_than_there_are_slots() -> None:
    slots, running, most = ListSlots(at_once=2, wait_seconds_max=PATIENT), 0, 0

    async def make() -> None:
        nonlocal running, most
        async with slots.slot("one"):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(make() for _ in range(9)))
    assert most == 2


async def test_a_list_that_has_waited_too_long_is_rejected_with_a_retry_time() -> None:
    slots = ListSlots(at_once=1, wait_seconds_max=1e-6)
    async with slots.slot("one"):
        with pytest.raises(NotAdmitted) as raised:
            await slots.slot("one").__aenter__()
    assert raised.value.decision is Decision.LIST_SLOTS
    refused = translate(raised.value, write=False)
    assert refused is not None
    assert refused.details is not None
    info, retry = refused.details
    assert refused.status is Status.UNAVAILABLE
    assert isinstance(info, ErrorInfo)
    assert info.reason == reason_name(ErrorReason.OVERLOADED)
    assert isinstance(retry, RetryInfo)
    assert retry.retry_delay.ToMilliseconds() > 0


async def test_a_page_that_fails_gives_its_slot_back() -> None:
    slots = ListSlots(at_once=1, wait_seconds_max=PATIENT)
    with pytest.raises(ZeroDivisionError):
        async with slots.slot("one"):
            raise ZeroDivisionError
    async with slots.slot("one"):
        pass


async def test_slots_go_round_the_callers_however_many_lists_each_has() -> None:
    slots, served = ListSlots(at_once=1, wait_seconds_max=PATIENT), []

    async def make(caller: str) -> None:
        async with slots.slot(caller):
            served.append(caller)

    async with slots.slot("a"):
        tasks = [asyncio.create_task(make(caller)) for caller in "aaaaabbbcc"]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert "".join(served) == "abcabcabaa"


async def test_a_caller_that_returns_for_each_page_is_served_in_turn() -> None:
    slots, served = ListSlots(at_once=1, wait_seconds_max=PATIENT), []

    async def read(caller: str, pages: int) -> None:
        for _ in range(pages):
            async with slots.slot(caller):
                served.append(caller)
                await asyncio.sleep(0)

    await asyncio.gather(*(read("a", 1) for _ in range(20)), read("b", 5))
    # It needs a slot again after each page, and is then behind the other caller's next list.
    assert "".join(served[:15]) == "aab" * 5


async def test_cancelled_lists_are_skipped() -> None:
    slots, served = ListSlots(at_once=1, wait_seconds_max=PATIENT), []

    async def make(name: str) -> None:
        async with slots.slot(name[0]):
            served.append(name)

    async with slots.slot("x"):
        tasks = {name: asyncio.create_task(make(name)) for name in ("a1", "a2", "b1", "c1")}
        await asyncio.sleep(0)
        for name in ("a1", "b1"):
            tasks[name].cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert served == ["a2", "c1"]
    async with slots.slot("x"):
        pass


@pytest.mark.parametrize("seed", range(5))
async def test_no_slot_is_lost_by_any_cancellation(seed: int) -> None:
    random, running, most = Random(seed), 0, 0
    slots = ListSlots(at_once=3, wait_seconds_max=PATIENT)

    async def make() -> None:
        nonlocal running, most
        async with slots.slot(random.choice("abc")):
            running += 1
            most = max(most, running)
            try:
                await asyncio.sleep(0)
            finally:
                running -= 1

    tasks = []
    for _ in range(500):
        tasks.append(asyncio.create_task(make()))
        if random.random() < 0.4:
            random.choice(tasks).cancel()
        if random.random() < 0.3:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    async with slots.slot("a"), slots.slot("b"), slots.slot("c"):
        assert slots._free == 0
    assert (slots._free, slots._waiting) == (3, {})


async def test_a_list_that_is_cancelled_when_its_slot_is_granted_gives_it_back() -> None:
    slots = ListSlots(at_once=1, wait_seconds_max=PATIENT)
    async with slots.slot("one"):
        second = asyncio.create_task(slots.slot("one").__aenter__())
        await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    async with slots.slot("one"):
        pass


async def test_each_caller_has_slots_of_its_own_that_vanish_with_its_lists() -> None:
    slots = CallerSlots(1)
    first = slots.of("a")
    async with first:
        assert slots.of("a") is first
        assert slots.of("a").locked()
        assert not slots.of("b").locked()
    del first
    assert not slots._slots
