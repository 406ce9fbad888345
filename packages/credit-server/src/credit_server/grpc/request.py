"""The head of a request: what is known of a call from its headers, and whether they are sound."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import decode_timeout

Headers = list[tuple[str, str]]

# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: at most 8 digits and a unit.
_TIMEOUT = re.compile(r"[0-9]{1,8}[HMSmun]")
# The longest name of a header that an answer quotes.
_NAME_CHARACTERS_MAX = 64
_ASCII_VALUE = bytes(range(0x20, 0x7F))
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CONTENT_TYPES = frozenset({"application/grpc", "application/grpc+proto"})


class NotGrpc(Exception):
    """A request is not gRPC; its text is the reason, for a person to read.

    Attributes:
        status: The HTTP status of the answer.
        headers: Further headers of the answer.
        body: Whether the answer may have a body.
    """

    def __init__(
        self, status: str, reason: str, *, headers: Sequence[tuple[str, str]] = (), body: bool
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers
        self.body = body


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The headers of a request.

    Attributes:
        headers: The headers as they came.
        fields: The headers by name.
        path: What is called, such as `/credit.v1.CreditService/UseCredits`; empty if missing.
        request_id: Names the call in the log and in the answer's metadata `x-request-id`.
        too_long: Why the headers are too long; empty if they are not.
    """

    headers: Headers
    fields: Mapping[str, str]
    path: str
    request_id: str
    too_long: str

    @classmethod
    def of(cls, headers: Headers, too_long: str) -> "RequestHead":
        """Index the headers of a request; of those that come more than once the last one counts.

        The exception is `authorization`, which is joined as RFC 9110, section 5.2, says, and so
        proves nothing: a proxy that has checked one of two must not let the other in.
        """
        fields = dict(headers)
        if len(fields) < len(headers):
            given = [value for name, value in headers if name == "authorization"]
            if len(given) > 1:
                fields["authorization"] = ", ".join(given)
        request_id = fields.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(16)
        return cls(headers, fields, fields.get(":path", ""), request_id, too_long)

    def check(self, *, write: bool) -> float | None:
        """Check that the request is gRPC and sound; return its timeout in seconds, or None.

        Args:
            write: Whether the call writes. If so, the message states that no change was made.

        Raises:
            NotGrpc: It is not gRPC. As in grpc-java the answer is an HTTP status, with the reason
                in the body and in `grpc-message`.
            GRPCError: Its headers are too long, or break gRPC's rules.
        """
        fields = self.fields
        if fields.get(":method") != "POST":
            raise NotGrpc(
                "405",
                "a gRPC call is made with POST",
                headers=[("allow", "POST")],
                body=fields.get(":method") != "HEAD",
            )
        # RFC 9110, section 8.3.1: case does not matter in a media type; parameters may follow it.
        media_type = fields.get("content-type", "").partition(";")[0].rstrip().lower()
        if media_type not in _CONTENT_TYPES:
            raise NotGrpc(
                "415",
                "the content-type is neither application/grpc nor application/grpc+proto, and"
                " nothing else is served here",
                body=True,
            )
        effect = "; no change was made" if write else ""
        # PROTOCOL-HTTP2.md demands it: a proxy without it may drop trailers, and the answer's
        # status with them. grpcio and grpc-java on OkHttp reject such a call too; grpc-java on
        # Netty serves it.
        if fields.get("te", "").lower() != "trailers":
            raise GRPCError(
                Status.INTERNAL,
                "the request has no header te: trailers, so that a proxy on the way may drop the"
                f" answer's status{effect}",
            )
        if self.too_long:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"{self.too_long}{effect}: send less metadata",
            )
        # All values at once: it takes 1 µs for a call with a token; `isprintable` or a pattern
        # takes two to four.
        values = "".join([value for _, value in self.headers])
        if values.encode().translate(None, delete=_ASCII_VALUE):
            self._reject_value()
        timeout = fields.get("grpc-timeout")
        if timeout is None:
            return None
        if not _TIMEOUT.fullmatch(timeout):
            raise GRPCError(
                Status.INVALID_ARGUMENT, "grpc-timeout is not 1 to 8 digits and one of H M S m u n"
            )
        return decode_timeout(timeout)

    def _reject_value(self) -> None:
        """Reject a value beyond %x20-%x7E: HTTP/2 allows it, and gRPC does not.

        See https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, ASCII-Value.
        """
        name = next(
            name
            for name, value in self.headers
            if value.encode().translate(None, delete=_ASCII_VALUE)
        )
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"the value of the header {name[:_NAME_CHARACTERS_MAX]!a} is not printable ASCII: send"
            " binary values in base64, under a name that ends in -bin",
        )
