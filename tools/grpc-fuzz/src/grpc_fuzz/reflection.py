"""The contract of a server from its reflection service, in version v1 or v1alpha."""

import contextlib
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from grpc_fuzz.client import call, header_fields
from grpc_fuzz.errors import SchemaError
from grpc_fuzz.model import Limits, Metadata
from grpc_fuzz.target import Target
from grpc_fuzz.wire.connection import Connection

_VERSIONS = ("v1", "v1alpha")
# The services of the gRPC runtime, which are not part of a contract.
_INFRASTRUCTURE = ("grpc.reflection.", "grpc.health.", "grpc.channelz.")

# The part of grpc/reflection/v1/reflection.proto that is needed; v1alpha has the same numbers.
_PROTOCOL = """
name: "reflection.proto" package: "reflection" syntax: "proto3"
message_type { name: "Request"
  field { name: "file_by_filename" number: 3 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "file_containing_symbol" number: 4 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "list_services" number: 7 type: TYPE_STRING label: LABEL_OPTIONAL }
}
message_type { name: "Response"
  field { name: "files" number: 4 type_name: ".reflection.Files" label: LABEL_OPTIONAL }
  field { name: "services" number: 6 type_name: ".reflection.Services" label: LABEL_OPTIONAL }
  field { name: "error" number: 7 type_name: ".reflection.Error" label: LABEL_OPTIONAL }
}
message_type { name: "Files"
  field { name: "file" number: 1 type: TYPE_BYTES label: LABEL_REPEATED }
}
message_type { name: "Services"
  field { name: "service" number: 1 type_name: ".reflection.Service" label: LABEL_REPEATED }
}
message_type { name: "Service"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
}
message_type { name: "Error"
  field { name: "message" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
}
"""
_POOL = DescriptorPool()
_POOL.AddSerializedFile(text_format.Parse(_PROTOCOL, FileDescriptorProto()).SerializeToString())
# Any: messages that are built at run time have no static types.
_Request: Any = GetMessageClass(_POOL.FindMessageTypeByName("reflection.Request"))
_Response: Any = GetMessageClass(_POOL.FindMessageTypeByName("reflection.Response"))


def fetch(target: Target, limits: Limits, metadata: Metadata = ()) -> FileDescriptorSet:
    """Return all services of a server with every file that they need.

    Args:
        target: The server.
        limits: The limits on the time of each response.
        metadata: The metadata of each request.

    Raises:
        SchemaError: The server has no reflection service, or does not answer.
    """
    try:
        return _Reflection(target, limits, metadata).files()
    except OSError as error:
        raise SchemaError(f"{target}: {error.strerror or error}") from error


class _Unimplemented(SchemaError):
    """The server does not have this version of reflection."""


class _Reflection:
    """One exchange with the reflection service."""

    def __init__(self, target: Target, limits: Limits, metadata: Metadata) -> None:
        self._target = target
        self._metadata = metadata
        self._seconds = limits.request_timeout
        self._version = _VERSIONS[0]
        self._files: dict[str, FileDescriptorProto] = {}

    def files(self) -> FileDescriptorSet:
        for name in self._services():
            if not name.startswith(_INFRASTRUCTURE):
                self._add(self._ask(file_containing_symbol=name).files.file)
        return FileDescriptorSet(file=self._files.values())

    def _services(self) -> list[str]:
        try:
            response = self._ask(list_services="*")
        except _Unimplemented:
            self._version = _VERSIONS[1]
            response = self._ask(list_services="*")
        return [service.name for service in response.services.service]

    def _add(self, serialized: list[bytes]) -> None:
        for data in serialized:
            try:
                file = FileDescriptorProto.FromString(data)
            except DecodeError as error:
                raise SchemaError(f"reflection sent a malformed descriptor: {error}") from error
            self._files[file.name] = file
        missing = {name for file in self._files.values() for name in file.dependency}
        for name in sorted(missing - self._files.keys()):
            # The response for one file may contain others.
            if name not in self._files:
                self._add(self._ask(file_by_filename=name).files.file)

    # Any: the type of the response is built at run time.
    def _ask(self, **question: str) -> Any:
        path = f"/grpc.reflection.{self._version}.ServerReflection/ServerReflectionInfo"
        request = _Request(**question).SerializeToString()
        with contextlib.closing(Connection(self._target, self._seconds)) as connection:
            connection.open()
            fields = header_fields(self._target, self._metadata, self._seconds)
            call(connection, path, fields, (request,), self._seconds)
            reply = connection.exchange.reply(0.0)
        if reply.status == "UNIMPLEMENTED":
            raise _Unimplemented(
                f"{self._target} has no reflection service; enable it there, or give an IMAGE"
            )
        if not reply.responses:
            why = reply.message or reply.transport_error
            raise SchemaError(
                f"{self._target}: the reflection service does not answer: {reply.outcome} {why}"
            )
        response = _Response.FromString(reply.responses[0])
        if response.HasField("error"):
            raise SchemaError(f"{self._target}: reflection: {response.error.message}")
        return response
