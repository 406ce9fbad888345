"""Test the server with clients that share no code with this project: buf curl and grpcio."""

import base64
import importlib
import json
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import credit_models
import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from credit_models.codec import decode, encode
from credit_server.settings import ServerSettings
from credit_testing.calls import Answer, call_headers, framed
from credit_testing.http2_client import Connection
from credit_testing.server import ServerProcess, migrated, running_server
from google.protobuf import descriptor_pool
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_tools import protoc  # type: ignore[import-untyped]  # neither does grpcio-tools
from grpclib.health.v1 import health_pb2
from pymongo import AsyncMongoClient

CONTRACTS = Path(__file__).parents[2] / "contracts"
BUF = Path(sys.executable).with_name("buf")
SERVICE = "credit.v1.CreditService"
RECEIPT = "credit-receipt-bin"
FIVE_BROKEN_FIELDS = ["user_id", "app_id", "credits", "created_by", "idempotency_key"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stubs:
    """The modules that Google's compiler generates at run time; they have no types."""

    messages: Any
    service: Any
    batches: Any
    ledger: Any


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory, http2_engine: str
) -> AsyncIterator[ServerProcess]:
    database = "test_foreign_clients"
    options = await migrated(mongod_uri, database)
    async with running_server(tmp_path_factory.mktemp("foreign"), *options) as process:
        assert f"\n  http2  {http2_engine}\n" in process.banner
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(database)


@pytest.fixture(scope="module")
def stubs(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    folder = tmp_path_factory.mktemp("stubs")
    sources = sorted(
        str(path.relative_to(CONTRACTS)) for path in CONTRACTS.glob("credit/**/*.proto")
    )
    well_known = resources.files("grpc_tools") / "_proto"
    includes = [f"-I{CONTRACTS}", f"-I{well_known}"]
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *includes, *outputs, *sources]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        messages = importlib.import_module("credit.v1.credit_pb2")
        service = importlib.import_module("credit.v1.credit_pb2_grpc")
        with grpc.insecure_channel(server.address) as channel:
            yield Stubs(
                messages=messages,
                service=service.CreditServiceStub(channel),
                batches=importlib.import_module("credit.v1.ledger_pb2"),
                ledger=importlib.import_module("credit.v1.ledger_pb2_grpc").LedgerServiceStub(
                    channel
                ),
            )


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


class TestBufCurl:
    def test_it_makes_all_six_calls(self, server: ServerProcess) -> None:
        grant = {"user_id": 101, "app_id": 11, "credits": 120, "created_by": 1}
        buy = {**grant, "credits": 20, "report_id": "r-1", "report_name": "Report"}
        assert _curl(server, "AddCredits", grant) == [{}]
        assert _curl(server, "UseCredits", buy) == [{}]
        (held,) = _curl(server, "GetUserCredits", {"user_id": 101})
        assert (held["balances"], held["revision"]) == ([{"appId": 11, "balance": 100}], "2")
        assert _curl(server, "GetAppBalance", {"app_id": 11}) == [{"appId": 11, "balance": 100}]
        (purchase,) = _curl(server, "ListUserPurchases", {"user_id": 101})
        added, used = _curl(server, "ListUserTransactions", {"user_id": 101})
        assert (added["sequence"], used["sequence"]) == ("1", "2")
        assert (added["type"], used["type"]) == ("TRANSACTION_TYPE_ADD", "TRANSACTION_TYPE_USE")
        assert purchase["transactionId"] == used["id"]
        assert purchase["id"] == used["purchaseId"]

    def test_a_refusal_has_its_status_and_readable_details(self, server: ServerProcess) -> None:
        done = _buf_curl(server, "AddCredits", {"user_id": 1}, "--schema", str(CONTRACTS))
        assert done.returncode == 8 * grpc.StatusCode.INVALID_ARGUMENT.value[0]
        error = json.loads(done.stderr)
        assert error["code"] == "invalid_argument"
        details = {entry["type"]: entry["value"] for entry in error["details"]}
        bad_request = BadRequest.FromString(_base64(details["google.rpc.BadRequest"]))
        broken = [violation.field for violation in bad_request.field_violations]
        assert broken == ["app_id", "credits", "created_by"]
        assert ErrorInfo.FromString(_base64(details["google.rpc.ErrorInfo"])) == ErrorInfo(
            reason="INVALID_FIELD", domain="credit.v1"
        )

    def test_reflection_lists_every_method(self, server: ServerProcess) -> None:
        done = _buf_curl(server, "", None, "--list-methods")
        calls = {
            **credit_models.AlertServiceBase().__mapping__(),
            **credit_models.CreditServiceBase().__mapping__(),
            **credit_models.DirectoryServiceBase().__mapping__(),
            **credit_models.HistoryServiceBase().__mapping__(),
            **credit_models.LedgerServiceBase().__mapping__(),
        }
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [
            *sorted(path.removeprefix("/") for path in calls),
            "grpc.health.v1.Health/Check",
            "grpc.health.v1.Health/Watch",
        ]

    def test_reflection_is_enough_to_make_a_call(self, server: ServerProcess) -> None:
        done = _buf_curl(server, "GetAppBalance", {"app_id": 404})
        assert json.loads(done.stdout) == {"appId": 404}

    def test_health_is_served_for_service_and_server(self, server: ServerProcess) -> None:
        for service in ("", SERVICE):
            url = f"http://{server.address}/grpc.health.v1.Health/Check"
            done = _run_buf_curl(url, {"service": service})
            assert json.loads(done.stdout) == {"status": "SERVING"}


class TestGrpcio:
    def test_it_makes_all_six_calls(self, stubs: Stubs) -> None:
        messages, service = stubs.messages, stubs.service
        grant = messages.CreditRequest(user_id=201, app_id=21, credits=120, created_by=1)
        buy = _purchase(stubs, user_id=201, app_id=21, credits=20)
        assert service.AddCredits(grant) == messages.Empty()
        assert service.UseCredits(buy) == messages.Empty()
        held = service.GetUserCredits(messages.UserId(user_id=201))
        assert list(held.balances) == [messages.Balance(app_id=21, balance=100)]
        assert service.GetAppBalance(messages.AppId(app_id=21)).balance == 100
        (purchase,) = service.ListUserPurchases(messages.UserId(user_id=201))
        added, used = service.ListUserTransactions(messages.UserId(user_id=201))
        assert [added.sequence, used.sequence, held.revision] == [1, 2, 2]
        assert [added.type, used.type] == [
            messages.TRANSACTION_TYPE_ADD,
            messages.TRANSACTION_TYPE_USE,
        ]
        assert (purchase.transaction_id, purchase.id) == (used.id, used.purchase_id)
        assert added.created_at.ToMilliseconds() <= purchase.created_at.ToMilliseconds()

    def test_an_interrupted_list_continues_after_the_last_sequence(self, stubs: Stubs) -> None:
        messages, service = stubs.messages, stubs.service
        service.AddCredits(messages.CreditRequest(user_id=221, app_id=41, credits=9, created_by=1))
        for _ in range(3):
            service.UseCredits(_purchase(stubs, user_id=221, app_id=41, credits=1))
        for list_, first in ((service.ListUserTransactions, 1), (service.ListUserPurchases, 2)):
            broken_off = list_(messages.UserId(user_id=221))
            last = next(broken_off).sequence
            broken_off.cancel()
            rest = list_(messages.UserId(user_id=221, after_sequence=last))
            assert [last, *(entry.sequence for entry in rest)] == list(range(first, 5))
            assert list(list_(messages.UserId(user_id=221, after_sequence=2**63 - 1))) == []
        error = _refused(service.GetUserCredits, messages.UserId(user_id=221, after_sequence=2**63))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    def test_a_key_is_free_in_another_app(self, stubs: Stubs) -> None:
        fields = {"user_id": 222, "credits": 5, "created_by": 1, "idempotency_key": "order-4711"}
        for app in (42, 43):
            for replayed in (False, True):
                request = stubs.messages.CreditRequest(app_id=app, **fields)
                receipt = _receipt(stubs, *stubs.service.AddCredits.with_call(request))
                assert (receipt.balance, receipt.replayed) == (5, replayed)

    def test_a_write_returns_its_receipt_in_the_trailing_metadata(self, stubs: Stubs) -> None:
        request = stubs.messages.CreditRequest(
            user_id=202, app_id=22, credits=5, created_by=1, idempotency_key="k"
        )
        first = _receipt(stubs, *stubs.service.AddCredits.with_call(request))
        again = _receipt(stubs, *stubs.service.AddCredits.with_call(request))
        assert (first.balance, first.sequence, first.replayed) == (5, 1, False)
        first.replayed = True
        assert again == first

    def test_its_classes_and_ours_agree_in_one_process(self, stubs: Stubs) -> None:
        theirs = stubs.messages.Receipt(transaction_id="t", balance=7, sequence=2, replayed=True)
        assert theirs.DESCRIPTOR.file.pool is descriptor_pool.Default()
        ours = decode(credit_models.Receipt, theirs.SerializeToString())
        assert ours == credit_models.Receipt(
            transaction_id="t", balance=7, sequence=2, replayed=True
        )
        assert stubs.messages.Receipt.FromString(encode(ours)) == theirs

    def test_all_broken_fields_are_named_at_once(self, stubs: Stubs) -> None:
        request = stubs.messages.CreditRequest(idempotency_key="k" * 129)
        error = _refused(stubs.service.AddCredits, request)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        info, bad_request = _details(error)
        assert info == ErrorInfo(reason="INVALID_FIELD", domain="credit.v1")
        assert isinstance(bad_request, BadRequest)
        assert [broken.field for broken in bad_request.field_violations] == FIVE_BROKEN_FIELDS
        assert all(broken.description for broken in bad_request.field_violations)

    def test_too_few_credits_are_refused_with_the_numbers(self, stubs: Stubs) -> None:
        error = _refused(stubs.service.UseCredits, _purchase(stubs, user_id=203, credits=20))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert _details(error) == [
            ErrorInfo(
                reason="INSUFFICIENT_CREDITS",
                domain="credit.v1",
                metadata={"available": "0", "required": "20", "shortfall": "20"},
            )
        ]

    def test_a_balance_past_uint32_is_refused_with_the_numbers(self, stubs: Stubs) -> None:
        most = 2**32 - 1
        request = stubs.messages.CreditRequest(user_id=204, app_id=24, credits=most, created_by=1)
        stubs.service.AddCredits(request)
        error = _refused(stubs.service.AddCredits, request)
        assert error.code() is grpc.StatusCode.OUT_OF_RANGE
        assert _details(error) == [
            ErrorInfo(
                reason="BALANCE_OVERFLOW",
                domain="credit.v1",
                metadata={"balance": str(most), "credits": str(most)},
            )
        ]

    async def test_a_negative_number_of_32_bits_is_rejected_by_default(
        self, mongod_uri: str, tmp_path: Path, stubs: Stubs
    ) -> None:
        options = await migrated(mongod_uri, "test_credits_max")
        default = {"CREDIT_CREDITS_MAX": str(ServerSettings().credits_max)}
        async with running_server(tmp_path, *options, environment=default) as process:
            with grpc.insecure_channel(process.address) as channel:
                add = channel.unary_unary(
                    "/credit.v1.CreditService/AddCredits",
                    request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=stubs.messages.Empty.FromString,
                )
                # What `-5` of a Java `int` becomes.
                request = stubs.messages.CreditRequest(
                    user_id=208, app_id=28, credits=-5 % 2**32, created_by=1
                )
                error = _refused(add, request)
        assert error.code() is grpc.StatusCode.OUT_OF_RANGE
        assert _details(error) == [
            ErrorInfo(
                reason="CREDITS_LIMIT_EXCEEDED",
                domain="credit.v1",
                metadata={"credits": "4294967291", "limit": "2147483647"},
            )
        ]

    def test_a_key_with_another_request_is_refused_with_the_fields(self, stubs: Stubs) -> None:
        request = stubs.messages.CreditRequest(
            user_id=205, app_id=25, credits=5, created_by=1, idempotency_key="k"
        )
        stubs.service.AddCredits(request)
        request.credits = 6
        error = _refused(stubs.service.AddCredits, request)
        assert error.code() is grpc.StatusCode.ALREADY_EXISTS
        assert _details(error) == [
            ErrorInfo(
                reason="IDEMPOTENCY_KEY_REUSED",
                domain="credit.v1",
                metadata={"fields": "credits"},
            )
        ]

    async def test_answers_and_refusals_have_the_request_id(
        self, stubs: Stubs, server: ServerProcess
    ) -> None:
        sent = ("x-request-id", "order-4711")
        request = stubs.messages.AppId(app_id=26)
        _, call = stubs.service.GetAppBalance.with_call(request, metadata=[sent])
        assert sent in call.initial_metadata()
        error = _refused(stubs.service.GetAppBalance, stubs.messages.AppId(), metadata=[sent])
        assert sent in error.trailing_metadata()  # a refusal is one block of headers
        refused = await server.logged(lambda line: line.get("request_id") == sent[1], times=2)
        assert refused["status"] == "INVALID_ARGUMENT"

    async def test_a_stream_can_be_cancelled(self, stubs: Stubs, server: ServerProcess) -> None:
        user = stubs.messages.UserId(user_id=206)
        request = stubs.messages.CreditRequest(user_id=206, app_id=27, credits=1, created_by=1)
        pending = [stubs.service.AddCredits.future(request) for _ in range(20)]
        for call in pending:
            call.result()
        stream = stubs.service.ListUserTransactions(user, metadata=[("x-request-id", "cancelled")])
        assert next(stream).sequence == 1
        stream.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        await server.logged(lambda line: line.get("request_id") == "cancelled")
        assert stubs.service.GetUserCredits(user).revision == 20

    async def test_a_watch_that_is_cancelled_ends_in_the_server_too(
        self, channel: Any, server: ServerProcess
    ) -> None:
        watch = _health(channel, "Watch")
        updates = watch(health_pb2.HealthCheckRequest(), metadata=[("x-request-id", "watched")])
        assert next(updates).status == health_pb2.HealthCheckResponse.SERVING
        updates.cancel()
        line = await server.logged(lambda line: line.get("request_id") == "watched")
        assert (line["method"], line["status"]) == ("/grpc.health.v1.Health/Watch", "CANCELLED")

    def test_the_health_of_an_unknown_service_is_not_found(self, channel: Any) -> None:
        check = _health(channel, "Check")
        known = health_pb2.HealthCheckRequest(service=SERVICE)
        assert check(known).status == health_pb2.HealthCheckResponse.SERVING
        error = _refused(check, health_pb2.HealthCheckRequest(service="credit.v2.Unheard"))
        assert error.code() is grpc.StatusCode.NOT_FOUND

    def test_a_deadline_that_has_passed_is_reported(self, stubs: Stubs) -> None:
        error = _refused(stubs.service.GetAppBalance, stubs.messages.AppId(app_id=1), timeout=1e-9)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    def test_a_compressed_request_is_accepted(self, stubs: Stubs) -> None:
        request = stubs.messages.CreditRequest(
            user_id=207, app_id=28, credits=1, created_by=1, idempotency_key="k" * 128
        )
        stubs.service.AddCredits(request, compression=grpc.Compression.Gzip)
        assert stubs.service.GetAppBalance(stubs.messages.AppId(app_id=28)).balance == 1

    def test_an_unknown_compression_is_rejected(self, stubs: Stubs) -> None:
        request = stubs.messages.CreditRequest(
            user_id=208, app_id=29, credits=1, created_by=1, idempotency_key="k" * 128
        )
        error = _refused(stubs.service.AddCredits, request, compression=grpc.Compression.Deflate)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert stubs.service.GetAppBalance(stubs.messages.AppId(app_id=29)).balance == 0

    def test_long_metadata_rejects_only_its_call(self, stubs: Stubs, channel: Any) -> None:
        """All calls of a channel share one connection, as those of many clients do on a proxy's."""
        watch = _health(channel, "Watch")(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        balance = channel.unary_unary(
            f"/{SERVICE}/GetAppBalance",
            request_serializer=stubs.messages.AppId.SerializeToString,
            response_deserializer=stubs.messages.Balance.FromString,
        )
        request = stubs.messages.AppId(app_id=30)
        long = [(f"x-long-{at}", "x" * 960) for at in range(20)]
        rejected = [balance.future(request, metadata=long) for _ in range(10)]
        served = [balance.future(request) for _ in range(10)]
        for call in rejected:
            assert call.exception().code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "16384 are allowed" in call.exception().details()
        assert [call.result().balance for call in served] == [0] * 10
        assert watch.is_active()  # the connection has not ended
        watch.cancel()

    def test_a_call_that_does_not_exist_is_unimplemented(self, channel: Any) -> None:
        error = _refused(channel.unary_unary(f"/{SERVICE}/StealCredits"), b"")
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_it_writes_a_batch_of_the_most_operations(self, stubs: Stubs) -> None:
        add = stubs.messages.CreditRequest(user_id=210, app_id=31, credits=2, created_by=1)
        operations = [stubs.batches.Operation(add_credits=add) for _ in range(999)]
        buy = _purchase(stubs, user_id=210, app_id=31, credits=1998)
        operations.append(stubs.batches.Operation(use_credits=buy))
        batch = stubs.batches.BatchWriteRequest(operations=operations, atomic=True)
        outcomes = stubs.ledger.BatchWrite(batch).outcomes
        assert [outcome.receipt.balance for outcome in outcomes] == [*range(2, 2000, 2), 0]
        failed = stubs.ledger.BatchWrite(batch, timeout=60).outcomes
        assert len(failed) == 1000
        more = stubs.batches.BatchWriteRequest(operations=[*operations, operations[0]])
        assert _refused(stubs.ledger.BatchWrite, more).code() is grpc.StatusCode.INVALID_ARGUMENT

    def test_a_failed_operation_has_the_details_of_a_failed_call(self, stubs: Stubs) -> None:
        buy = _purchase(stubs, user_id=211, app_id=32, credits=5)
        operation = stubs.batches.Operation(use_credits=buy)
        batch = stubs.batches.BatchWriteRequest(operations=[operation])
        (outcome,) = stubs.ledger.BatchWrite(batch).outcomes
        alone = _refused(stubs.service.UseCredits, buy)
        details = dict(alone.trailing_metadata())["grpc-status-details-bin"]
        failure = outcome.failure
        assert failure.code == alone.code().value[0]
        assert failure.message == alone.details()
        assert Status.FromString(failure.status_details) == Status.FromString(details)

    def test_it_writes_a_long_stream_of_operations(self, stubs: Stubs) -> None:
        count = 4_000  # several times the windows of a stream and of a connection
        requests = (
            stubs.batches.WriteRequest(
                correlation_id=number,
                operation=stubs.batches.Operation(
                    add_credits=stubs.messages.CreditRequest(
                        user_id=2200 + number % 20, app_id=33, credits=1, created_by=1
                    )
                ),
            )
            for number in range(count)
        )
        responses = list(stubs.ledger.Write(requests))
        assert sorted(response.correlation_id for response in responses) == list(range(count))
        assert all(response.outcome.WhichOneof("result") == "receipt" for response in responses)
        assert stubs.service.GetAppBalance(stubs.messages.AppId(app_id=33)).balance == count

    async def test_a_stream_of_operations_can_be_cancelled(
        self, stubs: Stubs, server: ServerProcess
    ) -> None:
        stream = stubs.ledger.Write(iter(()), metadata=[("x-request-id", "cancelled-stream")])
        assert list(stream) == []
        add = stubs.messages.CreditRequest(user_id=212, app_id=34, credits=1, created_by=1)
        operation = stubs.batches.Operation(add_credits=add)
        sent, never = threading.Event(), threading.Event()

        def requests() -> Iterator[Any]:
            yield stubs.batches.WriteRequest(correlation_id=1, operation=operation)
            sent.set()
            never.wait()

        stream = stubs.ledger.Write(requests(), metadata=[("x-request-id", "cancelled-write")])
        assert next(stream).outcome.receipt.balance == 1
        stream.cancel()
        never.set()
        line = await server.logged(lambda line: line.get("request_id") == "cancelled-write")
        assert line["status"] == "CANCELLED"


class TestBareHttp2:
    async def _call(self, server: ServerProcess, request: bytes, *more: tuple[str, str]) -> Answer:
        async with Connection.connect(server.port) as wire:
            return await wire.request(call_headers(f"/{SERVICE}/GetAppBalance", *more), request)

    async def test_the_rejection_of_a_compressed_message_lists_the_accepted_encodings(
        self, server: ServerProcess
    ) -> None:
        packed = framed(zlib.compress(encode(credit_models.AppId(app_id=1))), flag=1)
        answer = await self._call(server, packed, ("grpc-encoding", "deflate"))
        assert answer.headers["grpc-status"] == str(grpc.StatusCode.UNIMPLEMENTED.value[0])
        assert answer.headers["grpc-accept-encoding"] == "identity,gzip"

    async def test_the_server_itself_keeps_the_deadline(self, server: ServerProcess) -> None:
        message = framed(encode(credit_models.AppId(app_id=1)))
        answer = await self._call(server, message, ("grpc-timeout", "1n"))
        assert answer.headers["grpc-status"] == str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])

    async def test_an_answer_is_headers_message_and_trailers(self, server: ServerProcess) -> None:
        answer = await self._call(server, framed(encode(credit_models.AppId(app_id=404))))
        assert answer.headers[":status"] == "200"
        assert answer.headers["content-type"] == "application/grpc+proto"
        assert answer.data == b"\0\0\0\0\3" + encode(credit_models.Balance(app_id=404))
        assert answer.trailers == {"grpc-status": "0"}


def _curl(server: ServerProcess, call: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Make a call with `buf curl` and return its answers."""
    done = _buf_curl(server, call, request, "--schema", str(CONTRACTS))
    assert done.returncode == 0, done.stderr
    decoder, text, answers = json.JSONDecoder(), done.stdout.strip(), []
    while text:
        answer, end = decoder.raw_decode(text)
        answers.append(answer)
        text = text[end:].lstrip()
    return answers


def _buf_curl(
    server: ServerProcess, call: str, request: dict[str, Any] | None, *options: str
) -> subprocess.CompletedProcess[str]:
    url = f"http://{server.address}" + (f"/{SERVICE}/{call}" if call else "")
    return _run_buf_curl(url, request, *options)


def _run_buf_curl(
    url: str, request: dict[str, Any] | None, *options: str
) -> subprocess.CompletedProcess[str]:
    data = () if request is None else ("--data", json.dumps(request))
    return subprocess.run(
        [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *options, *data, url],
        check=False,
        capture_output=True,
        text=True,
    )


def _base64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))


def _purchase(stubs: Stubs, **fields: int) -> Any:
    described = {"report_id": "r-1", "report_name": "Report", "app_id": 1, "created_by": 1}
    return stubs.messages.PurchaseRequest(**described | fields)


def _receipt(stubs: Stubs, _: Any, call: Any) -> Any:
    return stubs.messages.Receipt.FromString(dict(call.trailing_metadata())[RECEIPT])


def _refused(method: Any, request: Any, **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        method(request, **options)
    return caught.value


def _details(error: Any) -> list[ErrorInfo | BadRequest]:
    """Return the details of a refusal, and check that they repeat its status and message."""
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    details = []
    for packed in status.details:
        kind = {"ErrorInfo": ErrorInfo, "BadRequest": BadRequest}[packed.TypeName().split(".")[-1]]
        details.append(kind.FromString(packed.value))
    return details


def _health(channel: Any, call: str) -> Any:
    make = channel.unary_stream if call == "Watch" else channel.unary_unary
    return make(
        f"/grpc.health.v1.Health/{call}",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
