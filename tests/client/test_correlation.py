"""Request ids that the app gives."""

import asyncio

import pytest
from credit_client import CreditClient, CreditError, ErrorReason, request_id
from credit_client.correlation import current_request_id
from credit_client.testing import FakeCreditService, fake_credits


def test_without_a_name_each_call_has_its_own() -> None:
    assert current_request_id() != current_request_id()
    assert len(current_request_id()) == 32


async def test_a_name_belongs_to_the_block_and_its_task() -> None:
    async def other() -> str:
        with request_id("other"):
            await asyncio.sleep(0)
            return current_request_id()

    with request_id("outer"):
        with request_id("inner") as name:
            assert (current_request_id(), name) == ("inner", "inner")
        assert set(await asyncio.gather(other(), other())) == {"other"}
        assert current_request_id() == "outer"
    assert current_request_id() != "outer"


@pytest.mark.parametrize("name", ["", "a b", "a\r\nb", "ä", "x" * 129, "a/b"])
def test_what_the_server_would_not_take_over_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 128 letters"), request_id(name):
        pass


async def test_the_name_is_sent_and_comes_back_in_the_error() -> None:
    service = FakeCreditService()
    service.fail_next(ErrorReason.UNAUTHENTICATED, times=2)
    async with fake_credits(service) as client:
        with request_id("page-7"), pytest.raises(CreditError, match="page-7") as caught:
            await client.balance(app_id=1)
        assert caught.value.request_id == "page-7"
        with request_id("page-8"):
            messages = client.transactions(user_id=7)
        # The call was made inside of the block, though it is read here.
        with pytest.raises(CreditError) as later:
            await anext(messages)
    assert later.value.request_id == "page-8"


async def test_what_is_refused_before_it_is_sent_has_the_name_that_was_given_and_no_other() -> None:
    async with fake_credits(FakeCreditService()) as client:
        for refused in (
            client.balance(app_id=0),
            client.add(user_id=7, app_id=1, credits=1, created_by=1, idempotency_key=""),
            CreditClient("localhost:1").balance(app_id=1),
        ):
            with request_id("page-9"), pytest.raises(CreditError, match="page-9") as caught:
                await refused
            assert caught.value.request_id == "page-9"
        with pytest.raises(CreditError) as unnamed:
            await client.balance(app_id=0)
    assert unnamed.value.request_id is None
