"""Imports: keys, order, rejected rows, failures and repetition."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from credit_client import (
    ClientSettings,
    CreditClient,
    CreditError,
    ErrorReason,
    IdempotencyKeyReused,
    ImportReport,
    ImportRow,
    InsufficientCredits,
    InvalidField,
    Outcome,
    RejectedRow,
    StoreUnavailable,
    Unauthenticated,
    importing,
)
from credit_client.testing import FakeCreditService, fake_credits
from credit_client.transport import Answer, AttemptFailed
from credit_models import BatchWriteResponse, OperationFailure, OperationOutcome, Receipt
from grpclib.const import Status

# Any: the transport is the scripted one of conftest, which importlib mode cannot name here.
Scripted = Callable[..., Any]

ADDITION = ImportRow(user_id=7, app_id=1, credits=10, created_by=1)
PURCHASE = replace(ADDITION, kind="use", report_id="r", report_name="R")
QUICK = ClientSettings(retry_backoff_initial_seconds=0.000_1, retry_attempts_max=3)
LOST = AttemptFailed(Status.UNAVAILABLE, "the connection was lost")


def _rows(number: int, users: int = 5) -> Iterator[ImportRow]:
    return (replace(ADDITION, user_id=1 + each % users) for each in range(number))


async def test_rows_take_effect_once_however_often_they_are_imported() -> None:
    async with fake_credits() as credits_:
        first = await credits_.import_(_rows(2345), name="may")
        assert first == ImportReport(rows=2345, applied=2345)
        again = await credits_.import_(_rows(2345), name="may")
        assert again == ImportReport(rows=2345, replayed=2345)
        assert await credits_.balance(app_id=1) == 23450
        keys = {entry.idempotency_key async for entry in credits_.transactions(user_id=1)}
        assert {"may:1", "may:6", "may:2341"} <= keys
        other = await credits_.import_(_rows(5), name="june")
        assert other.applied == 5


async def test_rows_may_come_from_an_asynchronous_iterable_and_have_their_own_keys() -> None:
    async def rows() -> AsyncIterator[ImportRow]:
        for number in range(3):
            await asyncio.sleep(0)
            yield replace(ADDITION, idempotency_key=f"order-{number}")

    async with fake_credits() as credits_:
        assert (await credits_.import_(rows())).applied == 3
        keys = [entry.idempotency_key async for entry in credits_.transactions(user_id=7)]
        assert keys == ["order-0", "order-1", "order-2"]


async def test_rows_of_a_user_take_effect_in_their_order() -> None:
    def rows() -> Iterator[ImportRow]:
        for turn in range(600):
            for user in range(1, 5):
                row = PURCHASE if turn % 2 else ADDITION
                yield replace(row, user_id=user)

    async with fake_credits() as credits_:
        report = await credits_.import_(rows(), name="order", concurrency=3)
        assert (report.applied, report.rejected) == (2400, 0)
        assert await credits_.balance(app_id=1) == 0


async def test_rejected_rows_are_returned_and_the_others_take_effect() -> None:
    rows = [
        ADDITION,
        replace(PURCHASE, credits=11),
        replace(ADDITION, credits=0),
        replace(ADDITION, user_id=7.0),  # type: ignore[arg-type] # wrong on purpose
        replace(ADDITION, report_id="r"),
        replace(ADDITION, kind="take"),  # type: ignore[arg-type] # wrong on purpose
        replace(PURCHASE, report_id=None),
        replace(ADDITION, credits=5, idempotency_key="a:1"),
        PURCHASE,
    ]
    async with fake_credits() as credits_:
        report = await credits_.import_(rows, name="a")
    assert (report.rows, report.applied, report.rejected) == (9, 2, 7)
    by_number = {each.number: each for each in report.rejections}
    kinds = {number: type(each.error) for number, each in by_number.items()}
    assert kinds == {
        2: InsufficientCredits,
        3: InvalidField,
        4: TypeError,
        5: TypeError,
        6: TypeError,
        7: TypeError,
        8: IdempotencyKeyReused,
    }
    assert by_number[2].row == replace(PURCHASE, credits=11, idempotency_key="a:2")
    error = by_number[2].error
    assert isinstance(error, InsufficientCredits)
    assert (error.idempotency_key, error.outcome) == ("a:2", Outcome.NO_CHANGE)


async def test_rejected_rows_may_be_passed_on_instead_of_collected() -> None:
    passed: list[RejectedRow] = []
    async with fake_credits() as credits_:
        report = await credits_.import_([PURCHASE] * 3, name="a", rejected=passed.append)
    assert (report.rejected, report.rejections) == (3, ())
    assert [each.number for each in passed] == [1, 2, 3]


async def test_progress_is_reported_after_each_message() -> None:
    reports: list[ImportReport] = []
    async with fake_credits() as credits_:
        await credits_.import_(_rows(1600, users=1), name="a", progress=reports.append)
    assert [each.applied for each in reports] == [500, 1000, 1500, 1600]


async def test_rows_are_read_no_further_than_they_are_sent(scripted: Scripted) -> None:
    reached, read = asyncio.Event(), Counter[str]()

    def rows() -> Iterator[ImportRow]:
        while True:
            read["rows"] += 1
            yield replace(ADDITION, user_id=read["rows"])

    async with CreditClient(transport=scripted(reached)) as credits_:
        running = asyncio.create_task(credits_.import_(rows(), name="a", concurrency=2))
        await reached.wait()
        await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert read["rows"] <= 2 * 2 * importing._ROWS_PER_MESSAGE


async def test_an_import_without_a_name_needs_keys() -> None:
    async with fake_credits() as credits_:
        with pytest.raises(ValueError, match="row 1 has no idempotency key: name the import"):
            await credits_.import_([ADDITION])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": ""}, "1 to 100 characters"),
        ({"name": "n" * 101}, "1 to 100 characters"),
        ({"name": "\u200b"}, "makes no valid keys: idempotency_key"),
        ({"concurrency": 0}, "concurrency must be 1 to 64"),
        ({"concurrency": 65}, "concurrency must be 1 to 64"),
    ],
)
async def test_arguments_out_of_range_are_rejected_at_once(
    options: dict[str, Any], problem: str
) -> None:
    async with fake_credits() as credits_:
        with pytest.raises(ValueError, match=problem):
            await credits_.import_([ADDITION], **{"name": "a"} | options)


async def test_temporary_failures_are_hidden() -> None:
    service = FakeCreditService()
    async with fake_credits(service, settings=QUICK) as credits_:
        service.fail_next(ErrorReason.RATE_LIMITED, times=700)
        report = await credits_.import_(_rows(1000), name="a")
    assert report.applied == 1000


async def test_a_lasting_failure_ends_the_import_and_the_next_one_completes_it(
    scripted: Scripted,
) -> None:
    service = FakeCreditService()
    async with fake_credits(service, settings=QUICK) as credits_:
        service.fail_next(ErrorReason.STORE_UNAVAILABLE, times=3 * 500)
        with pytest.raises(StoreUnavailable) as caught:
            await credits_.import_(_rows(1000, users=1), name="a", concurrency=1)
        assert caught.value.idempotency_key == "a:1"
        report = await credits_.import_(_rows(1000, users=1), name="a", concurrency=1)
        assert report.applied + report.replayed == 1000
        assert await credits_.balance(app_id=1) == 10_000


async def test_a_rejected_identity_ends_the_import() -> None:
    service = FakeCreditService()
    async with fake_credits(service, settings=QUICK) as credits_:
        service.fail_next(ErrorReason.UNAUTHENTICATED, times=10)
        with pytest.raises(Unauthenticated):
            await credits_.import_(_rows(10), name="a", concurrency=1)


async def test_a_failure_of_the_server_ends_the_import(scripted: Scripted) -> None:
    outcome = OperationOutcome(failure=OperationFailure(code=Status.INTERNAL.value, message="bug"))
    reply = Answer(reply=BatchWriteResponse(outcomes=[outcome]), receipt=None)
    async with CreditClient(transport=scripted(reply)) as credits_:
        with pytest.raises(CreditError, match="bug"):
            await credits_.import_([ADDITION], name="a")


async def test_what_is_left_is_sent_again_while_messages_settle_rows(scripted: Scripted) -> None:
    done = OperationOutcome(receipt=Receipt(transaction_id="t"))
    late = OperationOutcome(failure=OperationFailure(code=Status.DEADLINE_EXCEEDED.value))
    replies = [
        Answer(reply=BatchWriteResponse(outcomes=[done, late, late]), receipt=None),
        Answer(reply=BatchWriteResponse(outcomes=[late, done]), receipt=None),
        Answer(reply=BatchWriteResponse(outcomes=[late]), receipt=None),
    ]
    transport = scripted(*replies)
    async with CreditClient(transport=transport) as credits_:
        with pytest.raises(CreditError, match="DEADLINE_EXCEEDED"):
            await credits_.import_([ADDITION] * 3, name="a")
    assert [len(each.request.operations) for each in transport.sent] == [3, 2, 1]


async def test_rows_that_cannot_be_read_end_the_import_and_its_messages(
    scripted: Scripted,
) -> None:
    def rows() -> Iterator[ImportRow]:
        yield from _rows(500, users=1)
        raise ZeroDivisionError

    before = asyncio.all_tasks()
    async with CreditClient(transport=scripted(asyncio.Event())) as credits_:
        with pytest.raises(ZeroDivisionError):
            await credits_.import_(rows(), name="a")
    assert asyncio.all_tasks() == before
