"""The contract can be read from the server by reflection."""

from collections.abc import Callable

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_fuzz import reflection
from grpc_fuzz.errors import SchemaError
from grpc_fuzz.model import Limits
from grpc_fuzz.schema import Schema
from grpc_fuzz.strategies.encodings import varint
from grpc_fuzz.target import Target

from tests.grpc_fuzz.contracts import features_schema, image_of
from tests.grpc_fuzz.http2_server import Admit, CallError, Http2Server, admit_all

FILES = {file.name: file for file in FileDescriptorSet.FromString(image_of("features.proto")).file}


def field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def answer_to(question: bytes) -> bytes:
    """Return the response that reflection.proto defines, encoded by hand."""
    number, text = question[0] >> 3, question[2:].decode()
    if number == 7:
        names = ("features.v1.Features", "grpc.health.v1.Health")
        return field(6, b"".join(field(1, field(1, name.encode())) for name in names))
    name = "features.proto" if number == 4 else text
    if name not in FILES:
        return field(7, field(2, b"no such file"))
    return field(4, field(1, FILES[name].SerializeToString()))


def serve(
    version: str, answer: Callable[[bytes], bytes] = answer_to, admit: Admit = admit_all
) -> Http2Server:
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"

    def handle(called: str, data: bytes) -> list[bytes]:
        if called != path:
            raise CallError("UNIMPLEMENTED")
        return [answer(data)]

    return Http2Server(handle, admit=admit)


def fetched(port: int) -> FileDescriptorSet:
    return reflection.fetch(Target(host="127.0.0.1", port=port), Limits())


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_the_contract_is_complete_with_all_imports(version: str) -> None:
    with serve(version).running() as port:
        schema = Schema(fetched(port))

    assert [method.path for method in schema.methods] == [
        method.path for method in features_schema().methods
    ]


def test_reflection_sends_the_metadata_of_the_run() -> None:
    def admit(path: str, authorization: str | None) -> None:
        if authorization != "Bearer abc":
            raise CallError("UNAUTHENTICATED")

    with serve("v1", admit=admit).running() as port:
        target = Target(host="127.0.0.1", port=port)
        assert reflection.fetch(target, Limits(), (("authorization", "Bearer abc"),)).file
        with pytest.raises(SchemaError, match="UNAUTHENTICATED"):
            reflection.fetch(target, Limits())


def test_a_server_without_reflection_is_reported() -> None:
    with serve("v0").running() as port, pytest.raises(SchemaError, match="no reflection"):
        fetched(port)


def test_an_error_of_the_reflection_service_is_reported() -> None:
    def refuse(question: bytes) -> bytes:
        return answer_to(question) if question[0] >> 3 == 7 else field(7, field(2, b"not today"))

    with serve("v1", refuse).running() as port, pytest.raises(SchemaError, match="not today"):
        fetched(port)
