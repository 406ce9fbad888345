"""gRPC's own services beside the contract's: health and reflection (v1 and v1alpha)."""

from typing import Any

from credit_models.image import FILE_DESCRIPTOR_SET
from google.protobuf import duration_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpclib._typing import IServable
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.health.v1 import health_pb2
from grpclib.reflection.service import ServerReflection
from grpclib.reflection.v1 import reflection_pb2
from grpclib.reflection.v1alpha import reflection_pb2 as reflection_alpha_pb2

from credit_server.api.service import CreditService


def standard_services(service: CreditService, status: ServiceStatus) -> list[IServable]:
    """Make everything that is served: the contract's service, health and reflection.

    Args:
        service: The contract's service.
        status: Whether it serves; the server keeps it current. It is also the overall health.
    """
    health = Health({service: [status], OVERALL: [status]})
    services: list[IServable] = ServerReflection.extend([service, health], pool=_Symbols(_pool()))
    return services


class _Symbols:
    """A pool that finds methods as well, which the reflection protocol counts as symbols.

    Not a subclass: protobuf's C implementation makes a plain pool of it.
    """

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    # Any: the descriptors of whatever is looked for.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - protobuf's
        """Find the file that defines a symbol.

        Raises:
            KeyError: There is none.
        """
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file


def _pool() -> DescriptorPool:
    """Make one pool that knows every service that is served: reflection answers from it.

    It knows the details of refusals too, so that a client that reflects can read them.
    """
    pool = DescriptorPool()
    for file in FILE_DESCRIPTOR_SET.file:
        pool.Add(file)
    # error_details.proto imports duration.proto, which the contract does not.
    for module in (
        duration_pb2,
        error_details_pb2,
        health_pb2,
        reflection_pb2,
        reflection_alpha_pb2,
    ):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool
