"""gRPC's own services: health and reflection (v1 and v1alpha)."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

from google.protobuf import duration_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpclib._typing import ICheckable, IServable
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.health.v1 import health_pb2
from grpclib.reflection.service import ServerReflection
from grpclib.reflection.v1 import reflection_pb2
from grpclib.reflection.v1alpha import reflection_pb2 as reflection_alpha_pb2


def with_standard_services(
    services: Collection[ICheckable], status: ServiceStatus, files: FileDescriptorSet
) -> list[IServable]:
    """Return everything that is served: services, health and reflection.

    Args:
        services: The services.
        status: Whether they serve; the server keeps it current. It is also the overall health.
        files: The files that define the services, for reflection.
    """
    health = Health({**{service: [status] for service in services}, OVERALL: [status]})
    pool = _Symbols(files)
    served: list[IServable] = ServerReflection.extend([*services, health], pool=pool)
    return served


class _Symbols:
    """A descriptor pool of all services that are served, for reflection.

    It also has the messages of status details, so that a client that uses reflection can decode
    them, and finds methods, which the reflection protocol counts as symbols.

    It is not a subclass: protobuf's C implementation turns a subclass into a plain pool. The pool
    is made at the first request for reflection, because most servers get no such request.
    """

    def __init__(self, files: FileDescriptorSet) -> None:
        self._files = files

    # Any: a descriptor of any kind.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - protobuf's
        """Find the file that defines a symbol.

        Raises:
            KeyError: No file defines it.
        """
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file

    @cached_property
    def _pool(self) -> DescriptorPool:
        pool = DescriptorPool()
        for file in self._files.file:
            pool.Add(file)
        # error_details.proto imports duration.proto, which the service's files need not.
        for module in (
            duration_pb2,
            error_details_pb2,
            health_pb2,
            reflection_pb2,
            reflection_alpha_pb2,
        ):
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        return pool
