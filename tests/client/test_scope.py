"""A scope ends a wait and leaves its task intact; a client is rejected outside its home."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from credit_client import CreditClient
from credit_client.scope import Scope
from credit_client.testing import fake_credits


class Ended(Exception):
    pass


async def _wait_in(scope: Scope, entered: asyncio.Event) -> None:
    with scope:
        entered.set()
        await asyncio.Event().wait()


async def test_a_task_inside_the_scope_gets_the_error() -> None:
    scope, entered = Scope(), asyncio.Event()
    task = asyncio.create_task(_wait_in(scope, entered))
    await entered.wait()
    scope.cancel(Ended())
    with pytest.raises(Ended):
        await task
    assert task.cancelling() == 0


async def test_a_task_that_enters_later_gets_the_first_error() -> None:
    scope = Scope()
    scope.cancel(Ended("first"))
    scope.cancel(Ended("second"))
    with pytest.raises(Ended, match="first"), scope:
        pass


async def test_a_real_cancellation_at_the_same_moment_wins() -> None:
    scope, entered = Scope(), asyncio.Event()
    task = asyncio.create_task(_wait_in(scope, entered))
    await entered.wait()
    scope.cancel(Ended())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_ends_its_own_scope_and_leaves_is_not_cancelled_later() -> None:
    scope = Scope()
    with scope:
        scope.cancel(Ended())
    for _ in range(3):
        await asyncio.sleep(0)  # this is where it would be
    with pytest.raises(Ended), scope:
        pass


async def test_a_task_that_ends_its_own_scope_and_waits_in_it_gets_the_error() -> None:
    scope = Scope()

    async def end_and_wait() -> None:
        with scope:
            scope.cancel(Ended())
            await asyncio.Event().wait()

    with pytest.raises(Ended):
        await end_and_wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_timeout_around_still_works_afterwards() -> None:
    scope = Scope()

    async def ended_and_then_too_slow() -> None:
        async with asyncio.timeout(0.01):
            asyncio.get_running_loop().call_soon(scope.cancel, Ended())
            with pytest.raises(Ended), scope:
                await asyncio.Event().wait()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await ended_and_then_too_slow()


async def test_an_error_of_the_body_passes() -> None:
    with pytest.raises(KeyError), Scope():
        raise KeyError


# Any: what the calls take and return differs, and nothing here looks at it.
WRITE: dict[str, Any] = {"user_id": 7, "app_id": 1, "credits": 5, "created_by": 1}

Use = Callable[[CreditClient], Coroutine[Any, Any, Any]]


async def _first(history: Any) -> None:
    async with contextlib.aclosing(history):
        await anext(history, None)


USES: dict[str, Use] = {
    "add": lambda client: client.add(**WRITE),
    "use": lambda client: client.use(**WRITE, report_id="r", report_name="n"),
    "balance": lambda client: client.balance(app_id=1),
    "user_credits": lambda client: client.user_credits(user_id=7),
    "purchases": lambda client: _first(client.purchases(user_id=7)),
    "transactions": lambda client: _first(client.transactions(user_id=7)),
    "opening it": lambda client: client.__aenter__(),
    "closing it": lambda client: client.__aexit__(None, None, None),
}


def in_another_thread(run: Callable[[], Coroutine[Any, Any, Any]]) -> Exception | None:
    """Run a coroutine in the event loop of another thread, and return what it raises."""
    raised: list[Exception] = []

    def work() -> None:
        try:
            asyncio.run(run())
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_the_error_in_another_event_loop_names_the_remedy_and_the_client_stays_usable(
    use: Use,
) -> None:
    async with fake_credits() as client:
        error = in_another_thread(lambda: use(client))
        assert isinstance(error, RuntimeError)
        assert "another event loop, and nothing was sent" in str(error)
        assert "one client per event loop" in str(error)
        assert "run_coroutine_threadsafe" in str(error)
        # It is open, and nothing of the other loop's call is left in it.
        assert (await client.add(**WRITE)).balance == 5


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_error_after_the_event_loop_is_closed_names_the_remedy(
    runner: asyncio.Runner, use: Use
) -> None:
    client = CreditClient("127.0.0.1:1")
    runner.run(client.__aenter__())
    runner.close()
    with pytest.raises(RuntimeError, match=r"event loop that is closed.*Open a client inside each"):
        asyncio.run(use(client))


async def test_a_list_that_moves_to_another_event_loop_raises_an_error() -> None:
    async with fake_credits() as client:
        await client.add(**WRITE)
        await client.add(**WRITE)
        history = client.transactions(user_id=7)
        assert (await anext(history)).sequence == 1
        error = in_another_thread(lambda: anext(history))
        assert isinstance(error, RuntimeError)
        assert "another event loop" in str(error)


async def test_a_list_is_not_closed_by_another_event_loop() -> None:
    async with fake_credits() as client:
        await client.add(**WRITE)
        await client.add(**WRITE)
        history = client.transactions(user_id=7)
        await anext(history)
        error = in_another_thread(history.aclose)
        assert isinstance(error, RuntimeError)
        assert "another event loop" in str(error)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_the_error_in_a_forked_process_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, use: Use
) -> None:
    async with fake_credits() as client:
        parent = os.getpid()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: parent + 1)
            with pytest.raises(RuntimeError, match=r"after a fork.*nothing was sent.*each process"):
                await use(client)


def test_a_client_may_be_opened_in_one_event_loop_after_the_other() -> None:
    client = CreditClient("127.0.0.1:1")

    async def open_and_close() -> None:
        async with client:
            pass

    asyncio.run(open_and_close())
    asyncio.run(open_and_close())
