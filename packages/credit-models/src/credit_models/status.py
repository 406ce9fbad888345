"""What accompanies the status of a refused call: messages of `google.rpc`, as bytes.

They travel in the trailing metadata `grpc-status-details-bin`.
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
    """Packs and unpacks the details of a status.

    Packing is grpclib's own. Its unpacking raises for malformed details, so that a client would see
    a protobuf error in the place of the refusal.
    """

    def decode(self, status: Status, message: str | None, data: bytes) -> list[Message]:
        """Unpacks what can be understood.

        Args:
            status: The status itself; not needed here.
            message: Its message; not needed here.
            data: The bytes of a `google.rpc.Status`, from whoever answered.

        Returns:
            The details that are messages of `google/rpc/error_details.proto`, in their order.
            Unknown and malformed ones are left out.
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
