"""BatchWrite, as a client sees it on the wire."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from credit_models import (
    AppId,
    Balance,
    BatchWriteRequest,
    BatchWriteResponse,
    CreditRequest,
    Empty,
    ErrorReason,
    Operation,
    OperationOutcome,
    PurchaseRequest,
    Receipt,
    UserCredits,
    UserId,
)
from credit_models.codec import encode
from credit_server.access.audit import Line
from credit_server.access.authorize import AccessLimits
from credit_server.access.identity import AddLimits, Identity
from credit_server.commit import CommitLimits
from credit_server.grpc.handler import CallLimits
from credit_server.store.port import Store
from credit_testing.calls import Answer, call_headers, framed
from credit_testing.http2_client import Connection
from credit_testing.stores import FailingStore, HeldStore
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from grpclib.const import Status

from tests.server.callers import info_of
from tests.server.clocks import skewed_clock
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.operations import BATCH_WRITE, as_answer, batch_write
from tests.server.serving import Serving, serving, until

UINT32_MAX = 2**32 - 1
LIMITS = CallLimits(loop_lag_seconds_max=3600.0)
TOKEN = ("authorization", "Bearer caller")


def _add(amount: int = 10, *, user: int = 7, app: int = 1, by: int = 9, key: str = "") -> Operation:
    return Operation(
        add_credits=CreditRequest(
            user_id=user, app_id=app, credits=amount, created_by=by, idempotency_key=key
        )
    )


def _use(amount: int = 10, *, user: int = 7, key: str = "") -> Operation:
    return Operation(
        use_credits=PurchaseRequest(
            user_id=user,
            app_id=1,
            report_id="r-1",
            report_name="Report",
            credits=amount,
            created_by=9,
            idempotency_key=key,
        )
    )


async def _outcomes(
    wire: Connection, operations: Sequence[Operation], *, atomic: bool = False
) -> list[OperationOutcome]:
    batch = BatchWriteRequest(operations=list(operations), atomic=atomic)
    outcomes = (await batch_write(wire, batch, TOKEN)).message(BatchWriteResponse).outcomes
    assert len(outcomes) == len(operations)
    return outcomes


def _reason(outcome: OperationOutcome) -> str:
    """Return the reason of a failure; empty for a receipt."""
    if outcome.receipt is not None:
        return ""
    return info_of(as_answer(outcome)).reason if outcome.failure else "nothing"


def _reasons(outcomes: Sequence[OperationOutcome]) -> list[str]:
    return [_reason(outcome) for outcome in outcomes]


def _receipts(outcomes: Sequence[OperationOutcome]) -> list[Receipt]:
    receipts = [outcome.receipt for outcome in outcomes if outcome.receipt is not None]
    assert len(receipts) == len(outcomes)
    return receipts


async def _balance(wire: Connection, user: int = 7) -> int:
    answer = await wire.call("GetAppBalance", AppId(app_id=1, user_id=user), TOKEN)
    return answer.message(Balance).balance


@asynccontextmanager
async def _as(
    identity: Identity, limits: AccessLimits | None = None, lines: list[Line] | None = None
) -> AsyncIterator[Connection]:
    """Connect to a server on which the token is of an identity."""
    async with (
        serving(
            authenticator=FakeAuthenticator({"caller": identity}),
            access_limits=limits,
            audit_sink=None if lines is None else lines.append,
        ) as served,
        Connection.connect(served.port) as wire,
    ):
        yield wire


async def test_each_operation_has_its_outcome_in_the_same_order(wire: Connection) -> None:
    operations = [_add(10), _use(4), _use(7), _add(1, user=8), _use(6)]
    outcomes = await _outcomes(wire, operations)
    assert _reasons(outcomes) == ["", "", "INSUFFICIENT_CREDITS", "", ""]
    balances = [each.receipt.balance for each in outcomes if each.receipt is not None]
    assert balances == [10, 6, 1, 0]
    purchase = outcomes[1].receipt
    assert purchase is not None
    assert purchase.purchase_id
    assert (purchase.sequence, purchase.replayed) == (2, False)


async def test_a_failure_is_what_the_call_would_have_returned(wire: Connection) -> None:
    request = PurchaseRequest(report_id=" ", credits=5)
    for given in (request, _use(5).use_credits):
        assert given is not None
        alone = await wire.call("UseCredits", given)
        (outcome,) = await _outcomes(wire, [Operation(use_credits=given)])
        failure = outcome.failure
        assert failure is not None
        assert failure.code == alone.status.value if alone.status else False
        assert failure.message == alone.sentence
        assert failure.status_details == alone.binary("grpc-status-details-bin")
        assert failure.reason != ErrorReason.UNSPECIFIED


async def test_a_broken_operation_breaks_no_other(wire: Connection) -> None:
    broken = Operation(add_credits=CreditRequest())
    outcomes = await _outcomes(wire, [_add(), broken, Operation(), _add(app=2)])
    assert _reasons(outcomes) == ["", "INVALID_FIELD", "INVALID_FIELD", ""]
    fields = as_answer(outcomes[1]).details[1], as_answer(outcomes[2]).details[1]
    assert all(isinstance(each, BadRequest) for each in fields)
    assert [
        [violation.field for violation in each.field_violations]
        for each in fields
        if isinstance(each, BadRequest)
    ] == [["user_id", "app_id", "credits", "created_by"], ["request"]]


async def test_an_integer_that_does_not_fit_rejects_its_operation_alone(wire: Connection) -> None:
    too_wide = b"\x0a\x0e\x0a\x0c\x08\x07\x10\x01\x18\x85\x80\x80\x80\x10\x20\x09"  # 2**32 + 5
    sound = encode(BatchWriteRequest(operations=[_add()]))
    data = sound + too_wide * 20 + sound
    answer = await wire.request(call_headers(BATCH_WRITE), framed(data))
    outcomes = answer.message(BatchWriteResponse).outcomes
    assert _reasons(outcomes) == ["", *["INVALID_FIELD"] * 20, ""]
    broken = as_answer(outcomes[1]).details[1]
    assert isinstance(broken, BadRequest)
    assert [violation.field for violation in broken.field_violations] == ["credits"]
    assert await _balance(wire) == 20


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_of_a_wrong_size_is_rejected_as_a_whole(count: int) -> None:
    async with serving(call_limits=LIMITS) as served, Connection.connect(served.port) as wire:
        answer = await batch_write(wire, BatchWriteRequest(operations=[_add()] * count))
        assert answer.status is Status.INVALID_ARGUMENT
        broken = answer.details[1]
        assert isinstance(broken, BadRequest)
        assert [(each.field, each.description) for each in broken.field_violations] == [
            ("operations", f"must be 1 to 1000 items, got {count}")
        ]
        assert await _balance(wire) == 0


async def test_a_thousand_operations_of_the_longest_fields_fit() -> None:
    longest = "\N{PEAR}" * 256
    purchase = Operation(
        use_credits=PurchaseRequest(
            user_id=UINT32_MAX,
            app_id=UINT32_MAX,
            report_id=longest[:128],
            report_name=longest,
            credits=UINT32_MAX,
            created_by=UINT32_MAX,
            idempotency_key=longest[:128],
        )
    )
    batch = BatchWriteRequest(operations=[purchase] * 1000, atomic=True)
    assert len(encode(batch)) == 2_087_002 <= CallLimits().message_bytes_max
    async with serving(call_limits=LIMITS) as served, Connection.connect(served.port) as wire:
        outcomes = (await batch_write(wire, batch)).message(BatchWriteResponse).outcomes
    assert set(_reasons(outcomes)) == {"INSUFFICIENT_CREDITS"}


async def test_the_same_key_takes_effect_once_in_any_message(wire: Connection) -> None:
    single = await wire.call("AddCredits", _add(10, key="k").add_credits or Empty())
    first = await _outcomes(wire, [_add(10, key="k"), _add(5, key="l"), _add(5, key="l")])
    assert single.message(Empty) == Empty()
    assert [receipt.replayed for receipt in _receipts(first)] == [True, False, True]
    assert await _balance(wire) == 15


async def test_a_batch_leaves_other_calls_their_turn(
    wire: Connection, bystander: Connection
) -> None:
    answers = await asyncio.gather(
        _outcomes(wire, [_add(1) for _ in range(50)]),
        *(bystander.call("AddCredits", _add(1).add_credits or Empty()) for _ in range(5)),
    )
    assert len(answers) == 6
    assert await _balance(wire) == 55


class TestAtomic:
    """Batches of which all operations take effect or none."""

    async def test_all_take_effect(self, wire: Connection) -> None:
        receipts = _receipts(await _outcomes(wire, [_add(10), _add(5, user=8)], atomic=True))
        assert [receipt.balance for receipt in receipts] == [10, 5]
        again = await _outcomes(wire, [_add(10), _add(5, user=8)], atomic=True)
        assert [receipt.balance for receipt in _receipts(again)] == [20, 10]

    async def test_a_retry_is_replayed(self, wire: Connection) -> None:
        operations = [_add(10, key="a"), _use(4, key="b"), _add(5, user=8, key="a")]
        first = _receipts(await _outcomes(wire, operations, atomic=True))
        again = _receipts(await _outcomes(wire, operations, atomic=True))
        assert [receipt.replayed for receipt in first + again] == [False] * 3 + [True] * 3
        for receipt in first:
            receipt.replayed = True
        assert first == again

    async def test_a_refusal_of_the_ledger_aborts_the_others(self, wire: Connection) -> None:
        await _outcomes(wire, [_add(10, key="known")])
        operations = [_add(5, user=8), _use(11), _add(10, key="known"), _use(12)]
        outcomes = await _outcomes(wire, operations, atomic=True)
        short, aborted = "INSUFFICIENT_CREDITS", "BATCH_ABORTED"
        assert _reasons(outcomes) == [aborted, short, aborted, short]
        answer = as_answer(outcomes[0])
        assert answer.status is Status.ABORTED
        assert info_of(answer).metadata == {"index": "1"}
        assert (await _balance(wire), await _balance(wire, 8)) == (10, 0)

    async def test_a_broken_operation_aborts_the_others(self, wire: Connection) -> None:
        outcomes = await _outcomes(wire, [_add(5), Operation(), _add(0)], atomic=True)
        assert _reasons(outcomes) == ["BATCH_ABORTED", "INVALID_FIELD", "INVALID_FIELD"]
        assert await _balance(wire) == 0

    async def test_an_operation_that_the_caller_may_not_request_aborts_the_others(self) -> None:
        async with _as(replace(EVERYTHING, apps=frozenset({1}))) as wire:
            outcomes = await _outcomes(wire, [_add(5), _add(5, app=2)], atomic=True)
            assert _reasons(outcomes) == ["BATCH_ABORTED", "APP_NOT_ALLOWED"]
            assert await _balance(wire) == 0

    async def test_the_rate_limit_admits_all_or_none(self) -> None:
        limits = AccessLimits(calls_per_second=0.001, calls_burst=5)
        async with _as(EVERYTHING, limits) as wire:
            assert _reasons(await _outcomes(wire, [_add()] * 3, atomic=True)) == [""] * 3
            outcomes = await _outcomes(wire, [_add()] * 3, atomic=True)
            assert _reasons(outcomes) == ["RATE_LIMITED"] * 3

    async def test_a_batch_above_the_burst_is_admitted_by_a_full_bucket(self) -> None:
        limits = AccessLimits(calls_per_second=0.001, calls_burst=2)
        async with _as(EVERYTHING, limits) as wire:
            assert _reasons(await _outcomes(wire, [_add()] * 9, atomic=True)) == [""] * 9
            answer = await wire.call(BATCH_WRITE, BatchWriteRequest(operations=[_add()]), TOKEN)
            assert answer.status is Status.RESOURCE_EXHAUSTED
            retry = answer.details[1]
            assert isinstance(retry, RetryInfo)
            assert retry.retry_delay.seconds > 7000  # the debt of seven, and one token

    async def test_a_full_queue_rejects_all(self) -> None:
        store = HeldStore()
        limits = CommitLimits(shards=2, waiting_max=4)
        async with _beside_a_held_write(store, limits) as wire:
            outcomes = asyncio.create_task(
                _outcomes(wire, [_add(user=8), _add(), _add()], atomic=True)
            )
            assert _reasons(await outcomes) == ["OVERLOADED"] * 3


@asynccontextmanager
async def _beside_a_held_write(store: HeldStore, limits: CommitLimits) -> AsyncIterator[Connection]:
    async with serving(store, limits=limits) as served, Connection.connect(served.port) as wire:
        running = asyncio.create_task(wire.call("AddCredits", _add().add_credits or Empty()))
        await store.entered.wait()
        yield wire
        store.released.set()
        await running


async def test_operations_beyond_the_room_in_the_queue_are_rejected_alone() -> None:
    store = HeldStore()
    async with _beside_a_held_write(store, CommitLimits(shards=1, waiting_max=3)) as wire:
        running = asyncio.create_task(_outcomes(wire, [_add()] * 4))
        await wire.in_order()
        store.released.set()
        assert _reasons(await running) == ["", "", "OVERLOADED", "OVERLOADED"]


async def test_the_rate_limit_admits_the_first_operations() -> None:
    limits = AccessLimits(calls_per_second=0.001, calls_burst=4)
    async with _as(EVERYTHING, limits) as wire:
        outcomes = await _outcomes(wire, [_add()] * 6)
        assert _reasons(outcomes) == ["", "", "", "", "RATE_LIMITED", "RATE_LIMITED"]
        retry = as_answer(outcomes[5]).details[1]
        assert isinstance(retry, RetryInfo)
        assert 1900 < retry.retry_delay.seconds <= 2000
        refused = await wire.call(BATCH_WRITE, BatchWriteRequest(operations=[_add()]), TOKEN)
        assert refused.status is Status.RESOURCE_EXHAUSTED


async def test_each_operation_requires_its_own_scope() -> None:
    async with _as(replace(EVERYTHING, scopes=frozenset({"credits:issue"}))) as wire:
        outcomes = await _outcomes(wire, [_add(), _use(), Operation()])
        assert _reasons(outcomes) == ["", "SCOPE_MISSING", "INVALID_FIELD"]
        metadata = info_of(as_answer(outcomes[1])).metadata
        assert metadata == {"scope": "credits:spend"}


async def test_apps_actors_and_limits_are_those_of_the_call() -> None:
    limited = replace(
        EVERYTHING,
        apps=frozenset({1}),
        actor=9,
        may_impersonate=False,
        add_limits=AddLimits(default=10),
    )
    async with _as(limited) as wire:
        operations = [_add(), _add(app=2), _add(by=8), _add(11)]
        assert _reasons(await _outcomes(wire, operations)) == [
            "",
            "APP_NOT_ALLOWED",
            "ACTOR_NOT_ALLOWED",
            "CREDITS_LIMIT_EXCEEDED",
        ]


async def test_a_caller_without_an_identity_learns_nothing() -> None:
    async with _as(EVERYTHING) as wire:
        answer = await wire.call(BATCH_WRITE, BatchWriteRequest())
        assert answer.status is Status.UNAUTHENTICATED


async def test_each_operation_has_its_line_in_the_audit_log() -> None:
    lines: list[Line] = []
    async with _as(replace(EVERYTHING, apps=frozenset({1})), lines=lines) as wire:
        operations = [_add(5, key="k"), _use(9), _add(app=2), Operation(), _add(0)]
        await _outcomes(wire, operations)
        await _outcomes(wire, [_add(5, key="k"), _use(9)], atomic=True)
    shown = [(line["operation"], line["status"], line.get("reason")) for line in lines]
    assert shown == [
        ("add_credits", "OK", None),
        ("use_credits", "FAILED_PRECONDITION", "INSUFFICIENT_CREDITS"),
        ("add_credits", "PERMISSION_DENIED", "APP_NOT_ALLOWED"),
        ("unknown", "INVALID_ARGUMENT", "INVALID_FIELD"),
        ("add_credits", "INVALID_ARGUMENT", "INVALID_FIELD"),
        ("add_credits", "ABORTED", "BATCH_ABORTED"),
        ("use_credits", "FAILED_PRECONDITION", "INSUFFICIENT_CREDITS"),
    ]
    assert {line["method"] for line in lines} == {BATCH_WRITE}
    assert lines[0]["key"] == "k"
    assert (lines[0]["identity"], lines[0]["credits"]) == ("caller", 5)


async def test_rate_limited_operations_share_a_line_in_the_audit_log() -> None:
    lines: list[Line] = []
    limits = AccessLimits(calls_per_second=0.001, calls_burst=2)
    async with _as(EVERYTHING, limits, lines) as wire:
        await _outcomes(wire, [_add()] * 20)
    assert [line["status"] for line in lines] == ["RESOURCE_EXHAUSTED", "OK", "OK"]


async def test_a_client_that_leaves_does_not_disturb_the_commit() -> None:
    lines: list[Line] = []
    store = HeldStore()
    async with serving(store, audit_sink=lines.append) as served:
        async with Connection.connect(served.port) as wire:
            batch = BatchWriteRequest(operations=[_add(5), _add(6)], atomic=True)
            wire.begin(call_headers(BATCH_WRITE), framed(encode(batch)))
            await store.entered.wait()
        await served.wait_quiet()
        store.released.set()
        await until(lambda: len(lines) == 2)
        async with Connection.connect(served.port) as other:
            assert await _balance(other) == 11
    assert [(line["status"], line["answered"]) for line in lines] == [("OK", False)] * 2


async def test_a_client_that_leaves_while_outcomes_are_written_leaves_a_line_for_each() -> None:
    lines: list[Line] = []

    def write(line: Line) -> None:
        lines.append(line)
        task = asyncio.current_task()
        if len(lines) == 1 and task is not None:
            task.cancel()  # as a reset of the client does; it takes effect after some outcomes

    async with (
        serving(audit_sink=write, call_limits=LIMITS) as served,
        Connection.connect(served.port) as wire,
    ):
        operations = [_add(1) for _ in range(600)]
        wire.begin(
            call_headers(BATCH_WRITE), framed(encode(BatchWriteRequest(operations=operations)))
        )
        await until(lambda: len(lines) == 600)
        assert await _balance(wire) == 600
    assert {line["status"] for line in lines} == {"OK"}
    assert sum("answered" in line for line in lines) == 350


async def test_a_client_that_leaves_leaves_a_line_for_each_rejected_operation() -> None:
    lines: list[Line] = []
    store = HeldStore()
    async with serving(store, audit_sink=lines.append) as served:
        async with Connection.connect(served.port) as wire:
            batch = BatchWriteRequest(operations=[_add(5), _add(0)])
            wire.begin(call_headers(BATCH_WRITE), framed(encode(batch)))
            await store.entered.wait()
        await served.wait_quiet()
        store.released.set()
        await until(lambda: len(lines) == 2)
    shown = {(line["status"], line["answered"]) for line in lines}
    assert shown == {("INVALID_ARGUMENT", False), ("OK", False)}


async def test_a_deadline_leaves_the_result_of_all_operations_open() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        batch = BatchWriteRequest(operations=[_add(5), _add(6)])
        answer = await wire.call(BATCH_WRITE, batch, ("grpc-timeout", "20m"))
        assert answer.status is Status.DEADLINE_EXCEEDED
        assert "may or may not have taken effect" in answer.sentence
        store.released.set()


async def test_a_skewed_clock_rejects_each_operation() -> None:
    async with serving(clock=skewed_clock()) as served, Connection.connect(served.port) as wire:
        assert _reasons(await _outcomes(wire, [_add(), _add()])) == ["CLOCK_SKEWED"] * 2
        outcomes = await _outcomes(wire, [_add(), _add()], atomic=True)
        assert _reasons(outcomes) == ["CLOCK_SKEWED"] * 2


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_bug_is_an_internal_error_of_the_operations_and_is_logged(
    atomic: bool, logged: list[MutableMapping[str, Any]]
) -> None:
    store: Store = FailingStore(ZeroDivisionError("internals at /var/lib"))
    async with serving(store) as served, Connection.connect(served.port) as wire:
        outcomes = await _outcomes(wire, [_add(), _add(user=8)], atomic=atomic)
    for outcome in outcomes:
        assert outcome.failure is not None
        assert (outcome.failure.code, outcome.failure.message) == (13, "internal error")
        assert not outcome.failure.status_details
    shown = [line for line in logged if line["event"] == "an operation failed"]
    assert [type(line["exc_info"]) for line in shown] == [ZeroDivisionError] * 2


async def test_a_batch_of_a_user_is_visible_at_once(wire: Connection) -> None:
    await _outcomes(wire, [_add(5), _add(6, app=2)], atomic=True)
    held = (await wire.call("GetUserCredits", UserId(user_id=7))).message(UserCredits)
    assert {each.app_id: each.balance for each in held.balances} == {1: 5, 2: 6}


async def test_a_batch_beyond_the_calls_that_may_run_is_shed(served: Serving) -> None:
    store = HeldStore()
    limits = replace(LIMITS, calls_max=1)
    async with serving(store, call_limits=limits) as full, Connection.connect(full.port) as wire:
        running = asyncio.create_task(wire.call("AddCredits", _add().add_credits or Empty()))
        await store.entered.wait()
        answer: Answer = await wire.call(BATCH_WRITE, BatchWriteRequest(operations=[_add()]))
        assert (answer.status, info_of(answer).reason) == (Status.UNAVAILABLE, "OVERLOADED")
        store.released.set()
        await running


@pytest.mark.parametrize("path", [BATCH_WRITE, "/credit.v1.CreditService/AddCredits"])
async def test_bytes_after_the_message_are_a_second_message_whatever_the_first_is(
    wire: Connection, path: str
) -> None:
    """grpc-fuzz found it: an empty batch was rejected for its size before the rest was seen."""
    message = encode(BatchWriteRequest(operations=[_add()]))
    answer = await wire.request(call_headers(path), framed(message, length=0))
    assert answer.status is Status.UNIMPLEMENTED
