"""The error details of a reply."""

from dataclasses import replace

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import (
    error_details_pb2,  # importing it adds the standard details to the default pool
    status_pb2,
)

from grpc_fuzz.model import Detail, Metadata, Reply
from grpc_fuzz.schema import Schema

DETAILS_TRAILER = "grpc-status-details-bin"


def with_details(reply: Reply, schema: Schema) -> Reply:
    """Return the reply with its error details decoded.

    Args:
        reply: A reply without details.
        schema: The contract, which may define further detail messages.
    """
    details, error = decode_details(reply.trailers, schema)
    return replace(reply, details=details, details_error=error)


def decode_details(trailers: Metadata, schema: Schema) -> tuple[tuple[Detail, ...], str | None]:
    """Read the rich error of a reply.

    Args:
        trailers: The trailers of the reply, with `-bin` values decoded from base64.
        schema: The contract, which may define further detail messages.

    Returns:
        The details, and why they cannot be read, or None.
    """
    value = next((value for key, value in trailers if key == DETAILS_TRAILER), None)
    if value is None:
        return (), None
    if isinstance(value, str):
        return (), "the trailer is not binary"
    try:
        status = status_pb2.Status.FromString(value)
    except DecodeError:
        return (), "the trailer does not hold a google.rpc.Status"
    return tuple(_detail(entry, schema) for entry in status.details), None


def error_info(reply: Reply) -> Message | None:
    """Return the `google.rpc.ErrorInfo` among the details, or None."""
    return detail(reply, "google.rpc.ErrorInfo")


def detail(reply: Reply, name: str) -> Message | None:
    """Return the first decoded detail with a full name, or None."""
    found = (entry.message for entry in reply.details if entry.name == name)
    return next((message for message in found if message is not None), None)


def reason_of(reply: Reply) -> str | None:
    """Return the reason of the reply's `google.rpc.ErrorInfo`, or None."""
    info = error_info(reply)
    if not isinstance(info, error_details_pb2.ErrorInfo):
        return None
    reason: str = info.reason
    return reason


def _detail(entry: AnyMessage, schema: Schema) -> Detail:
    return Detail(
        type_url=entry.type_url,
        value=entry.value,
        message=_decode(entry.type_url.rpartition("/")[2], entry.value, schema),
    )


def _decode(name: str, value: bytes, schema: Schema) -> Message | None:
    # The default pool is first because checks know its google.rpc classes by type.
    for pool in (Default(), schema.pool):
        try:
            return GetMessageClass(pool.FindMessageTypeByName(name)).FromString(value)
        except KeyError:
            continue
        except DecodeError:
            return None
    return None
