"""Encodes the details of an error status: messages of `google.rpc`, sent as bytes.

gRPC sends them in the trailing metadata `grpc-status-details-bin`.
"""

from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpclib.const import Status
from grpclib.encoding.proto import ProtoStatusDetailsCodec

__all__ = ["StatusDetailsCodec"]

_KNOWN = {
    descriptor.full_name: getattr(error_details_pb2, name)
    for name, descriptor in error_details_pb2.DESCRIPTOR.message_types_by_name.items()
}


class StatusDetailsCodec(ProtoStatusDetailsCodec):
    """The codec for the details of a status.

    `encode` is grpclib's own. grpclib's `decode` raises for malformed details, and a client would
    see a protobuf error instead of the refusal.
    """

    def decode(self, status: Status, message: str | None, data: bytes) -> list[Message]:
        """Return the details that are valid and of a known type.

        Args:
            status: The status; not used.
            message: The status message; not used.
            data: The bytes of a `google.rpc.Status`, from an untrusted peer.

        Returns:
            The messages of `google/rpc/error_details.proto`, in their order, without unknown and
            malformed details.
        """
        try:
            packed = status_pb2.Status.FromString(data).details
        except DecodeError:
            return []
        details = []
        for container in packed:
            known = _KNOWN.get(container.TypeName())
            if known is None:
                continue
            try:
                details.append(known.FromString(container.value))
            except DecodeError:
                continue
        return details
