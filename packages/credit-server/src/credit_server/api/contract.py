"""What gRPC has to know of the contract: its codec, its errors, and which calls are writes."""

from typing import Any

from credit_models.codec import WireCodec
from credit_models.errors import WireError
from credit_models.image import FILE_DESCRIPTOR_SET, POOL
from google.protobuf.descriptor_pb2 import MethodOptions
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from credit_server.api import errors
from credit_server.grpc.ports import Contract

_SERVICE = POOL.FindServiceByName("credit.v1.CreditService")

WRITES = frozenset(
    f"/{_SERVICE.full_name}/{method.name}"
    for method in _SERVICE.methods
    if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
)
"""The paths of the calls that wait for a commit."""


class RequestCodec(WireCodec):
    """The wire codec, which raises the status of a request that it cannot decode."""

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Return the message in bytes. Any: the base class's signature.

        Raises:
            GRPCError: The bytes are not a valid message, or an integer does not fit its field.
        """
        try:
            return super().decode(data, message_type)
        except WireError as error:
            if error.violations:
                raise errors.invalid(error.violations) from None
            raise GRPCError(Status.INTERNAL, f"the message cannot be decoded: {error}") from None


CONTRACT = Contract(
    codec=RequestCodec(), translate=errors.translate, writes=WRITES, files=FILE_DESCRIPTOR_SET
)
