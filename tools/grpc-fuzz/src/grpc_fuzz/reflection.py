"""Asking a server for its contract: grpc.reflection.v1, or v1alpha where that is all it has."""

import contextlib
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from grpc_fuzz.call import call, header_fields
from grpc_fuzz.model import Limits, Metadata
from grpc_fuzz.schema import SchemaError
from grpc_fuzz.target import Target
from grpc_fuzz.wire.connection import Connection

_VERSIONS = ("v1", "v1alpha")
# What every server has and no contract is about.
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
# Any: protobuf has no static types for messages that are made at run time.
_Request: Any = GetMessageClass(_POOL.FindMessageTypeByName("reflection.Request"))
_Response: Any = GetMessageClass(_POOL.FindMessageTypeByName("reflection.Response"))


def fetch(target: Target, limits: Limits, metadata: Metadata = ()) -> FileDescriptorSet:
    """Asks a server for all its services and every file that they need.

    Args:
        target: The server.
        limits: How long each answer may take.
        metadata: Sent with each question.

    Raises:
        SchemaError: The server has no reflection, or does not answer.
    """
    try:
        return _Reflection(target, limits, metadata).files()
    except OSError as error:
        raise SchemaError(f"{target}: {error.strerror or error}") from error


class _Unimplemented(SchemaError):
    """The server does not have this version of reflection."""


class _Reflection:
    """One conversation."""

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
            answer = self._ask(list_services="*")
        except _Unimplemented:
            self._version = _VERSIONS[1]
            answer = self._ask(list_services="*")
        return [service.name for service in answer.services.service]

    def _add(self, serialized: list[bytes]) -> None:
        for data in serialized:
            try:
                file = FileDescriptorProto.FromString(data)
            except DecodeError as error:
                raise SchemaError(f"reflection sent a malformed descriptor: {error}") from error
            self._files[file.name] = file
        missing = {name for file in self._files.values() for name in file.dependency}
        for name in sorted(missing - self._files.keys()):
            # One file's answer may have brought others with it.
            if name not in self._files:
                self._add(self._ask(file_by_filename=name).files.file)

    def _ask(self, **question: str) -> Any:
        """Any: the answer is of a message that is made at run time."""
        path = f"/grpc.reflection.{self._version}.ServerReflection/ServerReflectionInfo"
        request = _Request(**question).SerializeToString()
        with contextlib.closing(Connection(self._target, self._seconds)) as connection:
            connection.open()
            fields = header_fields(self._target, self._metadata, self._seconds)
            call(connection, path, fields, (request,), self._seconds)
            reply = connection.exchange.reply(0.0)
        if reply.status == "UNIMPLEMENTED":
            raise _Unimplemented(
                f"{self._target} has no reflection; switch it on there, or give an IMAGE"
            )
        if not reply.responses:
            why = reply.message or reply.transport_error
            raise SchemaError(f"{self._target}: no answer of reflection: {reply.outcome} {why}")
        answer = _Response.FromString(reply.responses[0])
        if answer.HasField("error"):
            raise SchemaError(f"{self._target}: reflection: {answer.error.message}")
        return answer
