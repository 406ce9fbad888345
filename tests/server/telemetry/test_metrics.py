"""The metrics that Prometheus scrapes: calls, batches, connections and the process."""

import asyncio
from collections import Counter

import pytest
from credit_models import BatchWriteRequest, CreditRequest, Operation, UserId
from credit_models.codec import encode
from credit_models.ledger import Account
from credit_server.commit import CommitLimits
from credit_server.http2.connections import Closing
from credit_server.store.memory import MemoryStore
from credit_server.telemetry import Telemetry
from credit_server.telemetry.metrics import ProcessMetrics
from credit_testing.calls import SERVICE, call_headers, framed
from credit_testing.http2_client import Connection
from credit_testing.stores import HeldStore
from grpclib.const import Status
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.server.operations import BATCH_WRITE, WRITE, call_as_operation
from tests.server.serving import until
from tests.server.telemetry.driven_loop import DrivenLoop, on_driven_loop
from tests.server.telemetry.observed import Observed, observed

CREDIT = {"grpc_type": "unary", "grpc_service": "credit.v1.CreditService"}
ADD = {**CREDIT, "grpc_method": "AddCredits"}
GET = {**CREDIT, "grpc_method": "GetUserCredits"}
LIST = {**CREDIT, "grpc_type": "server_stream", "grpc_method": "ListUserTransactions"}
UNKNOWN = {"grpc_type": "unary", "grpc_service": "unknown", "grpc_method": "unknown"}
LAG = "credit_event_loop_lag_seconds"


def _add(key: str = "") -> CreditRequest:
    return CreditRequest(user_id=7, app_id=1, credits=5, created_by=9, idempotency_key=key)


async def test_a_call_is_counted_from_its_start_to_its_status(
    server: Observed, wire: Connection
) -> None:
    await wire.call("AddCredits", _add())
    await server.quiet()
    for name in ("started", "msg_received", "msg_sent"):
        assert server.value(f"grpc_server_{name}_total", **ADD) == 1
    assert server.value("grpc_server_handled_total", **ADD, grpc_code="OK") == 1
    assert server.value("grpc_server_handling_seconds_count", **ADD) == 1
    assert server.value("grpc_server_started_total", **GET) == 0


@pytest.mark.parametrize("path", [BATCH_WRITE, WRITE])
async def test_each_operation_is_counted_with_its_status(
    server: Observed, wire: Connection, path: str
) -> None:
    await call_as_operation(wire, path, _add())
    await call_as_operation(wire, path, CreditRequest())
    if path == BATCH_WRITE:
        operations = [Operation(), *(Operation(add_credits=_add()) for _ in range(3))]
        await wire.call(path, BatchWriteRequest(operations=operations, atomic=True))
    await server.quiet()

    def counted(kind: str, code: str) -> float | None:
        return server.value("credit_operations_total", kind=kind, grpc_code=code)

    assert counted("add_credits", "OK") == 1
    assert counted("add_credits", "InvalidArgument") == 1
    assert counted("add_credits", "Aborted") == (3 if path == BATCH_WRITE else 0)
    assert counted("unknown", "InvalidArgument") == (1 if path == BATCH_WRITE else 0)
    assert counted("use_credits", "OK") == 0


async def test_the_operations_of_a_batch_are_counted_as_writes(
    server: Observed, wire: Connection
) -> None:
    operations = [Operation(add_credits=_add()) for _ in range(20)]
    await wire.call(BATCH_WRITE, BatchWriteRequest(operations=operations, atomic=True))
    await server.quiet()
    assert server.value("credit_batch_size_sum") == 20
    assert server.value("credit_batch_size_count") == 1


async def test_each_message_of_a_stream_is_counted(server: Observed, wire: Connection) -> None:
    for key in ("a", "b", "c"):
        await wire.call("AddCredits", _add(key))
    await wire.call("ListUserTransactions", UserId(user_id=7))
    await server.quiet()
    assert server.value("grpc_server_msg_received_total", **LIST) == 1
    assert server.value("grpc_server_msg_sent_total", **LIST) == 3


async def test_messages_that_grpclib_sends_are_counted(server: Observed, wire: Connection) -> None:
    health = {"grpc_type": "unary", "grpc_service": "grpc.health.v1.Health", "grpc_method": "Check"}
    await wire.request(call_headers("/grpc.health.v1.Health/Check"), framed(b""))
    assert server.value("grpc_server_msg_sent_total", **health) == 1


async def test_an_invalid_message_is_not_counted(server: Observed, wire: Connection) -> None:
    await wire.request(call_headers(SERVICE + "GetUserCredits"), framed(b"\xff"))
    await server.quiet()
    assert server.value("grpc_server_msg_received_total", **GET) == 0
    assert server.value("grpc_server_handled_total", **GET, grpc_code="Internal") == 1


async def test_a_rejected_request_is_counted_under_its_status(
    server: Observed, wire: Connection
) -> None:
    await wire.call("GetUserCredits", UserId())
    await server.quiet()
    assert server.value("grpc_server_handled_total", **GET, grpc_code="InvalidArgument") == 1


@pytest.mark.parametrize(
    ("name", "value"), [(":method", "GET"), ("content-type", "text/html"), ("te", None)]
)
async def test_a_request_that_is_not_grpc_counts_as_internal(
    name: str, value: str | None, server: Observed, wire: Connection
) -> None:
    sound = dict(call_headers(SERVICE + "AddCredits"))
    headers = {**sound, name: value} if value else {k: v for k, v in sound.items() if k != name}
    await wire.request(list(headers.items()))
    await server.quiet()
    assert server.value("grpc_server_handled_total", **ADD, grpc_code="Internal") == 1


async def test_a_call_that_its_client_resets_is_canceled(
    wire: Connection, server: Observed
) -> None:
    stream_id, _ = wire.begin(call_headers(SERVICE + "AddCredits"), end=False)
    await until(lambda: server.value("grpc_server_started_total", **ADD) == 1)
    wire.reset(stream_id)
    await server.quiet()
    assert server.value("grpc_server_handled_total", **ADD, grpc_code="Canceled") == 1


async def test_a_bug_counts_as_internal() -> None:
    class Broken(MemoryStore):
        async def account(self, user_id: int) -> Account | None:
            raise RuntimeError("a bug")

    async with observed(Telemetry(), Broken()) as server, Connection.connect(server.port) as wire:
        await wire.call("GetUserCredits", UserId(user_id=7))
        await server.quiet()
        assert server.value("grpc_server_handled_total", **GET, grpc_code="Internal") == 1


async def test_a_path_that_is_not_served_does_not_become_a_label(
    server: Observed, wire: Connection
) -> None:
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


async def test_the_queue_and_the_writes_that_it_rejects_are_counted() -> None:
    store = HeldStore()
    limits = CommitLimits(shards=1, waiting_max=2)
    async with (
        observed(Telemetry(), store, limits=limits) as server,
        Connection.connect(server.port) as wire,
    ):
        assert server.value("credit_shed_total", cause="queue_full") == 0
        calls = [asyncio.create_task(wire.call("AddCredits", _add())) for _ in range(3)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert server.value("credit_queue_depth") == 2
        assert server.value("credit_shed_total", cause="queue_full") == 1
        store.released.set()
        await asyncio.gather(*calls)
        await server.quiet()
        assert server.value("credit_queue_depth") == 0


async def test_the_size_and_the_duration_of_a_batch_are_recorded(
    server: Observed, wire: Connection
) -> None:
    await wire.call("AddCredits", _add())
    await server.quiet()
    assert server.value("credit_batch_size_sum") == 1
    assert server.value("credit_batch_seconds_count") == 1


async def test_conflicts_retries_and_unknown_commits_are_counted(server: Observed) -> None:
    server.telemetry.commits.conflict()
    server.telemetry.commits.retried()
    server.telemetry.commits.commit_unknown()
    for name in ("conflicts", "retries", "commit_unknown"):
        assert server.value(f"credit_{name}_total") == 1


async def test_calls_rejected_before_the_queue_are_added_to_those_that_it_rejects(
    server: Observed,
) -> None:
    refused = Counter({"queue_full": 2, "calls": 3})
    server.telemetry.commits.watch_shed(lambda: refused)
    server.telemetry.commits.shed("queue_full")
    assert server.value("credit_shed_total", cause="queue_full") == 3
    assert server.value("credit_shed_total", cause="calls") == 3
    refused["calls"] += 1
    assert server.value("credit_shed_total", cause="calls") == 4
    assert server.value("credit_shed_total", cause="stopping") == 0


async def test_open_connections_are_counted(server: Observed) -> None:
    assert server.value("credit_connections") == 0
    async with Connection.connect(server.port) as wire:
        await wire.call("GetUserCredits", UserId(user_id=7))
        assert server.value("credit_connections") == 1
    await until(lambda: server.value("credit_connections") == 0)


async def test_each_reason_for_closing_is_exported_from_the_start(server: Observed) -> None:
    connections = server.server.connections
    server.telemetry.connections.watch_closed(lambda: connections.closed, Closing)
    for reason in Closing:
        assert server.value("credit_connections_closed_total", reason=reason) == 0


async def test_closed_connections_are_counted_by_reason(server: Observed) -> None:
    server.telemetry.connections.watch_closed(lambda: {"idle": 2})
    assert server.value("credit_connections_closed_total", reason="idle") == 2


@on_driven_loop
async def test_the_lag_of_a_blocked_event_loop_is_recorded() -> None:
    registry = CollectorRegistry()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, DrivenLoop)
    task = loop.create_task(ProcessMetrics(registry).watch_loop())
    await asyncio.sleep(5.25)
    assert registry.get_sample_value(f"{LAG}_count") == 10
    assert registry.get_sample_value(f"{LAG}_bucket", {"le": "0.001"}) == 10
    loop.now += 3.25  # the loop is blocked; the next measurement was due after 0.25 s
    await until(lambda: registry.get_sample_value(f"{LAG}_count") == 11)
    assert registry.get_sample_value(f"{LAG}_sum") == 3.0
    task.cancel()
