"""Make calls by gRPC-Web over HTTP/1.1, as browsers do, without a library for it.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md describes the protocol.
"""

import base64
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import unquote

import betterproto2
from credit_models import Receipt
from credit_models.codec import decode, encode
from credit_testing.calls import framed, full_path
from credit_testing.ports import HOST
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status as RpcStatus
from grpclib.const import Status

_HEADERS = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
_PREFIX = struct.Struct(">BI")
_TRAILERS = 0x80


@dataclass(frozen=True, kw_only=True, slots=True)
class WebAnswer:
    """The answer to a call.

    Attributes:
        headers: Its headers.
        messages: Its messages, as bytes.
        trailers: Its trailing metadata; of an answer without messages its headers.
    """

    headers: Mapping[str, str]
    messages: list[bytes]
    trailers: Mapping[str, str]

    @property
    def status(self) -> Status:
        """The gRPC status."""
        return Status(int(self.trailers["grpc-status"]))

    @property
    def sentence(self) -> str:
        """The message of the status."""
        return unquote(self.trailers.get("grpc-message", ""))

    @property
    def reason(self) -> str | None:
        """The reason of a rejection, or None."""
        for detail in RpcStatus.FromString(self._binary("grpc-status-details-bin")).details:
            info = ErrorInfo()
            if detail.Unpack(info):
                return str(info.reason)
        return None

    @property
    def receipt(self) -> Receipt:
        """The receipt of a write that succeeded."""
        return decode(Receipt, self._binary("credit-receipt-bin"))

    def _binary(self, name: str) -> bytes:
        value = self.trailers.get(name, "")
        return base64.b64decode(value + "=" * (-len(value) % 4))


def call(
    port: int, method: str, message: betterproto2.Message, headers: Mapping[str, str]
) -> WebAnswer:
    """Make a call, and read its answer to the end.

    Args:
        port: The port on loopback.
        method: A method of CreditService, or a full path.
        message: The only message of the request.
        headers: Further headers.
    """
    with closing(HTTPConnection(HOST, port)) as connection:
        connection.request(
            "POST", full_path(method), framed(encode(message)), {**_HEADERS, **headers}
        )
        return _read(connection.getresponse())


def call_without_an_end(port: int, path: str, headers: Mapping[str, str]) -> WebAnswer:
    """Begin a call, send no message and no end of the request, and read its answer to the end."""
    with closing(HTTPConnection(HOST, port)) as connection:
        connection.putrequest("POST", path)
        for name, value in {**_HEADERS, **headers, "transfer-encoding": "chunked"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return _read(connection.getresponse())


def request(
    port: int, method: str, path: str, headers: Mapping[str, str]
) -> tuple[int, Mapping[str, str]]:
    """Send a request of plain HTTP; return the status and the headers of its answer."""
    with closing(HTTPConnection(HOST, port)) as connection:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        response.read()
        return response.status, _headers(response)


def _read(response: HTTPResponse) -> WebAnswer:
    headers = _headers(response)
    messages, trailers = [], headers
    for flag, data in _frames(response.read()):
        if flag == _TRAILERS:
            lines = [line.partition(":") for line in data.decode().splitlines()]
            trailers = {name.strip(): value.strip() for name, _, value in lines}
        else:
            messages.append(data)
    return WebAnswer(headers=headers, messages=messages, trailers=trailers)


def _headers(response: HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        flag, length = _PREFIX.unpack(data[: _PREFIX.size])
        yield flag, data[_PREFIX.size : _PREFIX.size + length]
        data = data[_PREFIX.size + length :]
