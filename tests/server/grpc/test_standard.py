"""gRPC's own services: what a load balancer and a reflecting client see."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from credit_testing.calls import Answer, call_headers, framed
from credit_testing.http2_client import Connection
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpclib.const import Status
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.v1 import reflection_pb2
from grpclib.reflection.v1alpha import reflection_pb2 as reflection_alpha_pb2

from tests.server.serving import Serving, is_served

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING

SERVICES = (
    "",
    "credit.v1.CreditService",
    "credit.v1.LedgerService",
    "credit.v1.HistoryService",
    "credit.v1.AlertService",
    "credit.v1.DirectoryService",
)

VERSIONS = pytest.mark.parametrize(
    ("version", "module"),
    [("v1", reflection_pb2), ("v1alpha", reflection_alpha_pb2)],
    ids=["v1", "v1alpha"],
)


async def _check(wire: Connection, service: str) -> int:
    answer = await wire.call(CHECK, HealthCheckRequest(service=service))
    return answer.message(HealthCheckResponse).status


async def _watched(answer: Answer) -> AsyncIterator[int]:
    """Yield each status that a watch receives."""
    seen = 0
    while True:
        statuses = answer.messages(HealthCheckResponse)
        for message in statuses[seen:]:
            yield message.status
        seen = len(statuses)
        answer.changed.clear()
        await answer.changed.wait()


@pytest.mark.parametrize("service", SERVICES)
async def test_health_follows_the_server(wire: Connection, served: Serving, service: str) -> None:
    assert await _check(wire, service) == SERVING
    served.status.set(False)
    assert await _check(wire, service) == NOT_SERVING
    served.status.set(True)
    assert await _check(wire, service) == SERVING


async def test_the_health_of_an_unknown_service_is_not_found(wire: Connection) -> None:
    answer = await wire.call(CHECK, HealthCheckRequest(service="credit.v2.CreditService"))
    assert answer.status is Status.NOT_FOUND


@pytest.mark.parametrize("service", SERVICES)
async def test_a_watch_sends_each_change(
    wire: Connection, bystander: Connection, served: Serving, service: str
) -> None:
    _, answer = wire.begin(
        call_headers(WATCH), framed(HealthCheckRequest(service=service).SerializeToString())
    )
    statuses = _watched(answer)
    assert await anext(statuses) == SERVING
    for healthy, expected in ((False, NOT_SERVING), (True, SERVING)):
        served.status.set(healthy)
        assert await anext(statuses) == expected


async def test_a_watch_of_an_unknown_service_sends_that_and_stays_open(
    wire: Connection, bystander: Connection
) -> None:
    _, answer = wire.begin(
        call_headers(WATCH), framed(HealthCheckRequest(service="x").SerializeToString())
    )
    assert await anext(_watched(answer)) == HealthCheckResponse.SERVICE_UNKNOWN
    await is_served(wire)
    assert not answer.ended.is_set()


async def test_a_watch_ends_with_its_client(served: Serving) -> None:
    tasks = asyncio.all_tasks()
    async with Connection.connect(served.port) as wire:
        _, answer = wire.begin(call_headers(WATCH), framed(b""))
        await anext(_watched(answer))
        begun = asyncio.all_tasks() - tasks
    await asyncio.wait(begun)
    assert not served.status._events


@VERSIONS
async def test_reflection_lists_the_services(
    wire: Connection, version: str, module: object
) -> None:
    messages = reflection_pb2 if module is reflection_pb2 else reflection_alpha_pb2
    answer = await wire.call(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        messages.ServerReflectionRequest(list_services=""),
    )
    listed = answer.message(messages.ServerReflectionResponse).list_services_response
    assert {service.name for service in listed.service} >= {
        "credit.v1.AlertService",
        "credit.v1.CreditService",
        "credit.v1.DirectoryService",
        "credit.v1.HistoryService",
        "credit.v1.LedgerService",
        "grpc.health.v1.Health",
    }


@VERSIONS
@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("credit.v1.CreditService", "credit/v1/credit.proto"),
        ("credit.v1.CreditService.AddCredits", "credit/v1/credit.proto"),
        ("credit.v1.LedgerService.Write", "credit/v1/ledger.proto"),
        ("credit.v1.ErrorReason", "credit/v1/error_reason.proto"),
        ("credit.options.v1.Constraint", "credit/options/v1/options.proto"),
        ("google.protobuf.Timestamp", "google/protobuf/timestamp.proto"),
        ("google.rpc.ErrorInfo", "google/rpc/error_details.proto"),
        ("grpc.health.v1.Health", "grpclib/health/v1/health.proto"),
    ],
)
async def test_reflection_finds_files_by_symbol(
    wire: Connection, version: str, module: object, symbol: str, file: str
) -> None:
    messages = reflection_pb2 if module is reflection_pb2 else reflection_alpha_pb2
    answer = await wire.call(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        messages.ServerReflectionRequest(file_containing_symbol=symbol),
    )
    reply = answer.message(messages.ServerReflectionResponse)
    (data,) = reply.file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(data).name == file


@VERSIONS
async def test_reflection_reports_unknown_symbols(
    wire: Connection, version: str, module: object
) -> None:
    messages = reflection_pb2 if module is reflection_pb2 else reflection_alpha_pb2
    answer = await wire.call(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        messages.ServerReflectionRequest(file_containing_symbol="credit.v1.Nothing"),
    )
    reply = answer.message(messages.ServerReflectionResponse)
    assert reply.error_response.error_code == Status.NOT_FOUND.value


async def test_every_import_of_a_reflected_file_can_be_reflected(wire: Connection) -> None:
    """A reflecting client follows the imports: all the way down, none may be missing."""
    waiting, seen = ["credit/v1/credit.proto", "google/rpc/error_details.proto"], set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        answer = await wire.call(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest(file_by_filename=name),
        )
        reply = answer.message(reflection_pb2.ServerReflectionResponse)
        (data,) = reply.file_descriptor_response.file_descriptor_proto
        waiting += set(FileDescriptorProto.FromString(data).dependency) - seen
    assert "google/protobuf/descriptor.proto" in seen


async def test_several_questions_may_be_asked_in_one_call(wire: Connection) -> None:
    question = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    answer = await wire.request(
        call_headers("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
        framed(question) * 3,
    )
    assert len(answer.messages(reflection_pb2.ServerReflectionResponse)) == 3
    assert answer.status is Status.OK
