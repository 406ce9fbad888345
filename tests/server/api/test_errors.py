"""Every reason of the contract, provoked on every call that declares it, has the defined form."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from credit_models import (
    AppId,
    CreditRequest,
    Empty,
    ErrorReason,
    PurchaseRequest,
)
from credit_models.reasons import ACCESS_REASONS, DOMAIN, RULES, method_reasons, reason_name
from credit_models.scopes import SCOPED_BY_OPERATION
from credit_server.access.authorize import AccessLimits
from credit_server.admission.decision import Decision, NotAdmitted
from credit_server.api import errors
from credit_server.api.contract import WRITES as WRITING
from credit_server.commit import (
    ClockSkewed,
    CommitError,
    NotCommitted,
    Overloaded,
    ResultUnknown,
    Stopping,
)
from credit_server.grpc.ports import CutOff
from credit_server.store.port import (
    CommitUnknown,
    IndexMissing,
    StoreError,
    StoreUnavailable,
    Unreadable,
)
from credit_testing.calls import Answer, call_headers, framed
from credit_testing.http2_client import Connection
from credit_testing.stores import FailingStore
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.server.callers import open_wire
from tests.server.clocks import skewed_clock
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.provocations import PROVOCATIONS, UINT32_MAX, call_with, cases, queue_full
from tests.server.requests import PATHS, WRITES, request_of
from tests.server.serving import is_served, serving

TIMELESS = {"ResolveUser", "SetWebhook", "RemoveWebhook", "ResendDeadLetters"}
ABSENT = {"GetTransaction", "ResendDeadLetters"}

EVERY_CASE = [
    pytest.param(call, reason, id=f"{call.replace('/', '-')}-{reason.name}")
    for call, reason in cases()
]


async def _provoked(reason: ErrorReason, call: str) -> Answer:
    answer = await PROVOCATIONS[reason](open_wire, call)
    assert isinstance(answer, Answer)
    return answer


@asynccontextmanager
async def _wire(error: Exception | None = None) -> AsyncIterator[Connection]:
    store = None if error is None else FailingStore(error)
    async with serving(store) as served, Connection.connect(served.port) as wire:
        yield wire


def _translated(error: Exception) -> GRPCError:
    translated = errors.translate(error, write=True)
    assert translated is not None
    return translated


def _says_nothing_of_changes(sentence: str) -> None:
    """Check that the message of a failed read does not mention changes."""
    assert "no change" not in sentence
    assert "taken effect" not in sentence


def _info(answer: Answer) -> ErrorInfo:
    info = answer.details[0]
    assert isinstance(info, ErrorInfo)
    return info


def test_every_reason_of_the_contract_is_provoked_here() -> None:
    assert PROVOCATIONS.keys() == RULES.keys()
    own = {reason for reasons in method_reasons().values() for reason in reasons}
    assert set(RULES) == own | set(ACCESS_REASONS)
    assert not own & set(ACCESS_REASONS)


@pytest.mark.parametrize(("call", "reason"), EVERY_CASE)
async def test_a_refusal_is_as_the_contract_defines_and_has_no_receipt(
    call: str, reason: ErrorReason
) -> None:
    answer = await _provoked(reason, call)
    rule = RULES[reason]
    info = _info(answer)
    assert answer.status is rule.status
    assert (info.reason, info.domain) == (reason_name(reason), DOMAIN)
    assert set(info.metadata) == set(rule.metadata)
    names = [detail.DESCRIPTOR.full_name for detail in answer.details]
    assert names == ["google.rpc.ErrorInfo", *(f"google.rpc.{name}" for name in rule.details)]
    assert answer.sentence
    if PATHS[call.partition("/")[0]] not in WRITING:
        _says_nothing_of_changes(answer.sentence)
    assert "secret" not in str(answer.metadata)
    assert "credit-receipt-bin" not in answer.metadata
    assert not answer.data


@pytest.mark.parametrize("method", ["AddCredits", "UseCredits"])
async def test_a_write_in_a_full_queue_is_rejected_as_a_shed_call_is(method: str) -> None:
    answer = await queue_full(open_wire, method)
    assert (answer.status, _info(answer).reason) == (Status.UNAVAILABLE, "OVERLOADED")


async def test_a_retryable_reason_has_a_retry_time() -> None:
    retryable = (reason for reason, rule in RULES.items() if rule.retryable)
    for provoke in (queue_full, *(PROVOCATIONS[reason] for reason in retryable)):
        retry = (await provoke(open_wire, "AddCredits")).details[1]
        assert isinstance(retry, RetryInfo)
        assert 0 < retry.retry_delay.ToMilliseconds() <= 10_000


async def test_insufficient_credits_come_with_numbers() -> None:
    metadata = _info(await _provoked(ErrorReason.INSUFFICIENT_CREDITS, "UseCredits")).metadata
    assert metadata == {"available": "20", "required": "50", "shortfall": "30"}


async def test_an_overflow_comes_with_numbers() -> None:
    metadata = _info(await _provoked(ErrorReason.BALANCE_OVERFLOW, "AddCredits")).metadata
    assert metadata == {"balance": str(UINT32_MAX), "credits": "50"}


async def test_a_total_that_does_not_fit_comes_with_numbers() -> None:
    metadata = _info(await _provoked(ErrorReason.APP_TOTAL_OVERFLOW, "GetAppBalance")).metadata
    assert metadata == {"total": str(2 * UINT32_MAX)}


async def test_a_reused_key_names_the_fields_that_differ() -> None:
    async with _wire() as wire:
        request = CreditRequest(user_id=7, app_id=1, credits=50, created_by=9, idempotency_key="k")
        await wire.call("AddCredits", request)
        request.credits, request.created_by = 51, 10
        answer = await wire.call("AddCredits", request)
        assert _info(answer).metadata == {"fields": "credits,created_by"}
        assert answer.sentence == (
            "the idempotency key was used in this app for a request that differs"
            " in: credits, created_by; no change was made: use a new key for another request"
        )


async def test_a_key_of_another_call_is_named_as_such() -> None:
    for call in WRITES:
        fields = "credits" if call == "AddCredits" else "call"
        answer = await _provoked(ErrorReason.IDEMPOTENCY_KEY_REUSED, call)
        assert _info(answer).metadata == {"fields": fields}


async def test_denied_access_comes_with_its_own_metadata() -> None:
    for reason, metadata in (
        (ErrorReason.SCOPE_MISSING, {"scope": "credits:spend"}),
        (ErrorReason.APP_NOT_ALLOWED, {"app_id": "1"}),
        (ErrorReason.ACTOR_NOT_ALLOWED, {"created_by": "9"}),
    ):
        assert _info(await _provoked(reason, "UseCredits")).metadata == metadata


def test_the_wait_is_rounded_up_to_a_millisecond() -> None:
    error = NotAdmitted(Decision.RATE, "rate limit exceeded", retry_seconds=0.0001)
    details = _translated(error).details
    assert details is not None
    assert details[1].retry_delay.ToMilliseconds() == 1


async def test_every_broken_field_is_named_at_once() -> None:
    request = PurchaseRequest(report_name="x" * 257, idempotency_key="k" * 129)
    async with _wire() as wire:
        answer = await wire.call("UseCredits", request)
    broken = answer.details[1]
    assert isinstance(broken, BadRequest)
    fields = {entry.field: entry.description for entry in broken.field_violations}
    assert list(fields) == [
        "user_id",
        "app_id",
        "report_id",
        "report_name",
        "credits",
        "created_by",
        "idempotency_key",
    ]
    assert fields["user_id"] == "must be 1 to 4294967295, got 0"
    assert fields["report_name"] == "must be 1 to 256 characters, got 257"
    assert all(f"{name} {text}" in answer.sentence for name, text in fields.items())


async def test_an_explicit_user_of_zero_is_rejected_and_none_is_not() -> None:
    async with _wire() as wire:
        refused = await wire.call("GetAppBalance", AppId(app_id=1, user_id=0))
        assert refused.status is Status.INVALID_ARGUMENT
        assert (await wire.call("GetAppBalance", AppId(app_id=1))).status is Status.OK


async def test_reasons_come_in_their_order_of_precedence() -> None:
    """Walk the contract's table: everything is wrong at first, and each step fixes one thing."""
    request = PurchaseRequest(
        user_id=7, app_id=1, report_id="r", report_name="Report", credits=0, idempotency_key="k"
    )
    path = "/credit.v1.CreditService/UseCredits"
    nothing = replace(
        EVERYTHING, scopes=frozenset(), apps=frozenset({1}), actor=9, may_impersonate=False
    )
    tokens = FakeAuthenticator(
        {
            "boss": EVERYTHING,
            "eager": replace(nothing, name="eager"),
            "patient": replace(nothing, name="patient"),
            "tenant": replace(nothing, name="tenant", scopes=frozenset({"credits:spend"})),
        }
    )
    limits = AccessLimits(calls_per_second=0.001, calls_burst=6)
    async with (
        serving(authenticator=tokens, access_limits=limits) as served,
        Connection.connect(served.port) as wire,
    ):
        bearer = "boss"

        async def use() -> str:
            answer = await wire.call("UseCredits", request, ("authorization", f"Bearer {bearer}"))
            return "" if answer.status is Status.OK else _info(answer).reason

        add = request_of("AddCredits", idempotency_key="k")
        await wire.call("AddCredits", add, ("authorization", "Bearer boss"))
        for _ in range(6):  # all that this one may call for a long time
            bearer = "eager"
            assert await use() == "SCOPE_MISSING"

        malformed = framed(b"\xff")
        answer = await wire.request(call_headers(path, ("grpc-timeout", "soon")), malformed)
        assert (answer.status, answer.details) == (Status.INVALID_ARGUMENT, [])
        answer = await wire.request(call_headers(path), malformed)
        assert _info(answer).reason == "UNAUTHENTICATED"
        for token, reason in (("eager", "RATE_LIMITED"), ("patient", "SCOPE_MISSING")):
            headers = call_headers(path, ("authorization", f"Bearer {token}"))
            assert _info(await wire.request(headers, malformed)).reason == reason
        answer = await wire.request(
            call_headers(path, ("authorization", "Bearer tenant")), malformed
        )
        assert answer.status is Status.INTERNAL
        bearer, request.app_id = "tenant", 2
        assert await use() == "APP_NOT_ALLOWED"
        request.app_id = 1
        assert await use() == "ACTOR_NOT_ALLOWED"
        request.created_by = 9
        assert await use() == "INVALID_FIELD"
        request.credits = 51
        assert await use() == "IDEMPOTENCY_KEY_REUSED"
        bearer, request.idempotency_key = "boss", "another"
        assert await use() == "INSUFFICIENT_CREDITS"
        request.credits = 50
        assert await use() == ""


async def test_a_key_of_a_rejected_request_may_succeed_later() -> None:
    async with _wire() as wire:
        request = request_of("UseCredits", idempotency_key="k")
        assert (await wire.call("UseCredits", request)).status is Status.FAILED_PRECONDITION
        await wire.call("AddCredits", request_of("AddCredits"))
        assert (await wire.call("UseCredits", request)).message(Empty) == Empty()


async def test_reads_are_served_while_the_clocks_differ() -> None:
    async with open_wire(clock=skewed_clock()) as caller:
        for call, path in PATHS.items():
            if path not in SCOPED_BY_OPERATION:
                answer = await caller.call(call, request_of(call))
                # What the directory and webhooks store does not depend on the time.
                writes = path in WRITING and call not in TIMELESS
                served = Status.NOT_FOUND if call in ABSENT else Status.OK
                assert answer.status is (Status.UNAVAILABLE if writes else served)
    assert not any(ErrorReason.CLOCK_SKEWED in method_reasons()[PATHS[each]] for each in TIMELESS)


async def test_an_unavailable_store_does_not_end_the_connection() -> None:
    async with serving() as served, Connection.connect(served.port) as wire:
        await _provoked(ErrorReason.STORE_UNAVAILABLE, "AddCredits")
        await is_served(wire)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Overloaded(), ErrorReason.OVERLOADED),
        (Stopping(), ErrorReason.OVERLOADED),
        (ClockSkewed(skew_seconds=3, limit_seconds=2), ErrorReason.CLOCK_SKEWED),
        (NotCommitted(), ErrorReason.STORE_UNAVAILABLE),
        (ResultUnknown(), ErrorReason.STORE_UNAVAILABLE),
        (StoreUnavailable(), ErrorReason.STORE_UNAVAILABLE),
        (CommitUnknown(), ErrorReason.STORE_UNAVAILABLE),
        (IndexMissing(), ErrorReason.STORE_UNAVAILABLE),
        (Unreadable(), ErrorReason.DATA_UNREADABLE),
    ],
)
def test_only_a_write_without_an_effect_is_reported_as_no_change(
    error: CommitError | StoreError, reason: ErrorReason
) -> None:
    translated = _translated(error)
    assert translated.details is not None
    assert translated.details[0].reason == reason_name(reason)
    certain = isinstance(
        error, Overloaded | Stopping | ClockSkewed | NotCommitted | IndexMissing | Unreadable
    )
    assert ("no change was made" in str(translated.message)) is certain
    unknown = isinstance(error, ResultUnknown)
    assert ("may or may not have taken effect" in str(translated.message)) is unknown


@pytest.mark.parametrize(
    "error",
    [
        *(NotAdmitted(each, "the reason", retry_seconds=2) for each in Decision),
        IndexMissing(),
        StoreUnavailable(),
        Unreadable(),
        CutOff(),
    ],
    ids=repr,
)
def test_a_failed_read_says_nothing_of_changes(error: Exception) -> None:
    translated = errors.translate(error, write=False)
    assert translated is not None
    _says_nothing_of_changes(str(translated.message))


@pytest.mark.parametrize("decision", [one for one in Decision if one is not Decision.ADMIT])
def test_a_call_that_is_not_admitted_has_changed_nothing_and_may_be_retried(
    decision: Decision,
) -> None:
    error = _translated(NotAdmitted(decision, "the reason", retry_seconds=2))
    assert error.message == "the reason; no change was made"
    assert error.details is not None
    info, retry = error.details
    callers_own = decision in (Decision.RATE, Decision.RUNNING_CALLS)
    assert info.reason == ("RATE_LIMITED" if callers_own else "OVERLOADED")
    assert retry.retry_delay.ToMilliseconds() == 2000


def test_a_bug_has_no_status_and_a_status_is_returned_as_it_is() -> None:
    assert errors.translate(RuntimeError("internals"), write=True) is None
    status = GRPCError(Status.NOT_FOUND)
    assert errors.translate(status, write=True) is status


def test_a_call_that_is_cut_off_may_have_taken_effect() -> None:
    ended = _translated(CutOff())
    assert ended.status is Status.UNAVAILABLE
    assert ended.details is not None
    assert ended.details[0].reason == "STORE_UNAVAILABLE"
    assert "may or may not have taken effect" in str(ended.message)
    assert "no change was made" not in str(ended.message)


@pytest.mark.parametrize(
    "call", [call_with(path, ErrorReason.UNSPECIFIED) for path in method_reasons()]
)
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("internals at /var/lib"),
        ConnectionResetError("internals at /var/lib"),
        TimeoutError("internals at /var/lib"),
        KeyError("internals at /var/lib"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_bug_of_the_server_is_an_internal_error_and_nothing_else(
    call: str, error: Exception
) -> None:
    async with open_wire(FailingStore(error)) as caller:
        request = request_of(call.rpartition("/")[2])
        answer = await caller.call(call, request, ("grpc-timeout", "1H"))
        assert (answer.status, answer.sentence) == (Status.INTERNAL, "internal error")
        assert "internals" not in str(answer.metadata)
        assert answer.details == []
