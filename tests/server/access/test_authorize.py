"""Which calls are allowed: every call, with each thing that may be wrong about its caller."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import betterproto2
import pytest
from credit_models import (
    AppId,
    CreditRequest,
    CreditTransaction,
    PurchaseRequest,
    ResendDeadLettersRequest,
    TransferCreditsRequest,
    UserId,
)
from credit_models.codec import encode
from credit_models.scopes import METHOD_SCOPES, SCOPES
from credit_server.access import Credentials, Identity
from credit_server.access.audit import AuditLog, Line
from credit_server.access.authorize import Access, AccessLimits, identity_of
from credit_server.access.identity import Caller
from credit_server.api.contract import CONTRACT
from credit_server.grpc.handler import CallLimits
from credit_server.grpc.request import RequestHead
from credit_server.grpc.server import GrpcServer
from credit_server.log import TASK_FIELDS
from credit_server.store.memory import MemoryStore
from credit_testing.calls import SERVICE, Answer, call_headers, framed
from credit_testing.frames import ErrorCode
from credit_testing.http2_client import Connection
from credit_testing.stores import HeldStore
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpclib import const
from grpclib.const import Status
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest

from tests.server.callers import WireCaller
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.requests import prepared
from tests.server.serving import Serving, serving, until

TENANT = Identity(
    name="tenant",
    scopes=frozenset({"credits:issue", "credits:spend", "credits:read"}),
    apps=frozenset({1}),
    actor=9,
    may_impersonate=False,
)
TOKENS = {
    "tenant": TENANT,
    "other app": replace(TENANT, name="other app", apps=frozenset({2, 3})),
    "no app": replace(TENANT, name="no app", apps=frozenset()),
    "no scope": replace(TENANT, name="no scope", scopes=frozenset()),
    "other actor": replace(TENANT, name="other actor", actor=8),
    "no actor": replace(TENANT, name="no actor", actor=None),
    "impersonator": replace(TENANT, name="impersonator", actor=8, may_impersonate=True),
    "admin": replace(EVERYTHING, scopes=frozenset({"credits:admin"})),
    "everything": EVERYTHING,
} | {scope: replace(TENANT, name=scope, scopes=frozenset({scope})) for scope in SCOPES}
REQUESTS: dict[str, betterproto2.Message] = {
    "AddCredits": CreditRequest(user_id=7, app_id=1, credits=50, created_by=9),
    "UseCredits": PurchaseRequest(
        user_id=7, app_id=1, report_id="r", report_name="R", credits=1, created_by=9
    ),
    "GetUserCredits": UserId(user_id=7),
    "GetAppBalance": AppId(app_id=1),
    "ListUserPurchases": UserId(user_id=7),
    "ListUserTransactions": UserId(user_id=7),
}
NO_AUDIT = AuditLog(None, translate=CONTRACT.translate)
WRITES = frozenset({"AddCredits", "UseCredits"})
NAMES_AN_APP = WRITES | {"GetAppBalance"}
DENIED, UNKNOWN = Status.PERMISSION_DENIED, Status.UNAUTHENTICATED
CALLERS: dict[str | None, tuple[frozenset[str], Status, str]] = {
    # token: which calls are refused, and with what
    None: (frozenset(REQUESTS), UNKNOWN, "UNAUTHENTICATED"),
    "forged": (frozenset(REQUESTS), UNKNOWN, "UNAUTHENTICATED"),
    "no scope": (frozenset(REQUESTS), DENIED, "SCOPE_MISSING"),
    "admin": (frozenset(REQUESTS), DENIED, "SCOPE_MISSING"),
    "other app": (NAMES_AN_APP, DENIED, "APP_NOT_ALLOWED"),
    "no app": (NAMES_AN_APP, DENIED, "APP_NOT_ALLOWED"),
    "other actor": (WRITES, DENIED, "ACTOR_NOT_ALLOWED"),
    "no actor": (WRITES, DENIED, "ACTOR_NOT_ALLOWED"),
    "impersonator": (frozenset(), Status.OK, ""),
    "tenant": (frozenset(), Status.OK, ""),
    "everything": (frozenset(), Status.OK, ""),
}
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo"


def token(name: str) -> tuple[str, str]:
    return "authorization", f"Bearer {name}"


def reason(answer: Answer) -> str:
    if answer.status is Status.OK:
        return ""
    info = answer.details[0]
    assert isinstance(info, ErrorInfo)
    return str(info.reason)


class Clock:
    """Return the time that a test has set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def guarded(limits: AccessLimits | None = None) -> AsyncIterator[Connection]:
    """A connection to a server that knows the tokens."""
    async with (
        serving(authenticator=FakeAuthenticator(TOKENS), access_limits=limits) as served,
        Connection.connect(served.port) as wire,
    ):
        yield wire


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("caller", CALLERS)
async def test_the_table_decides_which_caller_may_make_which_call(
    caller: str | None, method: str
) -> None:
    refused, status, why = CALLERS[caller]
    async with guarded() as wire:
        funds = await wire.call("AddCredits", REQUESTS["AddCredits"], token("everything"))
        assert funds.status is Status.OK
        more = () if caller is None else (token(caller),)
        answer = await wire.call(method, REQUESTS[method], *more)
        expected = (status, why) if method in refused else (Status.OK, "")
        assert (answer.status, reason(answer)) == expected
        # What was refused has had no effect.
        history = await wire.call("ListUserTransactions", UserId(user_id=7), token("everything"))
        happened = method in WRITES and not reason(answer)
        assert len(history.messages(CreditTransaction)) == 1 + happened


async def test_the_log_lines_of_a_call_have_its_identity_beside_its_request_id() -> None:
    found: list[Mapping[str, object]] = []

    class Noting(MemoryStore):
        async def app_total(self, app_id: int) -> int:
            found.append(TASK_FIELDS.get())
            return 0

    async with (
        serving(Noting(), authenticator=FakeAuthenticator(TOKENS)) as served,
        Connection.connect(served.port) as wire,
    ):
        await wire.call("GetAppBalance", AppId(app_id=1), token("tenant"), ("x-request-id", "mine"))
    assert found == [{"request_id": "mine", "identity": "tenant"}]


@pytest.mark.parametrize("path", METHOD_SCOPES)
async def test_a_call_takes_its_own_scope_and_no_other(path: str) -> None:
    async with guarded() as wire:
        request = await prepared(WireCaller(wire, "everything"), path.rpartition("/")[2])
        if isinstance(request, TransferCreditsRequest):  # the identities have one app
            request.to_user_id, request.to_app_id = 8, None
        if isinstance(request, ResendDeadLettersRequest):  # the app has none that could be named
            request.dead_letter_id = ""
        for scope in SCOPES:
            answer = await wire.call(path, request, token(scope))
            assert (reason(answer) == "") is (scope == METHOD_SCOPES[path])


@pytest.mark.parametrize("second", ["tenant", "everything", "forged"])
async def test_two_tokens_prove_nothing(second: str) -> None:
    async with guarded() as wire:
        for tokens in ((token("tenant"), token(second)), (token(second), token("tenant"))):
            answer = await wire.call("GetUserCredits", UserId(user_id=7), *tokens)
            assert reason(answer) == "UNAUTHENTICATED"


async def test_a_client_without_an_identity_learns_nothing_of_what_is_served() -> None:
    async with guarded() as wire:
        for path in (SERVICE + "AddCredits", SERVICE + "StealCredits", "/x", "/"):
            assert reason(await wire.call(path, UserId(user_id=7))) == "UNAUTHENTICATED"
        known = await wire.call("/x", UserId(user_id=7), token("no scope"))
        assert (known.status, known.details) == (Status.UNIMPLEMENTED, [])


async def test_health_needs_no_identity() -> None:
    async with guarded(AccessLimits(failures_per_second=0.001, failures_burst=1)) as wire:
        await wire.call("GetUserCredits", UserId(user_id=7))
        for more in ((), (token("forged"),)):
            answer = await wire.call(HEALTH, HealthCheckRequest(), *more)
            assert answer.message(HealthCheckResponse).status == HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_is_for_operators(version: str) -> None:
    request = ServerReflectionRequest(list_services="")
    path = REFLECTION.format(version)
    async with guarded() as wire:
        assert reason(await wire.call(path, request)) == "UNAUTHENTICATED"
        assert reason(await wire.call(path, request, token("tenant"))) == "SCOPE_MISSING"
        assert (await wire.call(path, request, token("admin"))).status is Status.OK


async def test_without_identities_every_call_is_allowed() -> None:
    async with serving() as served, Connection.connect(served.port) as wire:
        for more in ((), (token("forged"),)):
            assert (
                await wire.call("AddCredits", REQUESTS["AddCredits"], *more)
            ).status is Status.OK
        assert (await wire.call("/x", UserId(user_id=7))).status is Status.UNIMPLEMENTED


class Unscoped:
    """A service without a rule."""

    def __mapping__(self) -> dict[str, const.Handler]:
        async def serve(stream: Any) -> None:  # Any: grpclib's own, of any messages
            raise AssertionError("it must never be served")

        handler = const.Handler(serve, const.Cardinality.UNARY_UNARY, UserId, UserId)
        return {"/credit.v1.Backdoor/Open": handler}


@pytest.mark.parametrize("authenticator", [None, FakeAuthenticator({})], ids=["open", "guarded"])
async def test_a_service_without_a_rule_is_not_served_at_all(
    authenticator: FakeAuthenticator | None,
) -> None:
    access = Access(authenticator, audit=NO_AUDIT)
    with pytest.raises(LookupError, match=r"who may call /credit\.v1\.Backdoor/Open"):
        GrpcServer(
            [Unscoped()],
            limits=CallLimits(message_bytes_max=1024),
            access=access,
            contract=CONTRACT,
        )


async def test_each_identity_has_a_rate_of_its_own() -> None:
    limits = AccessLimits(calls_per_second=0.01, calls_burst=2)
    async with guarded(limits) as wire:
        answers = [
            await wire.call("GetUserCredits", UserId(user_id=7), token("tenant")) for _ in range(4)
        ]
        assert [reason(answer) for answer in answers] == ["", "", "RATE_LIMITED", "RATE_LIMITED"]
        retry = answers[-1].details[1]
        assert isinstance(retry, RetryInfo)
        assert 90_000 < retry.retry_delay.ToMilliseconds() <= 100_000
        other = await wire.call("GetUserCredits", UserId(user_id=7), token("other app"))
        assert other.status is Status.OK


async def test_slow_calls_of_one_identity_leave_room_for_the_others() -> None:
    store = HeldStore()
    write = REQUESTS["AddCredits"]
    async with (
        serving(
            store,
            authenticator=FakeAuthenticator(TOKENS),
            access_limits=AccessLimits(calls_running_max=2),
        ) as served,
        Connection.connect(served.port) as wire,
        Connection.connect(served.port) as another,
    ):
        slow = [
            asyncio.create_task(wire.call("AddCredits", write, token("tenant"))) for _ in range(2)
        ]
        await store.entered.wait()
        await until(lambda: running(served)["identity tenant"] == 2)
        refused = await another.call("GetUserCredits", UserId(user_id=7), token("tenant"))
        assert reason(refused) == "RATE_LIMITED"
        assert isinstance(refused.details[1], RetryInfo)
        other = await another.call("GetUserCredits", UserId(user_id=7), token("other app"))
        assert other.status is Status.OK
        store.released.set()
        assert [(await call).status for call in slow] == [Status.OK] * 2
        again = await another.call("GetUserCredits", UserId(user_id=7), token("tenant"))
        assert again.status is Status.OK


@pytest.mark.parametrize("authenticator", [None, FakeAuthenticator({})], ids=["open", "guarded"])
async def test_health_watches_of_one_address_are_limited(
    authenticator: FakeAuthenticator | None,
) -> None:
    async with (
        serving(
            authenticator=authenticator, access_limits=AccessLimits(calls_running_max=2)
        ) as served,
        Connection.connect(served.port) as wire,
    ):
        watch = call_headers("/grpc.health.v1.Health/Watch")
        watches = [wire.begin(watch, framed(b"")) for _ in range(2)]
        for _, answer in watches:
            await answer.begun()
        assert reason(await wire.call(HEALTH, HealthCheckRequest())) == "RATE_LIMITED"
        assert (await wire.call(HEALTH, HealthCheckRequest())).status is Status.RESOURCE_EXHAUSTED
        stream_id, _ = watches[0]
        wire.reset(stream_id)
        await until(lambda: sum(running(served).values()) == 1)
        assert (await wire.call(HEALTH, HealthCheckRequest())).status is Status.OK


@pytest.mark.parametrize("caller", CALLERS)
async def test_every_admitted_call_is_counted_out(caller: str | None) -> None:
    async with (
        serving(authenticator=FakeAuthenticator(TOKENS)) as served,
        Connection.connect(served.port) as wire,
    ):
        headers = [] if caller is None else [token(caller)]
        for method in (*REQUESTS, "Nonsense"):
            await wire.call(method, REQUESTS.get(method, UserId(user_id=0)), *headers)
        await served.wait_quiet()
        assert not running(served)


async def test_clients_without_an_identity_that_do_not_read_occupy_nothing() -> None:
    async with (
        serving(authenticator=FakeAuthenticator(TOKENS)) as served,
        Connection.connect(served.port) as wire,
    ):
        await wire.in_order()
        (member,) = served.server._protocols
        member.connection.pause_writing()
        user = framed(encode(UserId(user_id=7)))
        headers = call_headers(SERVICE + "GetUserCredits")
        strange = [
            wire.begin(headers, user)[1],
            wire.begin([*headers, token("forged")], user)[1],
            wire.begin([*headers, ("grpc-timeout", "x")], user)[1],
            wire.begin([(":method", "GET"), *headers[1:]], user)[1],
        ]
        await wire.in_order()
        await served.wait_quiet()
        await wire.in_order()
        assert [answer.reset for answer in strange] == [ErrorCode.ENHANCE_YOUR_CALM] * 4


async def test_calls_whose_answers_wait_for_their_client_still_count_as_the_identitys() -> None:
    async with (
        serving(authenticator=FakeAuthenticator(TOKENS)) as served,
        Connection.connect(served.port) as wire,
    ):
        await wire.in_order()
        (member,) = served.server._protocols
        member.connection.pause_writing()
        headers = call_headers(SERVICE + "GetUserCredits", token("tenant"))
        _, answer = wire.begin(headers, framed(b""))  # invalid
        await wire.in_order()
        assert running(served) == {"identity tenant": 1}
        member.connection.resume_writing()
        assert (await wire.ended(answer)).status is Status.INVALID_ARGUMENT
        assert not running(served)


def running(served: Serving) -> Counter[str]:
    """Return the running calls by caller."""
    access = served.server._serving.access
    assert isinstance(access, Access)
    return access._running._running


class FakeCall:
    """The parts of a call that access reads."""

    def __init__(self, host: str = "192.0.2.1", path: str = SERVICE + "GetUserCredits") -> None:
        self.request = RequestHead([], {}, path, "r", "")
        self.peer = SimpleNamespace(address=host, name=f"{host}:50000")
        self.certificate = {"subject": ((("commonName", "shop"),),)}
        self.caller: Caller | None = None


def admitted(access: Access, call: Any, authorization: str | None) -> str:
    """Return why a call was not admitted; empty if it was."""
    fields = {} if authorization is None else {"authorization": authorization}
    call.request = replace(call.request, fields=fields)
    try:
        call.caller = access.admit(call)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must be what is expected
        details: Any = getattr(CONTRACT.translate(error, write=True), "details", None)
        return str(details[0].reason)
    return ""


def test_an_address_that_fails_too_often_is_rejected_unexamined_until_the_time_is_over() -> None:
    clock, tokens = Clock(), FakeAuthenticator(TOKENS)
    limits = AccessLimits(failures_per_second=2, failures_burst=3)
    access = Access(tokens, audit=NO_AUDIT, limits=limits, clock=clock)
    refusals = [admitted(access, FakeCall(), "Bearer guess") for _ in range(5)]
    assert refusals == ["UNAUTHENTICATED"] * 3 + ["RATE_LIMITED"] * 2
    assert tokens.asked == 3
    assert admitted(access, FakeCall("192.0.2.2"), "Bearer guess") == "UNAUTHENTICATED"
    clock.now += 0.5
    assert admitted(access, FakeCall(), "Bearer tenant") == ""


def test_a_known_caller_is_admitted_despite_failures_from_its_address() -> None:
    tokens = FakeAuthenticator(TOKENS)
    limits = AccessLimits(failures_per_second=0.001, failures_burst=1)
    access = Access(tokens, audit=NO_AUDIT, limits=limits, clock=Clock())
    known = FakeCall()
    assert admitted(access, known, "Bearer tenant") == ""
    assert admitted(access, FakeCall(), "Bearer guess") == "UNAUTHENTICATED"
    asked = tokens.asked
    assert admitted(access, FakeCall(), "Bearer guess") == "RATE_LIMITED"
    assert admitted(access, FakeCall(), "Bearer other app") == "RATE_LIMITED", "not known yet"
    again = FakeCall()
    assert admitted(access, again, "Bearer tenant") == ""
    assert again.caller == known.caller
    assert identity_of(cast(Any, again)) is TENANT
    assert tokens.asked == asked


def test_a_flood_of_calls_is_no_flood_of_audit_lines() -> None:
    clock, lines = Clock(), list[Line]()
    limits = AccessLimits(
        calls_per_second=0.01, calls_burst=1, failures_per_second=0.01, failures_burst=2
    )
    tokens = FakeAuthenticator(TOKENS)
    access = Access(
        tokens,
        audit=AuditLog(lines.append, translate=CONTRACT.translate),
        limits=limits,
        clock=clock,
    )
    admitted(access, FakeCall("192.0.2.9"), "Bearer tenant")
    for _ in range(100):
        admitted(access, FakeCall("192.0.2.1"), "Bearer guess")
        admitted(access, FakeCall("192.0.2.2"), "Bearer guess")
        admitted(access, FakeCall("192.0.2.9"), "Bearer tenant")
    counts = Counter((line["peer"], line["reason"]) for line in lines)
    assert counts == {
        ("192.0.2.1:50000", "UNAUTHENTICATED"): 2,
        ("192.0.2.1:50000", "RATE_LIMITED"): 1,
        ("192.0.2.2:50000", "UNAUTHENTICATED"): 2,
        ("192.0.2.2:50000", "RATE_LIMITED"): 1,
        ("192.0.2.9:50000", "RATE_LIMITED"): 1,
    }
    clock.now += 1
    admitted(access, FakeCall("192.0.2.9"), "Bearer tenant")
    assert lines[-1]["identity"] == "tenant"
    assert len(lines) == sum(counts.values()) + 1


def test_a_success_uses_up_no_failures() -> None:
    limits = AccessLimits(failures_per_second=0.001, failures_burst=1)
    access = Access(FakeAuthenticator(TOKENS), audit=NO_AUDIT, limits=limits)
    assert [admitted(access, FakeCall(), "Bearer tenant") for _ in range(5)] == [""] * 5


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
    ],
)
def test_addresses_that_one_peer_may_have_count_as_one(first: str, second: str, same: bool) -> None:
    limits = AccessLimits(failures_per_second=0.001, failures_burst=1)
    access = Access(FakeAuthenticator({}), audit=NO_AUDIT, limits=limits)
    assert admitted(access, FakeCall(first), None) == "UNAUTHENTICATED"
    assert admitted(access, FakeCall(second), None) == (
        "RATE_LIMITED" if same else "UNAUTHENTICATED"
    )


def test_the_authenticator_is_shown_the_header_and_the_certificate() -> None:
    class Recording(FakeAuthenticator):
        shown: Credentials | None = None

        def authenticate(self, credentials: Credentials) -> Identity:
            self.shown = credentials
            return TENANT

    tokens, call = Recording({}), FakeCall()
    assert admitted(Access(tokens, audit=NO_AUDIT), call, "Bearer x") == ""
    assert tokens.shown == Credentials(authorization="Bearer x", certificate=call.certificate)
    assert call.caller is not None
    assert call.caller.identity is TENANT
