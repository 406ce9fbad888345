"""Each documented error of each call arrives over the wire as the SDK's own exception.

The cases come from the image: a documented reason that no test provokes fails.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import credit_client
import pytest
from contract_check.rules.errors import access_documented, documented
from credit_client.grpc_transport import GrpcTransport, connect
from credit_client.refusal import error_of, retry_after_seconds
from credit_client.target import Target
from credit_client.transport import AttemptFailed, Method
from credit_models import (
    AppId,
    BatchWriteRequest,
    CreditRequest,
    ErrorReason,
    Operation,
    PurchaseRequest,
    UserId,
    WriteRequest,
)
from credit_models.reasons import ACCESS_REASONS, DOMAIN, RULES, reason_name
from credit_server.access import Authenticator, Credentials, Identity
from credit_server.access.authorize import AccessLimits
from credit_server.access.identity import AddLimits
from credit_server.commit import Clock, CommitLimits
from credit_server.grpc.handler import CallLimits
from credit_server.store.port import Store, StoreUnavailable
from credit_testing.stores import FailingStore, HeldStore, full_store
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpclib.const import Status

from tests.contract.released_images import TODAY, model
from tests.server.clocks import skewed_clock
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.operations import as_answer, operation
from tests.server.serving import serving

MOST = 2**32 - 1
SERVICE = "credit.v1.CreditService"
LEDGER = "credit.v1.LedgerService"
PREFIX = "ERROR_REASON_"


def _can_be_met(method: MethodDescriptor, reason: str) -> bool:
    """Return whether a request of the call has the field that the reason is about."""
    if _has_operations(method):
        return True
    about = {"APP_NOT_ALLOWED": "app_id", "ACTOR_NOT_ALLOWED": "created_by"}
    field = about.get(reason.removeprefix(PREFIX))
    return field is None or field in method.input_type.fields_by_name


def _has_operations(method: MethodDescriptor) -> bool:
    return method.containing_service.full_name == LEDGER


def _case(method: MethodDescriptor, reason: str) -> str:
    """Return the name of a call; of one with operations also that of its operation's call."""
    if not _has_operations(method):
        return method.full_name
    spends = reason == f"{PREFIX}INSUFFICIENT_CREDITS"
    return f"{method.full_name}/{SERVICE}.{'UseCredits' if spends else 'AddCredits'}"


CASES = [
    pytest.param(_case(method, reason), reason.removeprefix(PREFIX), id=f"{method.name}-{reason}")
    for method in TODAY.methods.values()
    for reason in (*access_documented(TODAY, method.containing_service), *documented(TODAY, method))
    if _can_be_met(method, reason)
]
REQUESTS = {
    "CreditRequest": CreditRequest(user_id=7, app_id=1, credits=50, created_by=9),
    "PurchaseRequest": PurchaseRequest(
        user_id=7, app_id=1, report_id="r", report_name="Report", credits=50, created_by=9
    ),
    "UserId": UserId(user_id=7),
    "AppId": AppId(app_id=1),
}
WAIT_SECONDS = 60.0  # no call reaches it


class Caller:
    """A caller that uses the SDK's transport but not the SDK's check of requests."""

    def __init__(self, transport: GrpcTransport) -> None:
        self._transport = transport

    async def call(self, call: str, **changed: object) -> None:
        """Make a call with a valid request in which some fields are changed.

        Args:
            call: The name of the call. `A/B` is the call A with one operation, which stands for B.
            changed: The fields.

        Raises:
            AttemptFailed: The server rejected the call or its operation.
        """
        outer, _, inner = call.rpartition("/")
        method = TODAY.methods[inner]
        # Any: the classes are looked up by name.
        sound: Any = REQUESTS[method.input_type.name]
        fields = {
            field.name: getattr(sound, field.name) for field in method.input_type.fields
        } | changed
        request = type(sound)(**fields)
        if outer:
            await self.operations(outer, operation(request))
        else:
            await self._send(method, request)

    async def operations(self, call: str, *operations: Operation, atomic: bool = False) -> None:
        """Make a call with operations.

        Raises:
            AttemptFailed: The server rejected the call or its first operation.
        """
        method = TODAY.methods[call]
        if method.client_streaming:
            (first,) = operations
            replies = await self._send(method, WriteRequest(correlation_id=1, operation=first))
            outcome = replies[0].outcome
        else:
            batch = BatchWriteRequest(operations=list(operations), atomic=atomic)
            outcome = (await self._send(method, batch))[0].outcomes[0]
        if outcome.failure is not None:
            failure = as_answer(outcome)
            raise AttemptFailed(
                Status(outcome.failure.code), failure.sentence, details=failure.details
            )

    # Any: requests and replies of any call.
    async def _send(self, method: MethodDescriptor, request: Any) -> list[Any]:
        way: Method[Any, Any] = Method(
            path=f"/{method.containing_service.full_name}/{method.name}",
            request_type=type(request),
            reply_type=model(method.output_type.full_name),
        )
        if method.server_streaming:
            found = self._transport.stream(way, request, request_id="r", metadata={})
            return [reply async for reply in found]
        answer = await self._transport.unary(
            way,
            request,
            request_id="r",
            timeout_seconds=WAIT_SECONDS,
            metadata={},
            sending=lambda: None,
        )
        return [answer.reply]

    async def add(self, amount: int, **changed: object) -> None:
        """Add credits to user 7 in app 1."""
        await self.call(f"{SERVICE}.AddCredits", credits=amount, **changed)


@asynccontextmanager
async def _caller(
    store: Store | None = None,
    limits: CommitLimits | None = None,
    authenticator: Authenticator | None = None,
    access_limits: AccessLimits | None = None,
    clock: Clock | None = None,
    call_limits: CallLimits | None = None,
) -> AsyncIterator[Caller]:
    async with serving(
        store,
        limits=limits,
        authenticator=authenticator,
        access_limits=access_limits,
        clock=clock,
        call_limits=call_limits,
    ) as served:
        transport = connect(Target.parse(f"127.0.0.1:{served.port}"), channels=1)
        try:
            yield Caller(transport)
        finally:
            await transport.close()


def _request_of(call: str) -> Descriptor:
    return TODAY.methods[call.rpartition("/")[2]].input_type


async def _invalid_field(call: str) -> None:
    async with _caller() as caller:
        fields = [field.name for field in _request_of(call).fields]
        await caller.call(call, **{"app_id" if fields[0] == "app_id" else "user_id": 0})


async def _key_reused(call: str) -> None:
    async with _caller() as caller:
        await caller.add(50, idempotency_key="k")
        await caller.call(call, credits=51, idempotency_key="k")


async def _insufficient_credits(call: str) -> None:
    async with _caller() as caller:
        await caller.add(20)
        await caller.call(call, credits=50)


async def _credits_limit_exceeded(call: str) -> None:
    limited = replace(EVERYTHING, add_limits=AddLimits(by_app={1: 49}))
    async with _caller(authenticator=_EveryoneAs(limited)) as caller:
        await caller.call(call)


async def _balance_overflow(call: str) -> None:
    async with _caller() as caller:
        await caller.add(MOST)
        await caller.call(call, credits=1)


async def _app_total_overflow(call: str) -> None:
    async with _caller() as caller:
        await caller.add(MOST)
        await caller.add(1, user_id=8)
        await caller.call(call)


async def _too_many_apps(call: str) -> None:
    async with _caller(await full_store()) as caller:
        await caller.call(call)


async def _batch_aborted(call: str) -> None:
    async with _caller() as caller:
        requests = REQUESTS["CreditRequest"], REQUESTS["PurchaseRequest"]
        operations = [operation(request) for request in (*requests, requests[1])]
        await caller.operations(call.partition("/")[0], *operations, atomic=True)


async def _overloaded(call: str) -> None:
    if TODAY.methods[call.partition("/")[0]].GetOptions().idempotency_level:
        # Reads do not queue: the server rejects those beyond the calls that it may run.
        store = HeldStore()
        limits = CallLimits(message_bytes_max=4096, calls_max=1)
        async with _caller(store, call_limits=limits) as caller:
            running = asyncio.create_task(caller.add(1))
            await store.entered.wait()
            try:
                await caller.call(call)
            finally:
                store.released.set()
                await running
        return
    store = HeldStore()
    async with _caller(store, CommitLimits(shards=1, waiting_max=2)) as caller:
        first = asyncio.create_task(caller.add(1))
        await store.entered.wait()
        # One call is being written and one is queued. The third may reach the server before the
        # second: the last to arrive is rejected at once, while the others wait for the store.
        second = asyncio.create_task(caller.call(call))
        third = asyncio.create_task(caller.call(call))
        done, _ = await asyncio.wait({second, third}, return_when=asyncio.FIRST_COMPLETED)
        store.released.set()
        (refused,) = done
        await first
        try:
            await refused
        finally:
            await asyncio.gather(second, third, return_exceptions=True)


async def _clock_skewed(call: str) -> None:
    async with _caller(clock=skewed_clock()) as caller:
        await caller.call(call)


async def _store_unavailable(call: str) -> None:
    async with _caller(FailingStore(StoreUnavailable("away"))) as caller:
        await caller.call(call)


class _EveryoneAs:
    """Authenticates every call as one identity."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def authenticate(self, credentials: Credentials) -> Identity:
        return self._identity

    def recognize(self, credentials: Credentials) -> Identity:
        return self._identity


async def _unauthenticated(call: str) -> None:
    async with _caller(authenticator=FakeAuthenticator({})) as caller:
        await caller.call(call)


async def _rate_limited(call: str) -> None:
    limits = AccessLimits(calls_per_second=0.5, calls_burst=1)
    async with _caller(authenticator=_EveryoneAs(EVERYTHING), access_limits=limits) as caller:
        with contextlib.suppress(AttemptFailed):  # the user has too few credits
            await caller.call(call)
        await caller.call(call)


async def _scope_missing(call: str) -> None:
    async with _caller(
        authenticator=_EveryoneAs(replace(EVERYTHING, scopes=frozenset()))
    ) as caller:
        await caller.call(call)


async def _app_not_allowed(call: str) -> None:
    elsewhere = replace(EVERYTHING, apps=frozenset({2}))
    async with _caller(authenticator=_EveryoneAs(elsewhere)) as caller:
        await caller.call(call)


async def _actor_not_allowed(call: str) -> None:
    other = replace(EVERYTHING, actor=8, may_impersonate=False)
    async with _caller(authenticator=_EveryoneAs(other)) as caller:
        await caller.call(call)


PROVOCATIONS: Mapping[str, Callable[[str], Awaitable[None]]] = {
    "INVALID_FIELD": _invalid_field,
    "IDEMPOTENCY_KEY_REUSED": _key_reused,
    "CREDITS_LIMIT_EXCEEDED": _credits_limit_exceeded,
    "INSUFFICIENT_CREDITS": _insufficient_credits,
    "BALANCE_OVERFLOW": _balance_overflow,
    "APP_TOTAL_OVERFLOW": _app_total_overflow,
    "BATCH_ABORTED": _batch_aborted,
    "OVERLOADED": _overloaded,
    "TOO_MANY_APPS": _too_many_apps,
    "CLOCK_SKEWED": _clock_skewed,
    "STORE_UNAVAILABLE": _store_unavailable,
    "UNAUTHENTICATED": _unauthenticated,
    "RATE_LIMITED": _rate_limited,
    "SCOPE_MISSING": _scope_missing,
    "APP_NOT_ALLOWED": _app_not_allowed,
    "ACTOR_NOT_ALLOWED": _actor_not_allowed,
}


async def _failure(call: str, reason: str) -> AttemptFailed:
    provoke = PROVOCATIONS.get(reason)
    assert provoke is not None, f"{call} documents {reason}, and nothing here provokes it"
    with pytest.raises(AttemptFailed) as caught:
        await provoke(call)
    return caught.value


def test_every_reason_is_documented_for_a_call() -> None:
    values = TODAY.enums["credit.v1.ErrorReason"].values
    named = {value.name for value in values if value.number}
    calls = {reason for method in TODAY.methods.values() for reason in documented(TODAY, method)}
    access = {
        reason
        for service in TODAY.services.values()
        for reason in access_documented(TODAY, service)
    }
    assert named == calls | access
    assert {ErrorReason[reason.removeprefix(PREFIX)] for reason in access} == set(ACCESS_REASONS)


def test_every_reason_is_provoked() -> None:
    assert {case.values[1] for case in CASES} == {reason_name(reason) for reason in RULES}


@pytest.mark.parametrize(("call", "reason"), CASES)
async def test_a_documented_error_arrives_with_its_status_and_details(
    call: str, reason: str
) -> None:
    failure = await _failure(call, reason)
    value = TODAY.enums["credit.v1.ErrorReason"].values_by_name[PREFIX + reason]
    rule = TODAY.option(value, "credit.options.v1.error")
    assert failure.status is Status(rule.status)
    info, *others = failure.details
    assert isinstance(info, ErrorInfo)
    assert (info.domain, info.reason) == (DOMAIN, reason)
    assert set(info.metadata) == set(rule.metadata)
    assert all(info.metadata.values())
    assert [type(detail).__name__ for detail in others] == list(rule.details)
    assert all(detail.field_violations for detail in others if isinstance(detail, BadRequest))
    assert (retry_after_seconds(failure) > 0) is rule.retryable


@pytest.mark.parametrize(("call", "reason"), CASES)
async def test_a_documented_error_becomes_the_sdks_exception(call: str, reason: str) -> None:
    error = error_of(await _failure(call, reason), request_id="r")
    # "INSUFFICIENT_CREDITS" is raised as `InsufficientCredits`.
    assert type(error).__name__ == "".join(word.capitalize() for word in reason.split("_"))
    assert isinstance(error, getattr(credit_client, type(error).__name__))
    assert error.reason is not None
    assert reason_name(error.reason) == reason
    assert error.status is RULES[error.reason].status
    assert error.message


def test_each_reason_has_an_exception_of_its_own() -> None:
    exceptions = {
        getattr(found, "reason", None)
        for found in vars(credit_client).values()
        if isinstance(found, type) and issubclass(found, credit_client.CreditError)
    } - {None}
    assert exceptions == set(RULES) == set(ErrorReason) - {ErrorReason.UNSPECIFIED}


async def test_a_documented_error_that_no_test_provokes_would_fail() -> None:
    with pytest.raises(AssertionError, match="documents FROZEN, and nothing here provokes it"):
        await _failure(f"{SERVICE}.AddCredits", "FROZEN")


async def test_a_documented_error_that_never_occurs_would_fail() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        await _failure(f"{SERVICE}.GetUserCredits", "APP_TOTAL_OVERFLOW")
