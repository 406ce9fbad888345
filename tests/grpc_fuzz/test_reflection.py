"""A contract can be had from the server itself."""

from collections.abc import Callable

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_fuzz import reflection
from grpc_fuzz.model import Limits
from grpc_fuzz.schema import Schema, SchemaError
from grpc_fuzz.target import Target
from grpc_fuzz.wire.script import varint

from tests.grpc_fuzz.http2_server import Admit, Http2Server, Refused, anybody
from tests.grpc_fuzz.protocols import features, image_of

FILES = {file.name: file for file in FileDescriptorSet.FromString(image_of("features.proto")).file}


def field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def answer_to(question: bytes) -> bytes:
    """Answers as reflection.proto has it, written out by hand."""
    number, text = question[0] >> 3, question[2:].decode()
    if number == 7:
        names = ("features.v1.Features", "grpc.health.v1.Health")
        return field(6, b"".join(field(1, field(1, name.encode())) for name in names))
    name = "features.proto" if number == 4 else text
    if name not in FILES:
        return field(7, field(2, b"no such file"))
    return field(4, field(1, FILES[name].SerializeToString()))


def serve(
    version: str, answer: Callable[[bytes], bytes] = answer_to, admit: Admit = anybody
) -> Http2Server:
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"

    def handle(called: str, data: bytes) -> list[bytes]:
        if called != path:
            raise Refused("UNIMPLEMENTED")
        return [answer(data)]

    return Http2Server(handle, admit=admit)


def fetched(port: int) -> FileDescriptorSet:
    return reflection.fetch(Target(host="127.0.0.1", port=port), Limits())


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_the_contract_is_complete_with_all_imports(version: str) -> None:
    with serve(version).running() as port:
        schema = Schema(fetched(port))

    assert [method.path for method in schema.methods] == [
        method.path for method in features().methods
    ]


def test_reflection_is_asked_with_the_metadata_of_the_run() -> None:
    def admit(path: str, authorization: str | None) -> None:
        if authorization != "Bearer abc":
            raise Refused("UNAUTHENTICATED")

    with serve("v1", admit=admit).running() as port:
        target = Target(host="127.0.0.1", port=port)
        assert reflection.fetch(target, Limits(), (("authorization", "Bearer abc"),)).file
        with pytest.raises(SchemaError, match="UNAUTHENTICATED"):
            reflection.fetch(target, Limits())


def test_a_server_without_reflection_is_said_to_have_none() -> None:
    with serve("v0").running() as port, pytest.raises(SchemaError, match="no reflection"):
        fetched(port)


def test_an_error_of_reflection_is_passed_on() -> None:
    def refuse(question: bytes) -> bytes:
        return answer_to(question) if question[0] >> 3 == 7 else field(7, field(2, b"not today"))

    with serve("v1", refuse).running() as port, pytest.raises(SchemaError, match="not today"):
        fetched(port)
