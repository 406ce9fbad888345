"""One call on the wire: grpclib's stream, made strict about what comes in.

What grpclib answers with UNKNOWN, or not at all, gets the status that gRPC's documents give:
https://grpc.github.io/grpc/core/md_doc_statuscodes.html and compression.md beside it.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from credit_models.codec import WireError
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError
from grpclib.metadata import (
    _MetadataLike,
    encode_bin_value,
    encode_grpc_message,
    encode_metadata,
)
from grpclib.protocol import Connection
from grpclib.server import Stream
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import StreamClosedError

from credit_server.access import Identity
from credit_server.api import refusal
from credit_server.grpc.compression import ACCEPTED, inflate
from credit_server.grpc.observer import UNOBSERVED, CallObservation
from credit_server.http2.peer import ServerPeer, network_of
from credit_server.http2.stream import server_stream

_FRAME = struct.Struct(">BI")  # compressed flag, length of the message

Received = TypeVar("Received")
Sent = TypeVar("Sent")


@dataclass(frozen=True, slots=True)
class Rejection:
    """The HTTP answer to a request that is not gRPC.

    Attributes:
        status: The HTTP status.
        reason: Why, for a person to read.
        headers: Further headers.
    """

    status: str
    reason: str
    headers: Sequence[tuple[str, str]] = ()


class Call(Stream[Received, Sent]):
    """A call with limits on what it takes in.

    Attributes:
        request_id: Names the call in the log and in the answer's metadata `x-request-id`.
        compression: What the client says its messages are compressed with.
        message_bytes_max: The longest message that is taken in, as it comes and inflated.
        trailers: Metadata to be sent with the status.
        flush_soon: Sends what was written to the connection, a moment later.
        identity: Who makes the call; None: nobody was asked, or it is not known yet.
        holder: Whose number of running calls it counts towards; None: nobody's, or not yet.
        outcome: The name of the status that the call was answered with; empty before that.
        observation: Is told of its messages.
    """

    request_id: str
    compression: str
    message_bytes_max: int
    trailers: dict[str, str | bytes]
    flush_soon: Callable[[Connection], None]
    identity: Identity | None
    holder: str | None
    outcome: str
    observation: CallObservation = UNOBSERVED

    @property
    def path(self) -> str:
        """What is called, such as `/credit.v1.CreditService/UseCredits`."""
        return self._method_name

    @property
    def host(self) -> str:
        """What counts as one peer for limits: see `ServerPeer.address`."""
        return self._server_peer.address

    @property
    def peer_name(self) -> str:
        """The peer, for the log: see `ServerPeer.name`."""
        return self._server_peer.name

    @property
    def _server_peer(self) -> ServerPeer:
        return server_stream(self._stream).connection.get_peer()

    # Any: the standard library's own shape; see `ssl.SSLSocket.getpeercert`.
    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The client's verified certificate; None where it has shown none.

        As the handshake left it with the connection: `peer.cert()` would parse it for each call.
        """
        found: Mapping[str, Any] | None = self.peer._transport.get_extra_info("peercert")  # noqa: SLF001
        return found or None

    @property
    def too_long(self) -> str:
        """Why the headers of the request are too long; empty: they are not."""
        return server_stream(self._stream).too_long

    @property
    def open(self) -> bool:
        """Whether an answer would still reach anybody."""
        return self._stream.closable

    @property
    def writable(self) -> bool:
        """Whether an answer would leave now; if not, it has to wait for what the client reads."""
        return self._stream.connection.write_ready.is_set()

    @property
    def seconds_left(self) -> float | None:
        """How long the call has until its deadline; None where it has none."""
        return None if self.deadline is None else self.deadline.time_remaining()

    @property
    def caller(self) -> str:
        """Name who makes the call, as what is shared between callers counts them.

        Without identities the address is all that tells one caller from another.
        """
        return self.holder or f"address {network_of(self.host)}"

    def place(self) -> AbstractAsyncContextManager[None]:
        """Wait for one of the caller's places for lists: see `ServerStream.place`."""
        return server_stream(self._stream).place(self.caller)

    async def recv_message(self) -> Received | None:
        """Receive the next message, or None after the last one.

        Raises:
            GRPCError: The message is too long, truncated, not decodable or not to be inflated; or
                the call takes exactly one, and none or more came.
        """
        message = await self._recv_next()
        if not self._cardinality.client_streaming:
            if message is None:
                raise GRPCError(Status.UNIMPLEMENTED, "the call takes one message and none came")
            if await self._recv(1):
                raise GRPCError(Status.UNIMPLEMENTED, "the call takes one message and more came")
        return message

    async def recv_request(self) -> Received:
        """Receive the only message of a call that takes one.

        Raises:
            GRPCError: There is none, or more than one, or it is not sound.
        """
        return cast(Received, await self.recv_message())

    async def send_message(self, message: Sent) -> None:
        """Send one message, after the headers where they have not been sent."""
        await super().send_message(message)
        self.observation.message_sent()

    async def send_answer(self, message: Sent) -> None:
        """Send the only message of an answer and the status OK together.

        In one packet instead of three, with all other answers of the connection that are ready.
        """
        encoded = self._codec.encode(message, self._send_type)
        data = _FRAME.pack(0, len(encoded)) + encoded
        stream = self._stream
        await stream.connection.write_ready.wait()
        http, stream_id = self._http()
        if len(data) > min(http.local_flow_control_window(stream_id), http.max_outbound_frame_size):
            await self.send_message(message)
            return
        http.send_headers(stream_id, self._headers())
        http.send_data(stream_id, data)
        http.send_headers(
            stream_id, [("grpc-status", "0"), *encode_metadata(self.trailers)], end_stream=True
        )
        self.flush_soon(stream.connection)
        stream.connection.headers_send_process()
        self._send_initial_metadata_done = self._send_message_done = True
        self._send_trailing_metadata_done = True
        self.outcome = Status.OK.name
        self.observation.message_sent()

    def encoded(self, messages: Iterable[Sent]) -> bytes:
        """Return messages as they are sent, each behind its flag and length."""
        data = bytearray()
        for message in messages:
            encoded = self._codec.encode(message, self._send_type)
            data += _FRAME.pack(0, len(encoded)) + encoded
        return bytes(data)

    async def send_encoded(self, data: bytes, *, count: int) -> None:
        """Send several messages at once, after the headers where they have not been sent.

        Returns when the client has taken them all, as far as its windows tell: it sets the pace.

        Args:
            data: What `encoded` has made of them.
            count: How many they are.
        """
        if not self._send_initial_metadata_done:
            await self.send_initial_metadata()
        if data:
            await self._stream.send_data(data)
            self._send_message_done = True
            self.observation.message_sent(count)

    async def send_initial_metadata(self, *, metadata: _MetadataLike | None = None) -> None:
        """Send the headers that begin an answer."""
        if self._send_initial_metadata_done:
            raise ProtocolError("initial metadata was already sent")
        await self._stream.send_headers([*self._headers(), *encode_metadata(metadata or {})])
        self._send_initial_metadata_done = True

    async def send_trailing_metadata(
        self,
        *,
        status: Status = Status.OK,
        status_message: str | None = None,
        status_details: Any = None,  # grpclib's signature: what its details codec takes
        metadata: _MetadataLike | None = None,
    ) -> None:
        """Send the status, and what the service left in `trailers`.

        Before any message has been sent it is a trailers-only answer.
        """
        if self._send_trailing_metadata_done:
            raise ProtocolError("trailing metadata was already sent")
        headers = [] if self._send_initial_metadata_done else self._headers()
        headers.append(("grpc-status", str(status.value)))
        if status_message is not None:
            headers.append(("grpc-message", encode_grpc_message(status_message)))
        if status_details is not None and self._status_details_codec is not None:
            details = self._status_details_codec.encode(status, status_message, status_details)
            headers.append(("grpc-status-details-bin", encode_bin_value(details).decode("ascii")))
        headers.extend(encode_metadata({**dict(metadata or ()), **self.trailers}))
        await self._stream.send_headers(headers, end_stream=True)
        self.outcome = status.name
        self._send_trailing_metadata_done = True
        if status is not Status.OK:
            self._stop_client()

    async def reject(self, rejection: Rejection, *, body: bool) -> None:
        """Answer a request that is not gRPC in plain HTTP.

        The reason is in the headers too, as a status of gRPC. The body is left out where the client
        does not take it at once: the call must not wait for it.

        Args:
            rejection: The answer.
            body: Whether the answer may have a body.
        """
        headers = [
            (":status", rejection.status),
            *rejection.headers,
            ("grpc-status", str(Status.INTERNAL.value)),
            ("grpc-message", encode_grpc_message(rejection.reason)),
            ("x-request-id", self.request_id),
        ]
        text = f"{rejection.reason}\n".encode() if body else b""
        stream = self._stream
        await stream.connection.write_ready.wait()
        http, stream_id = self._http()
        if len(text) > min(http.local_flow_control_window(stream_id), http.max_outbound_frame_size):
            text = b""
        if text:
            headers += [("content-type", "text/plain"), ("content-length", str(len(text)))]
        http.send_headers(stream_id, headers, end_stream=not text)
        if text:
            http.send_data(stream_id, text, end_stream=True)
        self.outcome = f"HTTP {rejection.status}"
        self._stop_client()
        stream.connection.flush()

    def turn_away(self) -> None:
        """End the call without an answer; gRPC's clients see RESOURCE_EXHAUSTED."""
        self.outcome = Status.RESOURCE_EXHAUSTED.name
        if self._stream.closable:
            self._stream.reset_nowait(ErrorCodes.ENHANCE_YOUR_CALM)

    def _http(self) -> tuple[H2Connection, int]:
        """Return what several frames are written to at once, and the stream's number.

        grpclib writes to the socket after each frame.

        Raises:
            StreamClosedError: The stream is gone.
        """
        http, stream_id = self._stream._h2_connection, self._stream.id  # noqa: SLF001
        if stream_id is None or stream_id not in http.streams:
            raise StreamClosedError(stream_id or 0)
        return http, stream_id

    def _stop_client(self) -> None:
        """Tell a client that is still sending to stop."""
        if self._stream.closable:
            self._stream.reset_nowait()

    def _headers(self) -> list[tuple[str, str]]:
        return [
            (":status", "200"),
            ("content-type", self._content_type),
            ("grpc-accept-encoding", ACCEPTED),
            ("x-request-id", self.request_id),
        ]

    async def _recv_next(self) -> Received | None:
        prefix = await self._recv(_FRAME.size)
        if not prefix:
            return None
        flag, length = _FRAME.unpack(prefix)
        if flag > 1:
            raise GRPCError(Status.INTERNAL, "the compressed flag of a message is neither 0 nor 1")
        if length > self.message_bytes_max:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"the message has {length} bytes, {self.message_bytes_max} are the most",
            )
        data = await self._recv(length)
        if len(data) != length:
            raise GRPCError(Status.INTERNAL, "the message is shorter than its prefix says")
        if flag:
            data = inflate(data, self.compression, bytes_max=self.message_bytes_max)
        try:
            message = cast(Received, self._codec.decode(data, self._recv_type))
        except WireError as error:
            if error.violations:
                raise refusal.invalid(error.violations) from None
            raise GRPCError(Status.INTERNAL, f"the message cannot be decoded: {error}") from None
        self.observation.message_received()
        return message

    async def _recv(self, size: int) -> bytes:
        try:
            return await self._stream.recv_data(size)
        except AssertionError:  # how grpclib's buffer says that the stream ended before
            raise GRPCError(
                Status.INTERNAL, "the request ended in the middle of a message"
            ) from None
