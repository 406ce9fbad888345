"""Test that the check of a recovery finds each write that is lost, doubled or unexplained."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import pytest
from credit_client import CreditClient, Outcome, Unavailable
from credit_client.testing import fake_credits
from credit_models import CreditTransaction
from credit_resilience.recovery.callers import Callers

USER = 1


@pytest.fixture
async def client() -> AsyncIterator[CreditClient]:
    async with fake_credits() as client:
        yield client


async def _written(client: CreditClient) -> tuple[Callers, list[CreditTransaction]]:
    """Make writes of all kinds with a caller, cancel it, and return its history."""
    callers = Callers(client, [USER], kinds=True)
    writing = asyncio.create_task(callers.write(USER))
    for _ in range(3):
        await callers.served()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    return callers, [entry async for entry in client.transactions(user_id=USER)]


def _show(
    monkeypatch: pytest.MonkeyPatch, client: CreditClient, history: list[CreditTransaction]
) -> None:
    async def transactions(user_id: int) -> AsyncGenerator[CreditTransaction, None]:
        assert user_id == USER
        for entry in history:
            yield entry

    monkeypatch.setattr(client, "transactions", transactions)


async def test_a_history_with_each_write_once_is_explained(client: CreditClient) -> None:
    callers, history = await _written(client)
    assert len(history) > 3
    assert await callers.unexplained() == []


async def test_one_lost_write_and_one_doubled_write_are_found(
    client: CreditClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers, history = await _written(client)
    lost, doubled = history[0], history[1]
    _show(monkeypatch, client, [doubled, *history[1:]])
    first, second = await callers.unexplained()
    assert lost.idempotency_key in first
    assert first.endswith("is in the history 0 times")
    assert doubled.idempotency_key in second
    assert second.endswith("is in the history 2 times")


async def test_a_write_that_nobody_has_made_is_found(
    client: CreditClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers, history = await _written(client)
    _show(monkeypatch, client, [*history, replace(history[0], idempotency_key="other")])
    assert await callers.unexplained() == ["no caller of user 1 has made the write other"]


@pytest.mark.parametrize(
    ("outcome", "allowed"),
    [(Outcome.UNKNOWN, (0, 1)), (Outcome.NO_CHANGE, (0,)), (Outcome.APPLIED, (1,))],
)
@pytest.mark.parametrize("times", [0, 1, 2])
async def test_the_outcome_of_a_failed_write_decides_how_often_it_may_be_in_the_history(
    client: CreditClient,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Outcome,
    allowed: tuple[int, ...],
    times: int,
) -> None:
    keys: list[str] = []
    error = Unavailable("no answer")
    error.outcome = outcome

    async def fail(*, idempotency_key: str, **_: object) -> None:
        keys.append(idempotency_key)
        raise error

    callers, history = await _written(client)
    await callers._done(fail, user_id=USER)
    (key,) = keys
    _show(monkeypatch, client, [*history, *[replace(history[0], idempotency_key=key)] * times])
    assert bool(await callers.unexplained()) == (times not in allowed)
