"""Inflates compressed messages, never further than a limit.

Which status belongs to which fault: https://github.com/grpc/grpc/blob/master/doc/compression.md.
"""

import zlib

from grpclib.const import Status
from grpclib.exceptions import GRPCError

ACCEPTED = "identity,gzip"
"""What every answer names in `grpc-accept-encoding`."""

_GZIP_WINDOW_BITS = 31  # zlib's way to say: a gzip header and trailer, and the largest window


def inflate(data: bytes, encoding: str, *, bytes_max: int) -> bytes:
    """Inflate a message that is flagged as compressed.

    Args:
        data: The message as it came.
        encoding: The call's `grpc-encoding`; empty where there is none.
        bytes_max: The longest message that may come of it. No more than this and one byte is ever
            inflated, however much is in the data.

    Raises:
        GRPCError: INTERNAL where the call names no encoding, or the data is not exactly one sound
            gzip member; UNIMPLEMENTED for another encoding; RESOURCE_EXHAUSTED for too long a
            message.
    """
    if encoding in ("", "identity"):
        raise GRPCError(
            Status.INTERNAL, "a message is flagged as compressed and grpc-encoding is missing"
        )
    if encoding != "gzip":
        # The answer's grpc-accept-encoding tells the client what to use instead.
        raise GRPCError(
            Status.UNIMPLEMENTED, "the message's compression is not supported: use gzip or identity"
        )
    inflater = zlib.decompressobj(wbits=_GZIP_WINDOW_BITS)
    try:
        message = inflater.decompress(data, bytes_max + 1)
    except zlib.error:
        raise GRPCError(Status.INTERNAL, "the message is not gzip, or it is damaged") from None
    if len(message) > bytes_max:
        raise GRPCError(
            Status.RESOURCE_EXHAUSTED,
            f"the inflated message has more than {bytes_max} bytes, which are the most",
        )
    if not inflater.eof:
        raise GRPCError(Status.INTERNAL, "the compressed message ends too early")
    if inflater.unused_data:
        raise GRPCError(Status.INTERNAL, "something follows the compressed message")
    return message
