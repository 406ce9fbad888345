"""What gRPC has to know of the contract: its codec, its errors, and which calls are writes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from credit_models import BatchWriteRequest, WriteRequest
from credit_models.codec import WireCodec, decode_with_violations
from credit_models.errors import Violation, WireError
from credit_models.image import FILE_DESCRIPTOR_SET, SERVICES, method_path
from google.protobuf.descriptor_pb2 import MethodOptions
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from credit_server.access.authorize import WATCHES
from credit_server.api import errors
from credit_server.grpc.ports import Contract

WRITES = frozenset(
    method_path(method)
    for service in SERVICES
    for method in service.methods
    if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
)
"""The paths of the calls that wait for a commit."""


_Message = TypeVar("_Message", BatchWriteRequest, WriteRequest)
_WITH_OPERATIONS = frozenset({BatchWriteRequest, WriteRequest})

# Matches a field of an operation's request, in a batch or in a message of a stream.
_OF_OPERATION = re.compile(r"(?:operations\[(\d+)\]|operation)\.\w+\.(.+)")


@dataclass(frozen=True, slots=True)
class WithMisfits(Generic[_Message]):
    """A message with operations, of which some may have integers that do not fit their fields.

    Attributes:
        message: The message. Operations with misfits must not be executed.
        misfits: The fields of an operation's request whose integers do not fit, by the operation's
            position.
    """

    message: _Message
    misfits: Mapping[int, Sequence[Violation]]


class RequestCodec(WireCodec):
    """The wire codec, which raises the status of a request that it cannot decode.

    A message with operations is decoded as `WithMisfits`: an integer that does not fit rejects its
    operation alone.
    """

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Return the message in bytes. Any: the base class's signature.

        Raises:
            GRPCError: The bytes are not a valid message, an integer does not fit its field, or a
                message has a wrong number of operations.
        """
        try:
            if message_type in _WITH_OPERATIONS:
                message, violations = decode_with_violations(message_type, data)
                return WithMisfits(message, _by_operation(violations))
            return super().decode(data, message_type)
        except WireError as error:
            if error.violations:
                raise errors.invalid(error.violations) from None
            raise GRPCError(Status.INTERNAL, f"the message cannot be decoded: {error}") from None


def _by_operation(violations: Sequence[Violation]) -> Mapping[int, Sequence[Violation]]:
    """Return the violations of operations by position, with the fields of their own requests.

    Raises:
        GRPCError: A field outside the operations does not fit.
    """
    found: dict[int, list[Violation]] = {}
    for violation in violations:
        place = _OF_OPERATION.fullmatch(violation.field)
        if place is None:
            raise errors.invalid(violations)
        own = Violation(field=place[2], description=violation.description)
        found.setdefault(int(place[1] or 0), []).append(own)
    return found


CONTRACT = Contract(
    codec=RequestCodec(),
    translate=errors.translate,
    writes=WRITES,
    watches=WATCHES,
    files=FILE_DESCRIPTOR_SET,
)
