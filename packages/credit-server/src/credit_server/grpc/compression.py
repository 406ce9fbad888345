"""Inflates compressed messages, never beyond a limit.

The statuses are those of https://github.com/grpc/grpc/blob/master/doc/compression.md.
"""

import zlib

from grpclib.const import Status
from grpclib.exceptions import GRPCError

# What every answer sends in `grpc-accept-encoding`.
ACCEPTED = "identity,gzip"

# zlib's notation for a gzip header and trailer, and the largest window.
_GZIP_WINDOW_BITS = 31


def inflate(data: bytes, encoding: str, *, bytes_max: int) -> bytes:
    """Inflate a message that is flagged as compressed.

    Args:
        data: The message as it came.
        encoding: The call's `grpc-encoding`; empty if it has none.
        bytes_max: The longest message that may result. No more than this and one byte is ever
            inflated, however much is in the data.

    Raises:
        GRPCError: INTERNAL if the call names no encoding, or the data is not exactly one sound
            gzip member; UNIMPLEMENTED for another encoding; RESOURCE_EXHAUSTED if the message is
            too long.
    """
    if encoding in ("", "identity"):
        raise GRPCError(
            Status.INTERNAL, "a message is flagged as compressed and grpc-encoding is missing"
        )
    if encoding != "gzip":
        # The answer's grpc-accept-encoding lists what the client may use instead.
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
