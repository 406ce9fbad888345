"""A client of a released contract: it uses only the release's image and grpcio."""

from dataclasses import dataclass
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
from contract_check.image import Image

SERVICE = "credit.v1.CreditService"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The result of a call.

    Attributes:
        status: The name of the status, such as `OK`.
        messages: The responses, as the release's classes.
        trailers: The trailing metadata.
    """

    status: str
    messages: list[Any]  # Any: the classes come from an image
    trailers: dict[str, Any]


class ReleasedSdk:
    """A client that makes the calls of a release.

    Args:
        image: The release's image.
        channel: A grpcio channel to the server.
    """

    def __init__(self, image: Image, channel: Any) -> None:
        self.image = image
        self._channel = channel

    def new(self, name: str, **fields: object) -> Any:
        """Return a message of the release."""
        return self.image.message_class(f"credit.v1.{name}")(**fields)

    def call(self, name: str, **fields: object) -> Answered:
        """Make a call whose request has these fields."""
        method = self.image.methods[f"{SERVICE}.{name}"]
        request = self.image.message_class(method.input_type.full_name)(**fields)
        answer = self.image.message_class(method.output_type.full_name)
        make = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        call = make(
            f"/{SERVICE}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            if method.server_streaming:
                stream = call(request)
                return _answered(stream, list(stream))
            message, unary = call.with_call(request)
            return _answered(unary, [message])
        except grpc.RpcError as error:
            return _answered(error, [])


def _answered(call: Any, messages: list[Any]) -> Answered:
    return Answered(
        status=call.code().name, messages=messages, trailers=dict(call.trailing_metadata())
    )
