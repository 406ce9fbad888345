"""Calls as Prometheus sees them: go-grpc-prometheus's names, and no name that a client made up."""

import pytest
from credit_models import CreditRequest, UserId
from credit_models.codec import encode
from credit_server.ledger import Account
from credit_server.store.memory import MemoryStore
from credit_server.telemetry import Telemetry
from credit_testing.http2_client import SERVICE, Wire, call_headers, framed
from grpclib.const import Status
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.server.serving import until
from tests.server.telemetry.observed import Observed, observed

CREDIT = {"grpc_type": "unary", "grpc_service": "credit.v1.CreditService"}
ADD = {**CREDIT, "grpc_method": "AddCredits"}
GET = {**CREDIT, "grpc_method": "GetUserCredits"}
LIST = {**CREDIT, "grpc_type": "server_stream", "grpc_method": "ListUserTransactions"}
UNKNOWN = {"grpc_type": "unary", "grpc_service": "unknown", "grpc_method": "unknown"}


def _add(key: str = "") -> CreditRequest:
    return CreditRequest(user_id=7, app_id=1, credits=5, created_by=9, idempotency_key=key)


async def test_a_call_is_counted_from_its_begin_to_its_status(server: Observed, wire: Wire) -> None:
    await wire.call("AddCredits", _add())
    await server.quiet()
    for name in ("started", "msg_received", "msg_sent"):
        assert server.value(f"grpc_server_{name}_total", **ADD) == 1
    assert server.value("grpc_server_handled_total", **ADD, grpc_code="OK") == 1
    assert server.value("grpc_server_handling_seconds_count", **ADD) == 1
    assert server.value("grpc_server_started_total", **GET) == 0


async def test_each_message_of_a_stream_is_counted(server: Observed, wire: Wire) -> None:
    for key in ("a", "b", "c"):
        await wire.call("AddCredits", _add(key))
    await wire.call("ListUserTransactions", UserId(user_id=7))
    await server.quiet()
    assert server.value("grpc_server_msg_received_total", **LIST) == 1
    assert server.value("grpc_server_msg_sent_total", **LIST) == 3


async def test_messages_that_grpclib_sends_are_counted(server: Observed, wire: Wire) -> None:
    health = {"grpc_type": "unary", "grpc_service": "grpc.health.v1.Health", "grpc_method": "Check"}
    await wire.request(call_headers("/grpc.health.v1.Health/Check"), framed(b""))
    assert server.value("grpc_server_msg_sent_total", **health) == 1


async def test_a_message_that_is_not_sound_is_not_counted(server: Observed, wire: Wire) -> None:
    await wire.request(call_headers(SERVICE + "GetUserCredits"), framed(b"\xff"))
    await server.quiet()
    assert server.value("grpc_server_msg_received_total", **GET) == 0
    assert server.value("grpc_server_handled_total", **GET, grpc_code="Internal") == 1


async def test_a_refusal_is_counted_under_its_status(server: Observed, wire: Wire) -> None:
    await wire.call("GetUserCredits", UserId())
    await server.quiet()
    assert server.value("grpc_server_handled_total", **GET, grpc_code="InvalidArgument") == 1


@pytest.mark.parametrize(
    ("name", "value"), [(":method", "GET"), ("content-type", "text/html"), ("te", None)]
)
async def test_a_request_that_is_not_grpc_counts_as_internal(
    name: str, value: str | None, server: Observed, wire: Wire
) -> None:
    sound = dict(call_headers(SERVICE + "AddCredits"))
    headers = {**sound, name: value} if value else {k: v for k, v in sound.items() if k != name}
    await wire.request(list(headers.items()))
    await server.quiet()
    assert server.value("grpc_server_handled_total", **ADD, grpc_code="Internal") == 1


async def test_a_call_that_its_client_gives_up_is_canceled(wire: Wire, server: Observed) -> None:
    stream_id, _ = wire.begin(call_headers(SERVICE + "AddCredits"), end=False)
    await until(lambda: server.value("grpc_server_started_total", **ADD) == 1)
    wire.h2.reset_stream(stream_id)
    wire.flush()
    await server.quiet()
    assert server.value("grpc_server_handled_total", **ADD, grpc_code="Canceled") == 1


async def test_a_bug_counts_as_internal() -> None:
    class Broken(MemoryStore):
        async def account(self, user_id: int) -> Account | None:
            raise RuntimeError("a bug")

    async with observed(Telemetry(), Broken()) as server, Wire.connect(server.port) as wire:
        await wire.call("GetUserCredits", UserId(user_id=7))
        await server.quiet()
        assert server.value("grpc_server_handled_total", **GET, grpc_code="Internal") == 1


async def test_what_clients_invent_does_not_become_a_label(server: Observed, wire: Wire) -> None:
    before = _series(server)
    for number in range(20):
        answer = await wire.request(
            call_headers(f"/made.up.Service{number}/Call"), framed(encode(UserId(user_id=7)))
        )
        assert answer.status is Status.UNIMPLEMENTED
    await server.quiet()
    assert server.value("grpc_server_handled_total", **UNKNOWN, grpc_code="Unimplemented") == 20
    assert _series(server) == before


async def test_every_status_has_the_name_that_go_gives_it(server: Observed) -> None:
    codes = {
        labels["grpc_code"]
        for name, labels in _samples(server)
        if name == "grpc_server_handled_total" and labels["grpc_method"] == "AddCredits"
    }
    assert codes == {
        *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound"),
        *("AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition"),
        *("Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss"),
        "Unauthenticated",
    }


def _samples(server: Observed) -> list[tuple[str, dict[str, str]]]:
    text = generate_latest(server.telemetry.registry).decode()
    return [
        (sample.name, sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def _series(server: Observed) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {(name, frozenset(labels.items())) for name, labels in _samples(server)}
