"""The client as an app uses it, over the whole protocol in memory."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
from credit_client import (
    AppTotalOverflow,
    BalanceOverflow,
    ClientClosed,
    CreditClient,
    DeadlineExceeded,
    ErrorReason,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    Receipt,
    StoreUnavailable,
    TransactionType,
    Unavailable,
)
from credit_client.settings import ClientSettings
from credit_client.testing import FakeCreditService
from credit_client.transport import AttemptFailed
from grpclib.const import Status

from tests.client.ways import WAYS, credits_over

# A client of a fake service, whose writes travel in one of the ways.
Open = Callable[..., AbstractAsyncContextManager[CreditClient]]

# Any: the transport is the scripted one of conftest, which importlib mode cannot name here.
Scripted = Callable[..., Any]

# Any: the arguments of a call have no common type.
ADDITION: dict[str, Any] = {"user_id": 7, "app_id": 1, "credits": 120, "created_by": 1}
PURCHASE: dict[str, Any] = {**ADDITION, "report_id": "r", "report_name": "Report №1", "credits": 20}


@pytest.fixture(params=WAYS)
def fake_credits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Open:
    return partial(credits_over, request.param, monkeypatch)


async def test_writes_give_receipts_and_reads_show_what_they_did(fake_credits: Open) -> None:
    async with fake_credits() as credits_:
        added = await credits_.add(**ADDITION)
        used = await credits_.use(**PURCHASE)
        assert (added.balance, added.sequence, added.replayed) == (120, 1, False)
        assert (used.balance, used.sequence, bool(used.purchase_id)) == (100, 2, True)
        assert (
            await credits_.balance(app_id=1) == await credits_.balance(app_id=1, user_id=7) == 100
        )
        assert await credits_.balance(app_id=2, user_id=7) == 0
        (balance,) = (await credits_.user_credits(user_id=7)).balances
        assert (balance.app_id, balance.balance) == (1, 100)
        history = [entry async for entry in credits_.transactions(user_id=7)]
        assert [entry.type for entry in history] == [TransactionType.ADD, TransactionType.USE]
        assert [entry.balance_after for entry in history] == [120, 100]
        (purchase,) = [entry async for entry in credits_.purchases(user_id=7)]
        assert (purchase.id, purchase.transaction_id) == (used.purchase_id, used.transaction_id)
        assert purchase.report_name == "Report №1"


async def test_a_user_without_transactions_has_nothing(fake_credits: Open) -> None:
    async with fake_credits() as credits_:
        held = await credits_.user_credits(user_id=9)
        assert (held.user_id, held.balances, held.revision) == (9, [], 0)
        assert [entry async for entry in credits_.transactions(user_id=9)] == []


async def test_every_write_without_a_key_gets_a_new_one(fake_credits: Open) -> None:
    async with fake_credits() as credits_:
        await credits_.add(**ADDITION)
        await credits_.add(**ADDITION)
        keys = [entry.idempotency_key async for entry in credits_.transactions(user_id=7)]
    assert len(set(keys)) == 2
    assert all(len(key) == 32 for key in keys)


async def test_a_key_makes_a_write_count_once(fake_credits: Open) -> None:
    async with fake_credits() as credits_:
        first = await credits_.add(**ADDITION, idempotency_key="k")
        second = await credits_.add(**ADDITION, idempotency_key="k")
        assert (second.replayed, second.transaction_id) == (True, first.transaction_id)
        with pytest.raises(IdempotencyKeyReused) as caught:
            await credits_.add(**ADDITION | {"credits": 1, "created_by": 2}, idempotency_key="k")
        assert caught.value.fields == ("credits", "created_by")
        elsewhere = await credits_.add(**ADDITION | {"app_id": 2}, idempotency_key="k")
        assert elsewhere.replayed is False


async def test_an_empty_key_is_rejected_because_the_write_could_not_be_retried(
    fake_credits: Open,
) -> None:
    async with fake_credits() as credits_:
        with pytest.raises(InvalidField, match="idempotency_key must be 1 to 128 characters"):
            await credits_.add(**ADDITION, idempotency_key="")


async def test_the_ledger_s_refusals_arrive_with_their_numbers(fake_credits: Open) -> None:
    async with fake_credits() as credits_:
        await credits_.add(**ADDITION | {"credits": 2**32 - 1})
        with pytest.raises(BalanceOverflow) as overflow:
            await credits_.add(**ADDITION)
        assert (overflow.value.balance, overflow.value.credits) == (2**32 - 1, 120)
        await credits_.add(**ADDITION | {"user_id": 8, "credits": 1})
        with pytest.raises(AppTotalOverflow) as total:
            await credits_.balance(app_id=1)
        assert total.value.total == 2**32
        with pytest.raises(InsufficientCredits) as few:
            await credits_.use(**PURCHASE | {"user_id": 8})
        assert (few.value.available, few.value.required, few.value.shortfall) == (1, 20, 19)
        assert few.value.request_id is not None


async def test_a_temporary_failure_is_hidden_and_a_lasting_one_is_raised(
    fake_credits: Open,
) -> None:
    service = FakeCreditService()
    settings = ClientSettings(retry_backoff_initial_seconds=0.001, retry_attempts_max=3)
    async with fake_credits(service, settings=settings) as credits_:
        service.fail_next(ErrorReason.STORE_UNAVAILABLE, times=2)
        await credits_.add(**ADDITION)
        service.fail_next(ErrorReason.STORE_UNAVAILABLE, times=3)
        with pytest.raises(StoreUnavailable):
            await credits_.add(**ADDITION)
        assert await credits_.balance(app_id=1) == 120


async def test_the_error_of_a_write_carries_the_key_with_which_it_can_be_retried(
    fake_credits: Open,
) -> None:
    service = FakeCreditService()
    settings = ClientSettings(retry_attempts_max=1)
    async with fake_credits(service, settings=settings) as credits_:
        service.fail_next(ErrorReason.STORE_UNAVAILABLE)
        with pytest.raises(StoreUnavailable) as made:
            await credits_.add(**ADDITION)
        key = made.value.idempotency_key
        assert key is not None
        await credits_.add(**ADDITION, idempotency_key=key)
        assert [entry.idempotency_key async for entry in credits_.transactions(user_id=7)] == [key]
        service.fail_next(ErrorReason.STORE_UNAVAILABLE)
        with pytest.raises(StoreUnavailable) as given:
            await credits_.use(**PURCHASE, idempotency_key="order-1")
        assert given.value.idempotency_key == "order-1"
        service.fail_next(ErrorReason.STORE_UNAVAILABLE)
        with pytest.raises(StoreUnavailable) as read:
            await credits_.balance(app_id=1)
        assert read.value.idempotency_key is None


async def test_an_early_end_of_the_time_carries_the_key_too(scripted: Scripted) -> None:
    async with CreditClient(transport=scripted(asyncio.Event())) as credits_:
        with pytest.raises(DeadlineExceeded) as late:
            await credits_.add(**ADDITION, timeout_seconds=0.01)
    assert late.value.idempotency_key is not None


def _notes(error: BaseException | None) -> str:
    """All notes that a traceback would show: of the error and of those that led to it."""
    notes: list[str] = []
    while error is not None:
        notes += getattr(error, "__notes__", [])
        error = error.__cause__ or error.__context__
    return "\n".join(notes)


async def _with_wait_for(write: Coroutine[Any, Any, Receipt]) -> None:
    await asyncio.wait_for(write, 0.01)


async def _with_timeout(write: Coroutine[Any, Any, Receipt]) -> None:
    async with asyncio.timeout(0.01):
        await write


async def _as_a_task_with_wait_for(write: Coroutine[Any, Any, Receipt]) -> None:
    await asyncio.wait_for(asyncio.create_task(write), 0.01)


@pytest.mark.parametrize("limited", [_with_wait_for, _with_timeout, _as_a_task_with_wait_for])
async def test_a_timeout_around_a_write_does_not_lose_the_key_that_the_sdk_made(
    scripted: Scripted, limited: Callable[[Coroutine[Any, Any, Receipt]], Coroutine[Any, Any, None]]
) -> None:
    transport = scripted(asyncio.Event())
    async with CreditClient(transport=transport) as credits_:
        with pytest.raises(TimeoutError) as caught:
            await limited(credits_.add(**ADDITION))
    (sent,) = transport.sent
    assert f"idempotency_key={sent.request.idempotency_key!r}" in _notes(caught.value)


async def test_a_cancelled_write_carries_its_key_in_a_note(scripted: Scripted) -> None:
    reached = asyncio.Event()
    transport = scripted(reached)
    async with CreditClient(transport=transport) as credits_:
        task = asyncio.create_task(credits_.use(**PURCHASE))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert transport.sent[0].request.idempotency_key in _notes(caught.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), SystemExit(1)])
async def test_any_other_exception_of_a_write_has_its_key_in_a_note(
    scripted: Scripted, error: BaseException
) -> None:
    transport = scripted()

    async def fail(*_: object, **__: object) -> None:
        raise error

    transport.unary = fail
    async with CreditClient(transport=transport) as credits_:
        # Driven by hand: asyncio lets a KeyboardInterrupt of a task end the whole loop.
        write = credits_.add(**ADDITION, idempotency_key="stored before")
        with pytest.raises(type(error)) as caught:
            write.send(None)
    assert "idempotency_key='stored before'" in _notes(caught.value)


async def test_the_traceback_of_an_unanswered_write_shows_its_key_and_that_of_a_refusal_does_not(
    scripted: Scripted,
) -> None:
    lost = AttemptFailed(Status.UNAVAILABLE, "the connection was lost")
    async with CreditClient(
        transport=scripted(lost), settings=ClientSettings(retry_attempts_max=1)
    ) as credits_:
        with pytest.raises(Unavailable) as unanswered:
            await credits_.add(**ADDITION)
        with pytest.raises(InvalidField) as refused:
            await credits_.add(**ADDITION | {"credits": 0})
    assert f"idempotency_key={unanswered.value.idempotency_key!r}" in _notes(unanswered.value)
    assert _notes(refused.value) == ""
    assert refused.value.idempotency_key is not None


async def test_a_key_can_be_made_before_the_write_and_before_the_client_is_open(
    fake_credits: Open,
) -> None:
    keys = {CreditClient.new_key(), CreditClient("localhost").new_key()}
    assert len(keys) == 2
    async with fake_credits() as credits_:
        for key in keys:
            for _ in range(2):
                await credits_.add(**ADDITION, idempotency_key=key)
        assert await credits_.balance(app_id=1) == 240


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"target": "http://x:1"},
            (
                "target: 'http://x:1' is not a server's address: write host:port,"
                " [IPv6 address]:port, a host name alone for port 50051, dns:///host:port,"
                " or unix:path"
            ),
        ),
        ({"timeout_seconds": 0}, "timeout_seconds must be above 0, got 0"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^.*$") as caught:
        CreditClient(**arguments)
    assert type(caught.value) is ValueError
    assert str(caught.value) == sentence


async def test_the_error_of_a_client_that_is_not_open_shows_how_to_open_it() -> None:
    client = CreditClient()
    with pytest.raises(ClientClosed, match="use it inside 'async with"):
        await client.add(**ADDITION)
    with pytest.raises(ClientClosed):
        client.purchases(user_id=7)
    async with client:
        pass
    with pytest.raises(ClientClosed):
        await client.balance(app_id=1)


async def test_a_client_is_opened_once_at_a_time_and_may_be_opened_again() -> None:
    async with CreditClient() as client:
        with pytest.raises(RuntimeError, match="already open"):
            await client.__aenter__()
    async with client:
        pass


async def test_a_list_can_be_closed_by_hand(fake_credits: Open) -> None:
    async with fake_credits() as credits_:
        await credits_.add(**ADDITION)
        await credits_.add(**ADDITION)
        async with contextlib.aclosing(credits_.transactions(user_id=7)) as history:
            assert (await anext(history)).sequence == 1
        assert [entry async for entry in history] == []
