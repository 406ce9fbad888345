"""Batches: what is collected, sent and retried, and what comes of each write."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from credit_client import (
    AlreadyPurchased,
    Batch,
    BatchAborted,
    ClientClosed,
    ClientSettings,
    CreditClient,
    DeadlineExceeded,
    ErrorReason,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    Outcome,
    ProtocolMismatch,
    Receipt,
    StoreUnavailable,
    Unavailable,
)
from credit_client.operation import settled
from credit_client.testing import FakeCreditService, fake_credits
from credit_client.transport import Answer, AnswerBroken, AttemptFailed
from credit_models import (
    BatchWriteResponse,
    Operation,
    OperationFailure,
    OperationOutcome,
    PurchaseRequest,
    TransferCreditsRequest,
)
from credit_models.operations import WRITE_TYPES, operation_of, request_of
from grpclib.const import Status

# Any: the transport is the scripted one of conftest, which importlib mode cannot name here.
Scripted = Callable[..., Any]

# Any: the arguments of a call have no common type.
ADDITION: dict[str, Any] = {"user_id": 7, "app_id": 1, "credits": 120, "created_by": 1}
PURCHASE: dict[str, Any] = {**ADDITION, "report_id": "r", "report_name": "Report", "credits": 20}
LOST = AttemptFailed(Status.UNAVAILABLE, "the connection was lost")
QUICK = ClientSettings(retry_backoff_initial_seconds=0.000_1, retry_attempts_max=3)


def _reply(*outcomes: OperationOutcome) -> Answer[object]:
    return Answer(reply=BatchWriteResponse(outcomes=list(outcomes)), receipt=None)


def _receipt(number: int = 1) -> OperationOutcome:
    return OperationOutcome(receipt=Receipt(transaction_id=f"t{number}", sequence=number))


def _failure(status: Status, message: str = "why") -> OperationOutcome:
    return OperationOutcome(failure=OperationFailure(code=status.value, message=message))


async def _block(batch: Batch, error: Exception | None) -> None:
    async with batch:
        if error is not None:
            raise error


async def test_the_writes_of_a_batch_are_sent_together_and_each_has_its_receipt() -> None:
    async with fake_credits() as credits_:
        async with credits_.batch() as batch:
            added = batch.add(**ADDITION)
            used = batch.use(**PURCHASE)
            assert added.outcome is Outcome.NO_CHANGE
            with pytest.raises(RuntimeError, match="was not sent"):
                _ = added.receipt
        assert (added.receipt.balance, added.receipt.sequence) == (120, 1)
        assert (used.receipt.balance, bool(used.receipt.purchase_id)) == (100, True)
        assert (used.error, used.outcome) == (None, Outcome.APPLIED)
        assert list(batch) == [added, used]
        keys = [entry.idempotency_key async for entry in credits_.transactions(user_id=7)]
        assert keys == [added.idempotency_key, used.idempotency_key]


async def test_a_batch_without_writes_sends_nothing(scripted: Scripted) -> None:
    transport = scripted(LOST)
    async with CreditClient(transport=transport) as credits_, credits_.batch() as batch:
        pass
    assert (len(batch), transport.sent) == (0, [])


async def test_a_failed_write_has_the_error_of_its_call_and_the_block_raises_a_group() -> None:
    async with fake_credits() as credits_:
        batch = credits_.batch()
        few = batch.use(**PURCHASE, idempotency_key="k")
        added = batch.add(**ADDITION)
        more = batch.use(**PURCHASE | {"credits": 121})
        with pytest.raises(ExceptionGroup, match="2 of 3 writes failed") as caught:
            await _block(batch, None)
        assert caught.value.exceptions == (few.error, more.error)
        assert added.receipt.balance == 120
        with pytest.raises(InsufficientCredits, match="no change was made") as single:
            _ = few.receipt
        assert (single.value.available, single.value.shortfall) == (0, 20)
        assert (single.value.idempotency_key, single.value.outcome) == ("k", Outcome.NO_CHANGE)
        assert single.value.request_id is not None


async def test_a_block_that_raises_sends_nothing() -> None:
    async with fake_credits() as credits_:
        batch = credits_.batch()
        batch.add(**ADDITION)
        with pytest.raises(ZeroDivisionError):
            await _block(batch, ZeroDivisionError())
        assert await credits_.balance(app_id=1) == 0


async def test_a_write_that_breaks_a_constraint_is_not_part_of_the_batch() -> None:
    async with fake_credits() as credits_, credits_.batch() as batch:
        with pytest.raises(InvalidField, match="credits") as caught:
            batch.add(**ADDITION | {"credits": 0}, idempotency_key="k")
        with pytest.raises(InvalidField, match="idempotency_key"):
            batch.add(**ADDITION, idempotency_key="")
        with pytest.raises(TypeError, match="user_id must be int or str, not float"):
            batch.use(**PURCHASE | {"user_id": 7.0})
        assert len(batch) == 0
    assert (caught.value.idempotency_key, caught.value.outcome) == ("k", Outcome.NO_CHANGE)


async def test_an_atomic_batch_takes_effect_as_a_whole_or_not_at_all() -> None:
    async with fake_credits() as credits_:
        batch = credits_.batch(atomic=True)
        first, few = batch.add(**ADDITION), batch.use(**PURCHASE | {"app_id": 2})
        await batch.send()
        assert isinstance(first.error, BatchAborted)
        assert first.error.index == 1
        assert first.error.message == (
            "operation 1 of the atomic batch was rejected; no change was made"
        )
        assert isinstance(few.error, InsufficientCredits)
        assert await credits_.balance(app_id=1) == 0
        await credits_.add(**ADDITION | {"app_id": 2})
        await batch.send()
        assert (first.receipt.balance, few.receipt.balance) == (120, 100)


async def test_an_aborted_batch_names_no_purchase_of_its_own() -> None:
    async with fake_credits() as credits_:
        await credits_.add(**ADDITION)
        batch = credits_.batch(atomic=True)
        batch.use(**PURCHASE, once=True)
        repeated = batch.use(**PURCHASE, once=True)
        await batch.send()
        assert isinstance(repeated.error, AlreadyPurchased)
        assert repeated.error.purchase_id == ""
        await credits_.use(**PURCHASE)
        batch = credits_.batch(atomic=True)
        repeated = batch.use(**PURCHASE, once=True)
        await batch.send()
        (purchase,) = [each async for each in credits_.purchases(user_id=PURCHASE["user_id"])]
        assert isinstance(repeated.error, AlreadyPurchased)
        assert repeated.error.purchase_id == purchase.id


async def test_an_atomic_batch_has_at_most_a_thousand_writes() -> None:
    async with fake_credits() as credits_, credits_.batch(atomic=True) as batch:
        for _ in range(1000):
            batch.add(**ADDITION)
        with pytest.raises(ValueError, match="at most 1000 writes"):
            batch.add(**ADDITION)


async def test_more_than_a_thousand_writes_are_several_messages(scripted: Scripted) -> None:
    transport = scripted(_reply(*[_receipt()] * 1000), _reply(*[_receipt()] * 200))
    async with CreditClient(transport=transport) as credits_:
        async with credits_.batch() as batch:
            operations = [batch.add(**ADDITION) for _ in range(1200)]
        assert all(each.receipt for each in operations)
    sent = [each.request.operations for each in transport.sent]
    assert [len(each) for each in sent] == [1000, 200]
    keys = [each.add_credits.idempotency_key for message in sent for each in message]
    assert keys == [each.idempotency_key for each in operations]


async def test_a_lost_connection_is_retried_with_the_same_keys(scripted: Scripted) -> None:
    transport = scripted(LOST, _reply(_receipt()))
    async with (
        CreditClient(transport=transport, settings=QUICK) as credits_,
        credits_.batch() as batch,
    ):
        batch.add(**ADDITION)
    first, second = transport.sent
    assert first.request == second.request
    assert first.request_id == second.request_id


async def test_only_what_may_pass_is_sent_again_and_what_was_rejected_after_it(
    scripted: Scripted,
) -> None:
    transport = scripted(
        _reply(
            _receipt(),
            _failure(Status.UNAVAILABLE, "busy"),
            _failure(Status.FAILED_PRECONDITION, "too few"),
            _failure(Status.FAILED_PRECONDITION, "too few for another user"),
        ),
        _reply(_receipt(2), _receipt(3)),
    )
    async with CreditClient(transport=transport, settings=QUICK) as credits_:
        batch = credits_.batch()
        batch.add(**ADDITION, idempotency_key="a")
        batch.add(**ADDITION, idempotency_key="b")
        batch.use(**PURCHASE, idempotency_key="c")
        batch.use(**PURCHASE | {"user_id": 8}, idempotency_key="d")
        results = await batch.send()
    again = transport.sent[1].request.operations
    assert [(each.add_credits or each.use_credits).idempotency_key for each in again] == ["b", "c"]
    assert [each.outcome for each in results] == [
        Outcome.APPLIED,
        Outcome.APPLIED,
        Outcome.APPLIED,
        Outcome.UNKNOWN,
    ]


async def test_a_temporary_failure_is_hidden_and_a_lasting_one_is_the_error_of_its_write() -> None:
    service = FakeCreditService()
    async with fake_credits(service, settings=QUICK) as credits_:
        service.fail_next(ErrorReason.STORE_UNAVAILABLE, times=3)
        async with credits_.batch() as batch:
            for user in (1, 2):
                batch.add(**ADDITION | {"user_id": user})
        service.fail_next(ErrorReason.STORE_UNAVAILABLE, times=3)
        batch = credits_.batch()
        failed = batch.add(**ADDITION)
        await batch.send()
        assert isinstance(failed.error, StoreUnavailable)
        assert failed.outcome is Outcome.UNKNOWN
        assert failed.error.idempotency_key == failed.idempotency_key
        await batch.send()
        assert failed.receipt.balance == 120


async def test_a_message_that_settles_some_writes_resets_the_attempts(scripted: Scripted) -> None:
    busy = _failure(Status.UNAVAILABLE)
    transport = scripted(*[_reply(_receipt(), *[busy] * (5 - turn)) for turn in range(6)])
    async with (
        CreditClient(transport=transport, settings=QUICK) as credits_,
        credits_.batch() as batch,
    ):
        for user in range(1, 7):
            batch.add(**ADDITION | {"user_id": user})
    assert len(transport.sent) == 6


async def test_an_atomic_batch_is_retried_as_a_whole_unless_a_write_was_rejected(
    scripted: Scripted,
) -> None:
    service = FakeCreditService()
    async with fake_credits(service, settings=QUICK) as credits_:
        service.fail_next(ErrorReason.OVERLOADED)
        async with credits_.batch(atomic=True) as batch:
            batch.add(**ADDITION)
            batch.use(**PURCHASE)
        assert await credits_.balance(app_id=1) == 100
    transport = scripted(_reply(_failure(Status.UNAVAILABLE), _failure(Status.FAILED_PRECONDITION)))
    async with CreditClient(transport=transport, settings=QUICK) as credits_:
        batch = credits_.batch(atomic=True)
        batch.add(**ADDITION)
        batch.use(**PURCHASE)
        await batch.send()
    assert len(transport.sent) == 1


async def test_an_outage_is_the_error_of_each_write_and_later_messages_are_not_sent(
    scripted: Scripted, unsent: AttemptFailed
) -> None:
    transport = scripted(_reply(*[_receipt()] * 1000), LOST, unsent, unsent)
    async with CreditClient(transport=transport, settings=QUICK) as credits_:
        batch = credits_.batch()
        for _ in range(2500):
            batch.add(**ADDITION)
        results = await batch.send()
    assert len(transport.sent) == 4
    assert [each.outcome for each in results[999:1001]] == [Outcome.APPLIED, Outcome.UNKNOWN]
    assert [each.outcome for each in results[1999:2001]] == [Outcome.UNKNOWN, Outcome.NO_CHANGE]
    lost, after = results[1000].error, results[2000].error
    assert isinstance(lost, Unavailable)
    assert isinstance(after, Unavailable)
    assert str(lost).startswith("cannot connect; an earlier attempt may have taken effect")
    assert str(after).startswith("cannot connect; no change was made")
    assert lost.__cause__ is after.__cause__ is unsent
    assert lost.idempotency_key == results[1000].idempotency_key
    assert results[1000].idempotency_key in "".join(lost.__notes__)
    assert not hasattr(after, "__notes__")


async def test_the_deadline_ends_a_batch(scripted: Scripted) -> None:
    async with CreditClient(transport=scripted(asyncio.Event())) as credits_:
        batch = credits_.batch(timeout_seconds=0.01)
        write = batch.add(**ADDITION)
        await batch.send()
    assert isinstance(write.error, DeadlineExceeded)
    assert write.error.message == "no answer within 0.01 s; the write may have taken effect"
    assert write.outcome is Outcome.UNKNOWN


async def test_a_timeout_out_of_range_is_rejected(scripted: Scripted) -> None:
    async with CreditClient(transport=scripted(LOST)) as credits_:
        batch = credits_.batch(timeout_seconds=0)
        batch.add(**ADDITION)
        with pytest.raises(ValueError, match="timeout_seconds"):
            await batch.send()


async def test_a_cancelled_batch_can_be_sent_again(scripted: Scripted) -> None:
    reached = asyncio.Event()
    transport = scripted(reached, _reply(_receipt()))
    async with CreditClient(transport=transport) as credits_:
        batch = credits_.batch()
        write = batch.add(**ADDITION)
        sending = asyncio.create_task(batch.send())
        await reached.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await sending
        assert "may have taken effect" in "".join(caught.value.__notes__)
        assert (write.outcome, write.error) == (Outcome.UNKNOWN, None)
        with pytest.raises(RuntimeError, match="was cancelled"):
            _ = write.receipt
        await batch.send()
    assert write.outcome is Outcome.APPLIED
    first, second = transport.sent
    assert first.request == second.request


async def test_a_batch_that_is_sent_again_keeps_the_unknown_outcome_of_an_earlier_attempt(
    scripted: Scripted,
) -> None:
    once = ClientSettings(retry_attempts_max=1)
    transport = scripted(LOST, _reply(_failure(Status.PERMISSION_DENIED, "no")))
    async with CreditClient(transport=transport, settings=once) as credits_:
        batch = credits_.batch()
        write = batch.add(**ADDITION)
        await batch.send()
        assert write.outcome is Outcome.UNKNOWN
        await batch.send()
    assert write.error is not None
    assert write.error.message == "no; an earlier attempt may have taken effect"
    assert write.outcome is Outcome.UNKNOWN


async def test_closing_the_client_ends_a_batch(scripted: Scripted) -> None:
    reached = asyncio.Event()
    async with CreditClient(transport=scripted(reached)) as credits_:
        batch = credits_.batch()
        write = batch.add(**ADDITION)
        sending = asyncio.create_task(batch.send())
        await reached.wait()
    await sending
    assert isinstance(write.error, ClientClosed)
    assert write.outcome is Outcome.UNKNOWN


async def test_a_client_that_is_not_open_sends_no_batch() -> None:
    batch = CreditClient().batch()
    batch.add(**ADDITION)
    with pytest.raises(ClientClosed):
        await batch.send()


async def test_an_answer_with_another_number_of_outcomes_breaks_the_contract(
    scripted: Scripted,
) -> None:
    async with CreditClient(transport=scripted(_reply(_receipt()))) as credits_:
        batch = credits_.batch()
        write = batch.add(**ADDITION)
        batch.add(**ADDITION)
        await batch.send()
    assert isinstance(write.error, ProtocolMismatch)
    assert "2 operations were sent, and 1 outcomes came back" in write.error.message
    assert write.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "outcome", [None, OperationOutcome(), OperationOutcome(failure=OperationFailure())]
)
def test_an_outcome_without_a_receipt_and_a_failure_is_no_answer(
    outcome: OperationOutcome | None,
) -> None:
    assert isinstance(settled(outcome, request_id="r"), AnswerBroken)


def test_a_failure_keeps_its_status_and_the_request_id() -> None:
    failed = settled(_failure(Status.ABORTED, ""), request_id="r")
    assert isinstance(failed, AttemptFailed)
    assert (failed.status, failed.request_id) == (Status.ABORTED, "r")
    assert failed.message == "the server answered ABORTED without a message"
    unknown = settled(OperationOutcome(failure=OperationFailure(code=99)), request_id="r")
    assert isinstance(unknown, AttemptFailed)
    assert unknown.status is Status.UNKNOWN


async def test_a_reused_key_within_a_batch_is_the_error_of_the_second_write() -> None:
    async with fake_credits() as credits_:
        batch = credits_.batch()
        batch.add(**ADDITION, idempotency_key="k")
        again = batch.add(**ADDITION, idempotency_key="k")
        other = batch.use(**PURCHASE, idempotency_key="k")
        await batch.send()
    assert again.receipt.replayed
    assert isinstance(other.error, IdempotencyKeyReused)


async def test_a_write_of_a_batch_has_no_time_of_its_own() -> None:
    batch = CreditClient().batch()
    with pytest.raises(TypeError, match="timeout_seconds is an argument of the batch"):
        batch.grant(user_id=7, app_id=1, credits=1, created_by=1, timeout_seconds=1)
    with pytest.raises(TypeError, match="there is no argument colour"):
        batch.grant(user_id=7, app_id=1, credits=1, created_by=1, colour="red")  # type: ignore[call-arg] # wrong on purpose
    assert len(batch) == 0


async def test_writes_of_the_user_who_gets_a_transfer_are_sent_again_with_it(
    scripted: Scripted,
) -> None:
    transport = scripted(
        _reply(
            _failure(Status.UNAVAILABLE, "busy"),
            _failure(Status.FAILED_PRECONDITION, "too few"),
            _failure(Status.FAILED_PRECONDITION, "too few for a third user"),
        ),
        _reply(_receipt(2), _receipt(3)),
    )
    async with CreditClient(transport=transport, settings=QUICK) as credits_:
        batch = credits_.batch()
        batch.transfer(user_id=7, app_id=1, credits=5, created_by=1, to_user_id=8)
        batch.use(**PURCHASE | {"user_id": 8})
        batch.use(**PURCHASE | {"user_id": 9})
        results = await batch.send()
    again = transport.sent[1].request.operations
    assert [type(request_of(each)) for each in again] == [TransferCreditsRequest, PurchaseRequest]
    assert [each.error is None for each in results] == [True, True, False]


def test_every_operation_of_the_contract_has_its_request() -> None:
    fields = {field.name for field in dataclasses.fields(Operation)}
    made = [operation_of(kind()) for kind in WRITE_TYPES]
    assert {name for each in made for name in fields if getattr(each, name) is not None} == fields
    assert [type(request_of(each)) for each in made] == list(WRITE_TYPES)
    assert request_of(Operation()) is None


async def test_a_write_that_is_only_validated_made_no_change_whatever_happens(
    scripted: Scripted,
) -> None:
    async with CreditClient(transport=scripted(LOST), settings=QUICK) as credits_:
        batch = credits_.batch()
        preview = batch.grant(user_id=7, app_id=1, credits=1, created_by=1, validate_only=True)
        await batch.send()
        assert isinstance(preview.error, Unavailable)
        assert preview.outcome is Outcome.NO_CHANGE
        with pytest.raises(Unavailable) as alone:
            await credits_.grant(user_id=7, app_id=1, credits=1, created_by=1, validate_only=True)
        assert alone.value.outcome is Outcome.NO_CHANGE


async def test_a_write_with_a_condition_is_retried_and_carries_its_key(scripted: Scripted) -> None:
    transport = scripted(LOST, _reply(_receipt(7)))
    async with CreditClient(transport=transport, settings=QUICK) as credits_:
        receipt = await credits_.use(**PURCHASE, once=True)
    assert receipt.sequence == 7
    first, second = transport.sent
    assert first.request == second.request
    assert first.request.operations[0].use_credits.once
    async with CreditClient(transport=scripted(LOST), settings=QUICK) as credits_:
        with pytest.raises(Unavailable) as caught:
            await credits_.add(**ADDITION, min_available_after=1, idempotency_key="k")
    assert caught.value.idempotency_key == "k"
    assert caught.value.outcome is Outcome.UNKNOWN
    assert len(caught.value.__notes__) == 1
