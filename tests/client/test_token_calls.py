"""Calls with tokens: sent with each, replaced once when rejected, within the call's time."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import pytest
from credit_client import ClientClosed, CreditClient, methods
from credit_client.bearer import FetchedToken, FixedToken
from credit_client.call import Caller
from credit_client.errors import DeadlineExceeded, TokenUnavailable, Unauthenticated
from credit_client.settings import ClientSettings
from credit_client.testing import FakeCreditService
from credit_client.transport import Answer, AttemptFailed
from credit_models import Purchase
from grpclib.const import Status
from grpclib.events import RecvRequest

VALUES: dict[str, int | str | None] = {
    "user_id": 7,
    "app_id": 1,
    "credits": 5,
    "created_by": 1,
    "idempotency_key": "k",
}
REJECTED = AttemptFailed(Status.UNAUTHENTICATED, "the token has expired")

# Any: the transport is the scripted one of conftest.
Scripted = Callable[..., Any]


def _numbered() -> FetchedToken:
    numbers = iter(range(1, 100))
    return FetchedToken(lambda: f"token-{next(numbers)}")


def _tokens(transport: Any) -> list[str]:
    return [sent.metadata["authorization"] for sent in transport.sent]


async def test_the_token_goes_with_every_call_and_every_attempt(
    scripted: Scripted, written: Answer[object]
) -> None:
    transport = scripted(AttemptFailed(Status.UNAVAILABLE, "lost"), written, [Purchase(id="1")])
    settings = ClientSettings(retry_backoff_initial_seconds=0.001)
    caller = Caller(transport, settings, bearer=FixedToken("t"))
    await caller.unary(methods.ADD, VALUES)
    assert [one.id async for one in caller.stream(methods.PURCHASES, {"user_id": 7})] == ["1"]
    assert _tokens(transport) == ["Bearer t"] * 3


async def test_a_rejected_token_is_replaced_and_the_call_retried_once_with_its_key(
    scripted: Scripted, written: Answer[object]
) -> None:
    transport = scripted(REJECTED, written)
    # Not one of the repetitions that the settings bound: nothing is wrong with the server.
    caller = Caller(transport, ClientSettings(retry_attempts_max=1), bearer=_numbered())
    await caller.unary(methods.ADD, VALUES)
    await caller.unary(methods.ADD, VALUES)
    assert _tokens(transport) == ["Bearer token-1", "Bearer token-2", "Bearer token-2"]
    assert {sent.request.idempotency_key for sent in transport.sent} == {"k"}
    assert transport.sent[0].request_id == transport.sent[1].request_id


async def test_a_list_replaces_its_token_too(scripted: Scripted) -> None:
    transport = scripted([REJECTED], [Purchase(id="1")])
    caller = Caller(transport, ClientSettings(), bearer=_numbered())
    assert [one.id async for one in caller.stream(methods.PURCHASES, {"user_id": 7})] == ["1"]
    assert _tokens(transport) == ["Bearer token-1", "Bearer token-2"]


async def test_a_server_that_rejects_every_token_gets_two_attempts_and_no_more(
    scripted: Scripted,
) -> None:
    transport = scripted(REJECTED)
    caller = Caller(transport, ClientSettings(), bearer=_numbered())
    with pytest.raises(Unauthenticated, match="the token has expired"):
        await caller.unary(methods.ADD, VALUES)
    assert _tokens(transport) == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize("bearer", [FixedToken("t"), FetchedToken(lambda: "t"), None])
async def test_without_another_token_the_call_is_not_retried(
    scripted: Scripted, bearer: FixedToken | FetchedToken | None
) -> None:
    transport = scripted(REJECTED)
    with pytest.raises(Unauthenticated) as caught:
        await Caller(transport, ClientSettings(), bearer=bearer).unary(methods.ADD, VALUES)
    assert len(transport.sent) == 1
    assert caught.value.__cause__ is REJECTED


async def test_calls_that_are_rejected_together_share_one_new_token(
    scripted: Scripted, written: Answer[object]
) -> None:
    transport = scripted(*[REJECTED] * 5, written)
    caller = Caller(transport, ClientSettings(), bearer=_numbered())
    await asyncio.gather(*(caller.unary(methods.ADD, VALUES) for _ in range(5)))
    assert _tokens(transport) == ["Bearer token-1"] * 5 + ["Bearer token-2"] * 5


async def test_calls_that_wait_for_one_token_in_vain_have_each_an_error_of_its_own(
    scripted: Scripted, written: Answer[object]
) -> None:
    async def fail() -> str:
        await asyncio.sleep(0)
        raise LookupError("no such secret")

    async with CreditClient(token=fail, transport=scripted(written)) as client:
        calls = (
            client.add(user_id=7, app_id=1, credits=1, created_by=1, idempotency_key=key)
            for key in ("a", "b")
        )
        errors = await asyncio.gather(*calls, return_exceptions=True)
    failed = [error for error in errors if isinstance(error, TokenUnavailable)]
    assert [error.idempotency_key for error in failed] == ["a", "b"]
    assert len({error.request_id for error in failed}) == 2
    assert [type(error.__cause__) for error in failed] == [LookupError] * 2


async def test_a_token_that_does_not_come_ends_the_call_at_its_deadline(
    scripted: Scripted, written: Answer[object]
) -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    transport = scripted(written)
    caller = Caller(transport, ClientSettings(), bearer=FetchedToken(never))
    with pytest.raises(DeadlineExceeded, match=r"no token within 0\.02 s"):
        await caller.unary(methods.ADD, VALUES, timeout_seconds=0.02)
    assert transport.sent == []
    caller.close()


async def test_closing_the_client_ends_a_call_that_waits_for_its_token(
    scripted: Scripted, written: Answer[object]
) -> None:
    asked = asyncio.Event()

    async def never() -> str:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    caller = Caller(scripted(written), ClientSettings(), bearer=FetchedToken(never))
    task = asyncio.create_task(caller.unary(methods.ADD, VALUES))
    await asked.wait()
    caller.close()
    with pytest.raises(ClientClosed) as caught:
        await task
    assert caught.value.request_id is not None


async def test_the_error_of_the_function_is_the_call_s_and_nothing_is_sent(
    scripted: Scripted, written: Answer[object]
) -> None:
    def fail() -> str:
        raise LookupError("no such secret")

    transport = scripted(written)
    async with CreditClient(token=fail, transport=transport) as client:
        with pytest.raises(TokenUnavailable, match="LookupError: no such secret") as caught:
            await client.add(user_id=7, app_id=1, credits=1, created_by=1)
    assert transport.sent == []
    assert caught.value.idempotency_key is not None
    assert caught.value.request_id is not None


@contextmanager
def _of_sending(handler: logging.Handler) -> Iterator[None]:
    """Leaves to a handler what hpack logs of headers that are sent; it serves other tests after."""

    def is_of_sending(record: logging.LogRecord) -> bool:
        return record.funcName in {"add", "encode", "_shrink"}

    handler.addFilter(is_of_sending)
    try:
        yield
    finally:
        handler.removeFilter(is_of_sending)


async def test_the_server_gets_the_header_and_no_log_shows_it(
    fake_server: Callable[..., AbstractAsyncContextManager[int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    got = []

    async def note(event: RecvRequest) -> None:
        got.append(event.metadata["authorization"])

    caplog.set_level(logging.DEBUG)
    # This process is the server too, and hpack logs what it decodes.
    with _of_sending(caplog.handler):
        async with (
            fake_server(FakeCreditService(), received=note) as port,
            CreditClient(f"127.0.0.1:{port}", token="s3cret") as client,
        ):
            await client.balance(app_id=1)
            assert "s3cret" not in repr(vars(client))
    assert got == ["Bearer s3cret"]
    assert "x-request-id" in caplog.text
    assert "s3cret" not in caplog.text
