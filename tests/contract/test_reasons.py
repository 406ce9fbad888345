"""Each documented error arrives over the wire as the SDK's own exception.

The cases come from the image, so the tests fail for a documented reason that no test causes. The
SDK reads errors in the same way for all calls of a kind. So these tests cause each reason on one
call of each kind, and tests/server/api/test_errors.py causes it on all calls.
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import betterproto2
import credit_client
import pytest
from contract_check.rules.errors import access_documented, documented
from credit_client.grpc_transport import GrpcTransport, connect
from credit_client.refusal import error_of, retry_after_seconds
from credit_client.target import Target
from credit_client.transport import AttemptFailed, Method
from credit_models import (
    BatchWriteRequest,
    ErrorReason,
    OperationOutcome,
    Receipt,
    WriteRequest,
)
from credit_models.codec import decode
from credit_models.reasons import ACCESS_REASONS, DOMAIN, RULES, reason_name
from credit_server.api.contract import CONTRACT
from credit_server.store.port import Store
from google.protobuf.descriptor import MethodDescriptor
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpclib.const import Status

from tests.contract.released_images import TODAY, model
from tests.server.operations import as_answer, operation
from tests.server.provocations import PROVOCATIONS, cases
from tests.server.requests import PATHS, request_of
from tests.server.serving import serving

PREFIX = "ERROR_REASON_"
WAIT_SECONDS = 60.0  # no call reaches it


class SdkCaller:
    """Makes calls with the SDK's transport but not the SDK's check of requests.

    A rejected call, or operation, raises AttemptFailed.
    """

    def __init__(self, transport: GrpcTransport) -> None:
        self._transport = transport

    # Any: the replies of all calls.
    async def call(self, call: str, request: betterproto2.Message) -> Any:
        """Make a call, and return its replies and its receipt; see `provocations.Caller`."""
        outer, _, inner = call.rpartition("/")
        if not outer:
            return await self._send(_method(inner), request)
        if outer == "Write":
            single = WriteRequest(correlation_id=1, operation=operation(request))
            (reply,), _ = await self._send(_method(outer), single)
            return _outcome(reply.outcome)
        return await self.aborted(BatchWriteRequest(operations=[operation(request)]))

    async def attempt(self, call: str, request: betterproto2.Message) -> None:
        """Make a call that may be rejected."""
        with contextlib.suppress(AttemptFailed):
            await self.call(call, request)

    async def aborted(self, request: BatchWriteRequest, index: int = 0) -> Any:
        """Make a batch, and raise the failure of one of its operations."""
        (reply,), _ = await self._send(_method("BatchWrite"), request)
        return _outcome(reply.outcomes[index])

    async def write(self, call: str, **changed: Any) -> Receipt:
        """Make a write that succeeds, and return its receipt."""
        (reply,), trailer = await self.call(call, request_of(call, **changed))
        if isinstance(trailer, bytes):
            return decode(Receipt, trailer)
        assert isinstance(reply.receipt, Receipt)
        return reply.receipt

    # Any: requests and replies of any call.
    async def _send(self, method: MethodDescriptor, request: Any) -> Any:
        way: Method[Any, Any] = Method(
            path=f"/{method.containing_service.full_name}/{method.name}",
            request_type=type(request),
            reply_type=model(method.output_type.full_name),
        )
        if method.server_streaming:
            found = self._transport.stream(way, request, request_id="r", metadata={})
            return [reply async for reply in found], None
        answer = await self._transport.unary(
            way,
            request,
            request_id="r",
            timeout_seconds=WAIT_SECONDS,
            metadata={},
            sending=lambda: None,
        )
        return [answer.reply], answer.receipt


def _method(call: str) -> MethodDescriptor:
    return TODAY.methods[PATHS[call].removeprefix("/").replace("/", ".")]


def _kind(call: str) -> str:
    outer, _, inner = call.rpartition("/")
    return outer or ("stream" if _method(inner).server_streaming else "unary")


CASES = [
    pytest.param(call, reason_name(reason), id=f"{call.replace('/', '-')}-{reason.name}")
    for call, reason in {(_kind(call), reason): (call, reason) for call, reason in cases()}.values()
]


def _outcome(outcome: OperationOutcome) -> OperationOutcome:
    """Return the outcome of an operation that succeeded; raise the failure of another."""
    if outcome.failure is not None:
        failure = as_answer(outcome)
        raise AttemptFailed(Status(outcome.failure.code), failure.sentence, details=failure.details)
    return outcome


# Any: the options of `serving`.
@asynccontextmanager
async def _open(*store: Store, **options: Any) -> AsyncIterator[SdkCaller]:
    async with serving(*store, **options) as served:
        transport = connect(Target.parse(f"127.0.0.1:{served.port}"), channels=1)
        try:
            yield SdkCaller(transport)
        finally:
            await transport.close()


async def _failure(call: str, reason: str) -> AttemptFailed:
    provoke = {reason_name(each): found for each, found in PROVOCATIONS.items()}.get(reason)
    assert provoke is not None, f"{call} documents {reason}, and nothing here provokes it"
    with pytest.raises(AttemptFailed) as caught:
        await provoke(_open, call)
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


def test_every_reason_of_every_call_is_provoked() -> None:
    unmet = {"APP_NOT_ALLOWED": "app_id", "ACTOR_NOT_ALLOWED": "created_by"}
    expected = {
        (method.name, name)
        for method in TODAY.methods.values()
        for reason in (
            *access_documented(TODAY, method.containing_service),
            *documented(TODAY, method),
        )
        if (name := reason.removeprefix(PREFIX)) not in unmet
        or method.name in {"BatchWrite", "Write"}
        or (
            unmet[name] in method.input_type.fields_by_name
            # A read acts in no name: there the field is a filter.
            and (name == "APP_NOT_ALLOWED" or PATHS[method.name] in CONTRACT.writes)
        )
    }
    walked = {(call.partition("/")[0], reason_name(reason)) for call, reason in cases()}
    assert walked == expected


def test_every_reason_is_provoked() -> None:
    assert {case.values[1] for case in CASES} == {reason_name(reason) for reason in RULES}


@pytest.mark.parametrize(("call", "reason"), CASES)
async def test_a_documented_error_arrives_as_defined_and_becomes_the_sdks_exception(
    call: str, reason: str
) -> None:
    failure = await _failure(call, reason)
    _check_form(failure, reason)
    error = error_of(failure, request_id="r")
    # "INSUFFICIENT_CREDITS" is raised as `InsufficientCredits`.
    assert type(error).__name__ == "".join(word.capitalize() for word in reason.split("_"))
    assert isinstance(error, getattr(credit_client, type(error).__name__))
    assert error.reason is not None
    assert reason_name(error.reason) == reason
    assert error.status is RULES[error.reason].status
    assert error.message


def _check_form(failure: AttemptFailed, reason: str) -> None:
    """Check the status and the details of an error against the image."""
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


def test_each_reason_has_an_exception_of_its_own() -> None:
    exceptions = {
        getattr(found, "reason", None)
        for found in vars(credit_client).values()
        if isinstance(found, type) and issubclass(found, credit_client.CreditError)
    } - {None}
    assert exceptions == set(RULES) == set(ErrorReason) - {ErrorReason.UNSPECIFIED}


async def test_a_documented_error_that_no_test_provokes_would_fail() -> None:
    with pytest.raises(AssertionError, match="documents FROZEN, and nothing here provokes it"):
        await _failure("AddCredits", "FROZEN")


async def test_a_documented_error_that_never_occurs_would_fail() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        await _failure("GetUserCredits", "APP_TOTAL_OVERFLOW")
