"""Whether a write that raised an error may have taken effect."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from credit_client import ClientClosed, CreditClient, CreditError, DeadlineExceeded, Outcome
from credit_client.effect import outcome_of
from credit_client.errors import ProtocolMismatch
from credit_client.settings import ClientSettings
from credit_client.transport import Answer, AnswerBroken, AttemptFailed, HandshakeFailed
from credit_models import Empty, ErrorReason
from credit_models.reasons import DOMAIN, RULES, reason_name
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status
from h2.events import StreamEnded

# Any: the transport is the scripted one of conftest, which importlib mode cannot name here.
Scripted = Callable[..., Any]

# Any: the arguments of a call have no common type.
ADDITION: dict[str, Any] = {"user_id": 7, "app_id": 1, "credits": 120, "created_by": 1}
LOST = AttemptFailed(Status.UNAVAILABLE, "the connection was lost")
UNSENT = None  # stands for the fixture of this name


def _refused(reason: ErrorReason, words: str = "why") -> AttemptFailed:
    metadata = dict.fromkeys(RULES[reason].metadata, "5")
    info = ErrorInfo(reason=reason_name(reason), domain=DOMAIN, metadata=metadata)
    return AttemptFailed(RULES[reason].status, words, details=[info])


async def _ends(scripted: Scripted, *outcomes: object, **options: Any) -> CreditError:
    """Make a write whose attempts end so, and return its error."""
    settings = ClientSettings(
        retry_attempts_max=max(1, len(outcomes)), retry_backoff_initial_seconds=0.000_1
    )
    transport = scripted(*outcomes)
    async with CreditClient(transport=transport, settings=settings) as client:
        with pytest.raises(CreditError) as caught:
            await client.add(**ADDITION, **options)
    assert len(transport.sent) == len(outcomes)
    return caught.value


@pytest.mark.parametrize("reason", list(RULES), ids=lambda reason: reason.name)
def test_only_the_store_leaves_open_what_became_of_an_attempt(reason: ErrorReason) -> None:
    unknown = reason is ErrorReason.STORE_UNAVAILABLE
    assert (outcome_of(_refused(reason)) is Outcome.UNKNOWN) == unknown


@pytest.mark.parametrize("status", list(Status), ids=lambda status: status.name)
def test_a_status_without_a_reason_is_certain_only_where_nothing_was_begun(status: Status) -> None:
    before_the_call = {
        Status.INVALID_ARGUMENT,
        Status.UNAUTHENTICATED,
        Status.PERMISSION_DENIED,
        Status.UNIMPLEMENTED,
    }
    certain = outcome_of(AttemptFailed(status, "m")) is Outcome.NO_CHANGE
    assert certain == (status in before_the_call)
    assert outcome_of(AnswerBroken(status, "m")) is Outcome.UNKNOWN


def test_a_server_that_was_not_trusted_made_no_change() -> None:
    assert outcome_of(HandshakeFailed(Status.UNAVAILABLE, "m")) is Outcome.NO_CHANGE


@pytest.mark.parametrize(
    ("outcomes", "outcome", "message"),
    [
        ([LOST], Outcome.UNKNOWN, "the connection was lost; the write may have taken effect"),
        ([UNSENT], Outcome.NO_CHANGE, "cannot connect; no change was made"),
        (
            [_refused(ErrorReason.INSUFFICIENT_CREDITS, "too few")],
            Outcome.NO_CHANGE,
            "too few; no change was made",
        ),
        (
            [_refused(ErrorReason.UNAUTHENTICATED, "A sentence.")],
            Outcome.NO_CHANGE,
            "A sentence; no change was made",
        ),
        (
            [_refused(ErrorReason.OVERLOADED, "busy; nothing happened")],
            Outcome.NO_CHANGE,
            "busy; nothing happened",
        ),
        (
            [_refused(ErrorReason.STORE_UNAVAILABLE, "not settled; it may have happened: …")],
            Outcome.UNKNOWN,
            "not settled; the write may have taken effect",
        ),
        (
            [AttemptFailed(Status.DEADLINE_EXCEEDED, "the deadline has passed; a write may …")],
            Outcome.UNKNOWN,
            "the deadline has passed; the write may have taken effect",
        ),
        (
            [LOST, _refused(ErrorReason.OVERLOADED, "busy; nothing happened")],
            Outcome.UNKNOWN,
            "busy; an earlier attempt may have taken effect",
        ),
        (
            [LOST, UNSENT, UNSENT],
            Outcome.UNKNOWN,
            "cannot connect; an earlier attempt may have taken effect",
        ),
        # The attempt before may still be on its way to another server.
        (
            [LOST, _refused(ErrorReason.INSUFFICIENT_CREDITS, "too few")],
            Outcome.UNKNOWN,
            "too few; an earlier attempt may have taken effect",
        ),
        # Whose key belongs to another request is refused wherever it arrives.
        (
            [LOST, _refused(ErrorReason.IDEMPOTENCY_KEY_REUSED, "reused")],
            Outcome.NO_CHANGE,
            "reused; no change was made",
        ),
    ],
)
async def test_one_unanswered_attempt_makes_the_outcome_of_a_write_unknown(
    scripted: Scripted,
    unsent: AttemptFailed,
    outcomes: list[AttemptFailed | None],
    outcome: Outcome,
    message: str,
) -> None:
    error = await _ends(scripted, *(unsent if each is UNSENT else each for each in outcomes))
    assert (error.outcome, error.message) == (outcome, message)
    assert str(error) == f"{message} (request {error.request_id})"
    assert message in repr(error)


async def test_a_write_that_gets_no_answer_in_time_may_have_taken_effect(
    scripted: Scripted,
) -> None:
    error = await _ends(scripted, asyncio.Event(), timeout_seconds=0.01)
    assert error.outcome is Outcome.UNKNOWN


async def test_a_write_that_waits_for_its_token_made_no_change(scripted: Scripted) -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    transport = scripted(LOST)
    async with CreditClient(transport=transport, token=never) as client:
        with pytest.raises(CreditError, match="no change was made") as caught:
            await client.add(**ADDITION, timeout_seconds=0.01)
    assert caught.value.outcome is Outcome.NO_CHANGE
    assert transport.sent == []


async def test_a_write_whose_handshake_never_ended_made_no_change_and_one_that_was_sent_may_have(
    raw_server: Callable[..., AbstractAsyncContextManager[Any]],
) -> None:
    outcomes = []
    async with (
        raw_server(lambda *_: None, first_bytes=b"") as silent,
        raw_server(lambda *_: None) as greeting,
    ):
        # Nothing is sent before the server has greeted, by TLS or by HTTP/2.
        for tls in (True, False):
            async with CreditClient(f"127.0.0.1:{silent.port}", tls=tls) as client:
                with pytest.raises(DeadlineExceeded) as caught:
                    await client.add(**ADDITION, timeout_seconds=0.05)
            outcomes.append(caught.value.outcome)
        settings = ClientSettings(channels=1)
        async with CreditClient(f"127.0.0.1:{greeting.port}", settings=settings) as client:
            # It opens the connection, which may take longer than the next call has.
            other = asyncio.create_task(client.add(**ADDITION))
            await greeting.event(StreamEnded)
            with pytest.raises(DeadlineExceeded) as caught:
                await client.add(**ADDITION, timeout_seconds=0.05)
            other.cancel()
        outcomes.append(caught.value.outcome)
    assert outcomes == [Outcome.NO_CHANGE, Outcome.NO_CHANGE, Outcome.UNKNOWN]


async def test_a_write_that_is_closed_under_way_may_have_taken_effect(scripted: Scripted) -> None:
    reached = asyncio.Event()
    client = CreditClient(transport=scripted(reached))
    async with client:
        task = asyncio.create_task(client.add(**ADDITION))
        await reached.wait()
    with pytest.raises(ClientClosed, match="may have taken effect") as caught:
        await task
    assert caught.value.outcome is Outcome.UNKNOWN
    with pytest.raises(ClientClosed) as before:
        await client.add(**ADDITION)
    assert before.value.outcome is Outcome.NO_CHANGE


async def test_a_write_without_a_receipt_took_effect(scripted: Scripted) -> None:
    error = await _ends(scripted, Answer(reply=Empty(), receipt=None))
    assert isinstance(error, ProtocolMismatch)
    assert error.outcome is Outcome.APPLIED
    assert error.message == "the write took effect, but there is no receipt"


async def test_an_invalid_write_and_a_failed_read_made_no_change(scripted: Scripted) -> None:
    error = await _ends(scripted, idempotency_key="")
    assert error.outcome is Outcome.NO_CHANGE
    settings = ClientSettings(retry_attempts_max=1)
    async with CreditClient(transport=scripted(LOST), settings=settings) as client:
        with pytest.raises(CreditError) as caught:
            await client.balance(app_id=1)
    assert caught.value.outcome is Outcome.NO_CHANGE
    assert caught.value.message == "the connection was lost"
