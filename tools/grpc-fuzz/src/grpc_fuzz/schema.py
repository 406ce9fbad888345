"""A contract with its methods, message types and constraints, from a FileDescriptorSet."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    MethodDescriptor,
    OneofDescriptor,
)
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from grpc_fuzz import constraint
from grpc_fuzz.adapters import Adapter, BufValidate
from grpc_fuzz.adapters.adapter import Options
from grpc_fuzz.constraint import Constraint
from grpc_fuzz.errors import SchemaError
from grpc_fuzz.model import DeclaredError, Method

HOW_TO_BUILD = (
    "Build the image with `buf build -o image.binpb`, or with"
    " `protoc --include_imports -o image.binpb FILE.proto`"
    " (`python -m grpc_tools.protoc …` where grpcio-tools is installed)"
)

DEFAULT_ADAPTERS: tuple[Adapter, ...] = (BufValidate(),)


def descriptor_of(message: Message) -> Descriptor:
    """Return the type of a message, for which the stubs of protobuf have two names."""
    return cast(Descriptor, message.DESCRIPTOR)


def texts_in(message: Message) -> Iterator[str]:
    """Yield every string of a message, at any depth, and the names of its enum values."""
    for field, value in message.ListFields():
        if is_map(field):
            entries = [*value.keys(), *value.values()]
        else:
            entries = [*value] if field.is_repeated else [value]
        for entry in entries:
            if isinstance(entry, Message):
                yield from texts_in(entry)
            elif isinstance(entry, str):
                yield entry
            elif field.enum_type is not None and entry in field.enum_type.values_by_number:
                yield str(field.enum_type.values_by_number[entry].name)


def is_map(field: FieldDescriptor) -> bool:
    """Return whether the field is a map."""
    entry = field.message_type
    return entry is not None and field.is_repeated and bool(entry.GetOptions().map_entry)


class Schema:
    """The contract of a server.

    Attributes:
        image: The serialized FileDescriptorSet.
        pool: The descriptor pool of the contract, which is not the default one.
        methods: All methods of all services, in the order of the files.
        request_types: The full names of all message and enum types that requests hold.
    """

    def __init__(self, files: FileDescriptorSet, adapters: Sequence[Adapter] = DEFAULT_ADAPTERS):
        self.image = files.SerializeToString()
        self.pool = DescriptorPool()
        for file in _in_order(files):
            try:
                self.pool.AddSerializedFile(file.SerializeToString())
            except (TypeError, ValueError) as error:
                raise SchemaError(_why_not_added(file, files, error)) from error
        self._adapters = tuple(adapters)
        self._options = Options(self.pool)
        self._constraints: dict[str, Constraint] = {}
        self.methods = tuple(self._methods(files))
        self.request_types = frozenset(_types_in(method.input for method in self.methods))

    @classmethod
    def from_image(cls, image: bytes, adapters: Sequence[Adapter] = DEFAULT_ADAPTERS) -> "Schema":
        """Read a serialized FileDescriptorSet, such as an image of `buf build`.

        Raises:
            SchemaError: The image is not one, or lacks a file that another file imports.
        """
        try:
            files = FileDescriptorSet.FromString(image)
        except DecodeError as error:
            raise SchemaError(f"it {_what_instead(image)}. {HOW_TO_BUILD}") from error
        if not any(file.name and (file.service or file.message_type) for file in files.file):
            raise SchemaError(f"it contains no contract. {HOW_TO_BUILD}")
        return cls(files, adapters)

    @classmethod
    def from_file(cls, path: Path, adapters: Sequence[Adapter] = DEFAULT_ADAPTERS) -> "Schema":
        """Read a file that `buf build -o` or `protoc --include_imports -o` has written.

        Raises:
            SchemaError: The file cannot be read, or is not an image.
        """
        if path.suffix == ".proto":
            raise SchemaError(f"{path} is a source file and not an image. {HOW_TO_BUILD}")
        try:
            return cls.from_image(path.read_bytes(), adapters)
        except OSError as error:
            raise SchemaError(f"{path}: {error.strerror}") from error
        except SchemaError as error:
            raise SchemaError(f"{path}: {error}") from error

    def method(self, path: str) -> Method:
        """Return the method with a path.

        Raises:
            KeyError: The contract has no such method.
        """
        for method in self.methods:
            if method.path == path:
                return method
        raise KeyError(path)

    def message_class(self, descriptor: Descriptor) -> type[Message]:
        """Return the class of a message type."""
        return GetMessageClass(descriptor)

    def parse(self, descriptor: Descriptor, data: bytes) -> Message:
        """Parse a message.

        Raises:
            google.protobuf.message.DecodeError: The bytes are malformed.
        """
        return GetMessageClass(descriptor).FromString(data)

    def constraint(self, field: FieldDescriptor) -> Constraint:
        """Return the constraint of a field, joined from all adapters."""
        known = self._constraints.get(field.full_name)
        if known is None:
            found = [adapter.constraint(field, self._options) for adapter in self._adapters]
            known = constraint.merge([entry for entry in found if entry is not None])
            self._constraints[field.full_name] = known
        return known

    def oneof_required(self, oneof: OneofDescriptor) -> bool:
        """Return whether one of the members must be set."""
        return any(adapter.oneof_required(oneof, self._options) for adapter in self._adapters)

    def _errors(self, method: MethodDescriptor) -> tuple[DeclaredError, ...] | None:
        found = [adapter.errors(method, self._options) for adapter in self._adapters]
        declared = [errors for errors in found if errors is not None]
        return tuple(error for errors in declared for error in errors) if declared else None

    def _methods(self, files: FileDescriptorSet) -> Iterator[Method]:
        for file in files.file:
            for service in self.pool.FindFileByName(file.name).services_by_name.values():
                for method in service.methods:
                    yield self._method(method)

    def _method(self, method: MethodDescriptor) -> Method:
        service = method.containing_service.full_name
        level = method.GetOptions().idempotency_level
        return Method(
            path=f"/{service}/{method.name}",
            service=service,
            name=method.name,
            input=method.input_type,
            output=method.output_type,
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
            idempotency=MethodOptions.IdempotencyLevel.Name(level),
            declared=self._errors(method),
        )


def _what_instead(image: bytes) -> str:
    """Return what a file is that cannot be read as an image."""
    start = image.lstrip()[:1]
    if image.startswith(b"\x1f\x8b"):
        return "is compressed with gzip; unpack it"
    if start in (b"{", b"["):
        return "is JSON and not a binary image"
    if b"syntax" in image and b"message" in image:
        return "is a source file and not an image"
    return "is not a FileDescriptorSet"


def _why_not_added(file: FileDescriptorProto, files: FileDescriptorSet, error: Exception) -> str:
    included = {other.name for other in files.file}
    missing = [name for name in file.dependency if name not in included]
    if missing:
        return f"{file.name} imports {', '.join(missing)}, which the image lacks. {HOW_TO_BUILD}"
    return f"{file.name} cannot be added: {error}"


def _types_in(descriptors: Iterable[Descriptor]) -> set[str]:
    found: set[str] = set()
    left = [*descriptors]
    while left:
        descriptor = left.pop()
        if descriptor.full_name in found:
            continue
        found.add(descriptor.full_name)
        for field in descriptor.fields:
            if field.message_type is not None:
                left.append(field.message_type)
            elif field.enum_type is not None:
                found.add(field.enum_type.full_name)
    return found


def _in_order(files: FileDescriptorSet) -> Iterator[FileDescriptorProto]:
    """Yield each file after those that it imports, as a descriptor pool requires."""
    by_name = {file.name: file for file in files.file}
    done: set[str] = set()

    def visit(name: str) -> Iterator[FileDescriptorProto]:
        if name in done or name not in by_name:
            return
        done.add(name)
        for imported in by_name[name].dependency:
            yield from visit(imported)
        yield by_name[name]

    for name in by_name:
        yield from visit(name)
