"""From a request's headers to its status and its log line."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from typing import Any

import pytest
from credit_models import CreditRequest, CreditTransaction, Empty, UserCredits, UserId
from credit_models.codec import encode
from credit_models.http2_engine import Engine
from credit_models.scopes import METHOD_SCOPES
from credit_server.commit import CommitLimits
from credit_server.grpc.handler import CallLimits
from credit_server.grpc.ports import CallObservation
from credit_server.store.history import TransactionRow
from credit_server.store.memory import MemoryStore
from credit_testing.calls import SERVICE, Headers, call_headers, framed
from credit_testing.frames import ErrorCode
from credit_testing.http2_client import Connection
from credit_testing.stores import FailingStore, HeldStore
from grpclib.const import Status
from grpclib.protocol import Peer

from tests.server.requests import request_of
from tests.server.serving import Serving, is_served, serving

PATH = SERVICE + "GetUserCredits"
SOUND = framed(encode(UserId(user_id=7)))
ADD = CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)

Logged = list[MutableMapping[str, Any]]  # Any: structlog's own type


def _without(name: str) -> Headers:
    return [header for header in call_headers(PATH) if header[0] != name]


def _with(name: str, value: str | bytes) -> Headers:
    return [(key, value if key == name else old) for key, old in call_headers(PATH)]


@pytest.mark.parametrize(
    "value",
    ["1" * 400 + "S", "1" * 9 + "S", "-1S", "1", "", "S", "1s", "1.5S", "0x1S", "1S,1S", "\u0661S"],
    ids=lambda value: value[:12] or "empty",
)
async def test_a_malformed_timeout_is_an_invalid_argument(
    wire: Connection, bystander: Connection, value: str
) -> None:
    answer = await wire.request(call_headers(PATH, ("grpc-timeout", value)), SOUND)
    assert answer.status is Status.INVALID_ARGUMENT
    assert "grpc-timeout" in answer.sentence
    await is_served(wire)


@pytest.mark.parametrize("value", ["99999999H", "1H", "59M", "60S", "99999m", "99999999u"])
async def test_a_sound_timeout_leaves_a_quick_call_alone(wire: Connection, value: str) -> None:
    answer = await wire.request(call_headers(PATH, ("grpc-timeout", value)), SOUND)
    assert answer.message(UserCredits) == UserCredits(user_id=7)


@pytest.mark.parametrize("value", ["0S", "0n", "00000000H"])
async def test_a_call_without_any_time_left_is_not_begun(
    wire: Connection, bystander: Connection, value: str
) -> None:
    answer = await wire.call("AddCredits", ADD, ("grpc-timeout", value))
    assert answer.status is Status.DEADLINE_EXCEEDED
    holdings = await wire.call("GetUserCredits", UserId(user_id=7))
    assert holdings.message(UserCredits) == UserCredits(user_id=7)


async def test_a_deadline_that_passes_in_the_store_does_not_disturb_the_batch() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        patient_add = CreditRequest(user_id=7, app_id=1, credits=100, created_by=9)
        _, hasty = wire.begin(
            call_headers(SERVICE + "AddCredits", ("grpc-timeout", "20m")), framed(encode(ADD))
        )
        await store.entered.wait()
        _, patient = wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(patient_add)))
        assert (await wire.ended(hasty)).status is Status.DEADLINE_EXCEEDED

        store.released.set()
        assert (await wire.ended(patient)).message(Empty) == Empty()
        listed = await wire.call("ListUserTransactions", UserId(user_id=7))
        assert [entry.credits for entry in listed.messages(CreditTransaction)] == [5, 100]


async def test_a_deadline_that_passes_in_the_queue_drops_the_call() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        _, running = wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(ADD)))
        await store.entered.wait()
        queued = await wire.call("AddCredits", ADD, ("grpc-timeout", "20m"))
        assert queued.status is Status.DEADLINE_EXCEEDED

        store.released.set()
        assert (await wire.ended(running)).message(Empty) == Empty()
        listed = await wire.call("ListUserTransactions", UserId(user_id=7))
        assert len(listed.messages(CreditTransaction)) == 1


async def test_a_call_that_is_cancelled_in_the_queue_is_dropped() -> None:
    store = HeldStore()
    limits = CommitLimits(shards=1, waiting_max=2)
    async with serving(store, limits=limits) as served, Connection.connect(served.port) as wire:
        _, running = wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(ADD)))
        await store.entered.wait()
        stream_id, _ = wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(ADD)))
        await wire.in_order()
        wire.reset(stream_id)
        await wire.in_order()
        # Its place in the queue is free again.
        _, another = wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(ADD)))
        await wire.in_order()
        store.released.set()
        for answer in (running, another):
            assert (await wire.ended(answer)).message(Empty) == Empty()
        listed = await wire.call("ListUserTransactions", UserId(user_id=7))
        assert len(listed.messages(CreditTransaction)) == 2


async def test_a_call_that_is_cancelled_in_the_store_does_not_disturb_the_batch() -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        stream_id, _ = wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(ADD)))
        await store.entered.wait()
        wire.reset(stream_id)
        await wire.in_order()
        store.released.set()
        await wire.call("AddCredits", ADD)
        listed = await wire.call("ListUserTransactions", UserId(user_id=7))
        assert len(listed.messages(CreditTransaction)) == 2


SHORT = CallLimits(
    message_bytes_max=4096, call_deadline_seconds=0.02, stream_deadline_seconds=3600.0
)


async def test_a_call_without_a_deadline_gets_one() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=SHORT) as served,
        Connection.connect(served.port) as wire,
    ):
        answer = await wire.call("AddCredits", ADD)
        assert answer.status is Status.DEADLINE_EXCEEDED
        store.released.set()


async def test_a_deadline_of_the_clients_own_may_be_longer_than_the_one_it_would_get() -> None:
    store = HeldStore()
    async with (
        serving(store, call_limits=SHORT) as served,
        Connection.connect(served.port) as wire,
    ):
        headers = call_headers(SERVICE + "AddCredits", ("grpc-timeout", "1H"))
        _, patient = wire.begin(headers, framed(encode(ADD)))
        assert (await wire.call("AddCredits", ADD)).status is Status.DEADLINE_EXCEEDED
        store.released.set()
        assert (await wire.ended(patient)).message(Empty) == Empty()


@pytest.mark.parametrize("more", [[], [("grpc-timeout", "1H")]], ids=["none", "a long one"])
async def test_no_deadline_is_longer_than_the_longest(more: list[tuple[str, str]]) -> None:
    store = HeldStore()
    limits = CallLimits(message_bytes_max=4096, deadline_seconds_max=0.02)
    async with (
        serving(store, call_limits=limits) as served,
        Connection.connect(served.port) as wire,
    ):
        answer = await wire.call("AddCredits", ADD, *more)
        assert answer.status is Status.DEADLINE_EXCEEDED
        store.released.set()


@pytest.mark.parametrize(("seconds", "status"), [(0.02, Status.DEADLINE_EXCEEDED), (60, Status.OK)])
async def test_a_stream_has_a_deadline_of_its_own(seconds: float, status: Status) -> None:
    class SlowStore(MemoryStore):
        async def list_transactions(
            self,
            user_id: int,
            apps: frozenset[int] | None = None,
            *,
            after_sequence: int = 0,
            stored_sequence: int = 0,
        ) -> AsyncIterator[Sequence[TransactionRow]]:
            if seconds < 1:
                await asyncio.get_running_loop().create_future()
            yield []

    limits = CallLimits(
        message_bytes_max=4096, call_deadline_seconds=0.01, stream_deadline_seconds=seconds
    )
    async with (
        serving(SlowStore(), call_limits=limits) as served,
        Connection.connect(served.port) as wire,
    ):
        answer = await wire.call("ListUserTransactions", UserId(user_id=7))
        assert answer.status is status


async def test_a_health_watch_has_no_deadline() -> None:
    limits = CallLimits(
        message_bytes_max=4096,
        call_deadline_seconds=0.01,
        stream_deadline_seconds=0.01,
        deadline_seconds_max=0.01,
    )
    store = HeldStore()
    async with (
        serving(store, call_limits=limits) as served,
        Connection.connect(served.port) as wire,
    ):
        _, watch = wire.begin(call_headers("/grpc.health.v1.Health/Watch"), framed(b""))
        await watch.begun()
        assert (await wire.call("AddCredits", ADD)).status is Status.DEADLINE_EXCEEDED
        assert not watch.ended.is_set()
        store.released.set()


@pytest.mark.parametrize("path", ["/", "/x", SERVICE, SERVICE + "addCredits", PATH + "/"])
async def test_an_unknown_path_is_unimplemented(
    wire: Connection, bystander: Connection, path: str
) -> None:
    answer = await wire.request(call_headers(path), SOUND)
    assert answer.status is Status.UNIMPLEMENTED
    await is_served(wire)


@pytest.mark.parametrize("path", ["/", "x", "credit.v1.CreditService/AddCredits", "//", "/a/b/c"])
async def test_a_path_of_another_shape_is_answered_with_the_right_shape(
    wire: Connection, engine: Engine, path: str
) -> None:
    answer = await wire.request(call_headers(path), SOUND)
    if engine is Engine.NGHTTP2 and not path.startswith("/"):
        assert answer.reset is ErrorCode.PROTOCOL_ERROR  # malformed: RFC 9113, section 8.3.1
        return
    assert answer.status is Status.UNIMPLEMENTED
    assert "/package.Service/Method" in answer.sentence


NOT_GRPC = [
    pytest.param(_with(":method", "GET"), "405", "POST", id="GET"),
    pytest.param(_with(":method", "post"), "405", "POST", id="post in lower case"),
    pytest.param([(":method", "CONNECT"), (":authority", "a")], "405", "POST", id="CONNECT"),
    *(
        pytest.param(headers, "415", "neither application/grpc nor application/grpc+proto", id=name)
        for name, headers in {
            "no content-type": _without("content-type"),
            "an empty content-type": _with("content-type", ""),
            **{
                kind: _with("content-type", kind)
                for kind in (
                    "application/json",
                    "application/grpc+json",
                    "application/grpcfoo",
                    "application/grpc-web",
                    "application/grpc-web+proto; charset=utf-8",
                    "text/plain; a=application/grpc",
                    "application/grpc, application/grpc",
                )
            },
        }.items()
    ),
]


@pytest.mark.parametrize(("headers", "http_status", "reason"), NOT_GRPC)
@pytest.mark.parametrize("end", [True, False], ids=["complete", "still sending"])
async def test_what_is_not_grpc_is_answered_in_http_with_the_reason(
    wire: Connection,
    bystander: Connection,
    headers: Headers,
    http_status: str,
    reason: str,
    end: bool,
) -> None:
    answer = await wire.request(headers, SOUND, end=end)
    assert (answer.headers[":status"], answer.status) == (http_status, Status.INTERNAL)
    assert reason in answer.sentence
    assert answer.headers["content-type"] == "text/plain"
    assert answer.data.decode() == answer.sentence + "\n"
    assert int(answer.headers["content-length"]) == len(answer.data)
    assert ("allow" in answer.headers) is (http_status == "405")
    assert answer.headers["x-request-id"]
    await wire.in_order()
    assert (answer.reset is None) is end  # the server asks a client that is still sending to stop
    await is_served(wire)


async def test_the_answer_to_head_has_no_body(wire: Connection) -> None:
    answer = await wire.request(_with(":method", "HEAD"))
    assert (answer.headers[":status"], bytes(answer.data)) == ("405", b"")
    assert "POST" in answer.sentence


async def test_a_client_that_takes_no_body_gets_the_reason_in_the_headers(served: Serving) -> None:
    async with Connection.connect(served.port, window=0) as wire:
        answer = await wire.request(_with("content-type", "text/html"))
        assert (answer.headers[":status"], bytes(answer.data)) == ("415", b"")
        assert "content-type" in answer.sentence


async def test_a_call_without_te_is_rejected_with_the_reason(
    wire: Connection, bystander: Connection
) -> None:
    read, write = (
        _without("te"),
        [header for header in call_headers(SERVICE + "AddCredits") if header[0] != "te"],
    )
    for headers, data in ((read, SOUND), (write, framed(encode(ADD)))):
        answer = await wire.request(headers, data)
        assert (answer.headers[":status"], answer.status) == ("200", Status.INTERNAL)
        assert "te: trailers" in answer.sentence
        assert ("no change was made" in answer.sentence) is (headers is write)
    await is_served(wire)


async def test_the_case_of_te_does_not_matter(wire: Connection) -> None:
    answer = await wire.request(_with("te", "Trailers"), SOUND)
    assert answer.message(UserCredits) == UserCredits(user_id=7)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/grpc",
        "application/grpc+proto",
        "APPLICATION/GRPC",
        "Application/Grpc+Proto",
        "application/grpc;charset=utf-8",
        "application/grpc; charset=utf-8",
        "application/grpc ; charset=utf-8",
        "application/grpc+proto; x=y",
        "APPLICATION/GRPC+PROTO;X=Y;z",
        "application/grpc;",
    ],
)
async def test_any_spelling_of_both_content_types_of_protobuf_is_taken(
    wire: Connection, content_type: str
) -> None:
    answer = await wire.request(_with("content-type", content_type), SOUND)
    assert answer.message(UserCredits) == UserCredits(user_id=7)


@pytest.mark.parametrize("value", ["!", "A", "====", "", "AAA,AA"])
async def test_bad_binary_metadata_is_no_harm(
    wire: Connection, bystander: Connection, value: str | bytes
) -> None:
    answer = await wire.request(call_headers(PATH, ("trace-bin", value)), SOUND)
    assert answer.message(UserCredits) == UserCredits(user_id=7)


@pytest.mark.parametrize("name", ["x-name", "trace-bin", "x-request-id"])
@pytest.mark.parametrize(
    "value", [b"\xff\xfe", b"caf\xe9 \xc3\x28", "é", "a\tb", b"\x7f", b"\x01"], ids=ascii
)
async def test_a_value_that_is_not_printable_ascii_rejects_only_its_own_call(
    wire: Connection,
    bystander: Connection,
    logged: Logged,
    engine: Engine,
    name: str,
    value: str | bytes,
) -> None:
    stream_id, other = wire.begin(call_headers(PATH), end=False)
    answer = await wire.request(call_headers(PATH, (name, value), (name, "a")), SOUND)
    if engine is Engine.NGHTTP2 and value in (b"\x7f", b"\x01"):
        # No field value has them (RFC 9110, section 5.5); h2 lets them pass.
        assert answer.reset is ErrorCode.PROTOCOL_ERROR
    else:
        assert answer.status is Status.INVALID_ARGUMENT
        assert f"header '{name}' is not printable ASCII" in answer.sentence
        assert "name that ends in -bin" in answer.sentence
        calls = [line["status"] for line in logged if line["event"] == "call"]
        assert calls[-1] == answer.status.name
    assert "exc_info" not in logged[-1]
    wire.send(stream_id, SOUND, end=True)
    assert (await wire.ended(other)).message(UserCredits) == UserCredits(user_id=7)
    await is_served(wire)


async def test_the_bounds_of_ascii_are_in_it(wire: Connection) -> None:
    answer = await wire.request(call_headers(PATH, ("x-name", "a ~")), SOUND)
    assert answer.status is Status.OK


async def test_no_message_is_long_for_a_headers_name(wire: Connection) -> None:
    answer = await wire.request(call_headers(PATH, ("x" * 3000, "é")), SOUND)
    assert answer.status is Status.INVALID_ARGUMENT
    assert len(answer.sentence) < 300


@pytest.mark.parametrize("request_id", ["a", "A-b_c.9", "x" * 128])
async def test_a_wellformed_request_id_is_echoed(
    wire: Connection, request_id: str, logged: Logged
) -> None:
    answer = await wire.call("GetUserCredits", UserId(user_id=7), ("x-request-id", request_id))
    assert answer.headers["x-request-id"] == request_id
    assert logged[-1]["request_id"] == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a/b"])
async def test_any_other_request_id_is_replaced(wire: Connection, request_id: str) -> None:
    answer = await wire.call("GetUserCredits", UserId(user_id=7), ("x-request-id", request_id))
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_a_call_without_a_request_id_gets_one_of_its_own(wire: Connection) -> None:
    answers = [await wire.call("GetUserCredits", UserId(user_id=7)) for _ in range(2)]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 2


async def test_a_rejected_call_has_the_request_id_too(wire: Connection) -> None:
    answer = await wire.call("GetUserCredits", UserId(), ("x-request-id", "mine"))
    assert answer.status is Status.INVALID_ARGUMENT
    assert answer.headers["x-request-id"] == "mine"


async def test_each_call_is_logged_in_one_line(
    wire: Connection, served: Serving, logged: Logged
) -> None:
    await wire.call("AddCredits", ADD, ("x-request-id", "one"))
    await wire.call("GetUserCredits", UserId(), ("x-request-id", "two"))
    await wire.request(_with("content-type", "text/html"))
    await served.wait_quiet()
    assert [(line["method"], line["status"]) for line in logged] == [
        (SERVICE + "AddCredits", "OK"),
        (PATH, "INVALID_ARGUMENT"),
        (PATH, "HTTP 415"),
    ]
    for line in logged:
        assert (line["event"], line["log_level"]) == ("call", "info")
        assert line.keys() == {
            "event",
            "log_level",
            "method",
            "status",
            "milliseconds",
            "request_id",
            "peer",
        }
        assert 0 <= line["milliseconds"] < 60_000
        assert re.fullmatch(r"127\.0\.0\.1:\d+", line["peer"])


async def test_nothing_of_a_request_is_logged_but_its_headers(
    wire: Connection, logged: Logged
) -> None:
    request = CreditRequest(user_id=7, app_id=1, credits=5, created_by=9, idempotency_key="my-key")
    await wire.call("AddCredits", request)
    assert "my-key" not in str(logged)


@pytest.mark.parametrize("path", METHOD_SCOPES)
async def test_a_fault_is_logged_with_its_traceback_under_the_request_id(
    path: str, logged: Logged
) -> None:
    async with serving(FailingStore(ZeroDivisionError("why"))) as served:
        async with Connection.connect(served.port) as wire:
            request = request_of(path.rpartition("/")[2])
            answer = await wire.call(path, request, ("x-request-id", "mine"))
            assert answer.status is Status.INTERNAL
        await served.wait_quiet()
    (line,) = [line for line in logged if line["event"] == "call"]
    assert (line["log_level"], line["status"], line["request_id"]) == ("error", "INTERNAL", "mine")
    assert isinstance(line["exc_info"], ZeroDivisionError)
    assert line["exc_info"].__traceback__ is not None


async def test_a_call_is_answered_even_if_its_observer_fails(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Blind:
        def started(self, path: str, metadata: Mapping[str, str], peer: Peer) -> CallObservation:
            raise ZeroDivisionError

    monkeypatch.setattr(served.server._serving, "observer", Blind())
    async with Connection.connect(served.port) as wire:
        answer = await wire.request(call_headers(PATH), SOUND)
        assert (answer.status, answer.sentence) == (Status.INTERNAL, "internal error")


async def test_a_call_that_its_client_cancels_is_logged_as_cancelled(logged: Logged) -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        stream_id, _ = wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(ADD)))
        await store.entered.wait()
        wire.reset(stream_id)
        await served.wait_quiet()
        store.released.set()
    assert [(line["status"], line["log_level"]) for line in logged] == [("CANCELLED", "info")]


@pytest.mark.usefixtures("engine")
async def test_a_call_whose_stream_is_gone_before_its_answer_is_logged_as_gone(
    logged: Logged,
) -> None:
    store = HeldStore()
    async with serving(store) as served, Connection.connect(served.port) as wire:
        stream_id, _ = wire.begin(call_headers(SERVICE + "AddCredits"), framed(encode(ADD)))
        await store.entered.wait()
        (protocol,) = served.server._protocols
        del protocol.connection._connection.streams[stream_id]
        store.released.set()
        await served.wait_quiet()
    assert [(line["status"], line["log_level"]) for line in logged] == [("GONE", "info")]


async def test_a_fault_of_a_call_whose_client_has_gone_is_logged_all_the_same(
    logged: Logged,
) -> None:
    class LateFailure(FailingStore):
        async def account(self, user_id: int) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                raise ZeroDivisionError

    async with serving(LateFailure(ZeroDivisionError())) as served:
        async with Connection.connect(served.port) as wire:
            wire.begin(call_headers(PATH), SOUND)
            await wire.in_order()
        await served.wait_quiet()
    assert isinstance(logged[0]["exc_info"], ZeroDivisionError)
