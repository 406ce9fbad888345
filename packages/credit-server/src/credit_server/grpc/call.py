"""One call on the wire: grpclib's stream, made strict about what the client sends.

What grpclib answers with UNKNOWN, or not at all, gets the status that gRPC's documents give:
https://grpc.github.io/grpc/core/md_doc_statuscodes.html and compression.md beside it.
"""

import struct
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, TypeVar, cast

from grpclib.const import Handler as Method
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError, ProtocolError
from grpclib.metadata import (
    _MetadataLike,
    encode_bin_value,
    encode_grpc_message,
    encode_metadata,
)
from grpclib.server import Stream
from h2.errors import ErrorCodes

from credit_server.grpc.compression import ACCEPTED, inflate
from credit_server.grpc.ports import Caller, CallObservation
from credit_server.grpc.request import NotGrpc, RequestHead
from credit_server.http2.peer import ServerPeer
from credit_server.http2.stream import RequestEndedError, ServerStream

ANSWER_HEADERS = (
    (":status", "200"),
    ("content-type", "application/grpc+proto"),
    ("grpc-accept-encoding", ACCEPTED),
)
"""The headers that each answer starts with. Its `x-request-id` follows."""

_FRAME = struct.Struct(">BI")  # compressed flag, length of the message
_STATUS_DETAILS = ProtoStatusDetailsCodec()

Received = TypeVar("Received")
Sent = TypeVar("Sent")


class Call(Stream[Received, Sent]):
    """A call with limits on what it reads.

    Attributes:
        request: The headers of the request.
        trailers: Metadata to be sent with the status.
        outcome: The status that the call was answered with; None before that.
        http_status: The HTTP status of a request that is not gRPC; empty otherwise.
        caller: The caller; None until the call is admitted.
        observation: Receives the call's messages and its end; None: the call is not observed.
        batch_context: `CallObservation.context`; None if the call is not observed.
    """

    peer: ServerPeer
    _stream: ServerStream

    def __init__(
        self,
        stream: ServerStream,
        request: RequestHead,
        method: Method,
        *,
        codec: CodecBase,
        dispatch: _DispatchServerEvents,
        message_bytes_max: int,
    ) -> None:
        """Prepare to serve a call.

        Args:
            stream: The HTTP/2 stream.
            request: The headers of the request.
            method: The method that is called.
            codec: Decodes requests and encodes answers; it raises GRPCError for a bad request.
            dispatch: grpclib's listeners.
            message_bytes_max: The longest message that is read, as it comes and inflated.
        """
        super().__init__(
            stream,
            request.path,
            method.cardinality,
            method.request_type,
            method.reply_type,
            codec=codec,
            status_details_codec=_STATUS_DETAILS,
            dispatch=dispatch,
        )
        self.request = request
        self.trailers: dict[str, str | bytes] = {}
        self.outcome: Status | None = None
        self.http_status = ""
        self.caller: Caller | None = None
        self.observation: CallObservation | None = None
        self.batch_context: object | None = None
        self._message_bytes_max = message_bytes_max

    # Any: the standard library's own shape; see `ssl.SSLSocket.getpeercert`.
    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The client's verified certificate; None if it has shown none.

        The handshake has left it with the connection: `peer.cert()` would parse it for each call.
        """
        found: Mapping[str, Any] | None = self.peer._transport.get_extra_info("peercert")  # noqa: SLF001
        return found or None

    @property
    def open(self) -> bool:
        """Whether the client still reads an answer."""
        return self._stream.closable

    @property
    def writable(self) -> bool:
        """Whether an answer would leave now; otherwise it waits until the client reads."""
        return self._stream.connection.write_ready.is_set()

    @property
    def caller_name(self) -> str:
        """The name of the caller of an admitted call.

        Raises:
            LookupError: The call was not admitted.
        """
        if self.caller is None:
            raise LookupError("the call has no caller: it was not admitted")
        return self.caller.name

    def on_drain(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Call a function when the connection is drained: see `ServerConnection.on_drain`."""
        return self._stream.connection.on_drain(callback)

    def list_slot(self) -> AbstractAsyncContextManager[None]:
        """Wait for one of the caller's slots for lists: see `ServerStream.list_slot`."""
        return self._stream.list_slot(self.caller_name)

    async def recv_message(self) -> Received | None:
        """Receive the next message, or None after the last one.

        Raises:
            GRPCError: The message is too long, truncated, or cannot be decoded or inflated; or the
                call takes exactly one message, and none or more came.
        """
        stream, streams = self._stream, self._cardinality.client_streaming
        try:
            prefix = await stream.recv_data(_FRAME.size)
            if not prefix:
                if streams:
                    return None
                raise GRPCError(
                    Status.UNIMPLEMENTED, "the call takes one message, but none arrived"
                )
            flag, length = _FRAME.unpack(prefix)
            if flag > 1:
                raise GRPCError(
                    Status.INTERNAL, "the compressed flag of a message is neither 0 nor 1"
                )
            if length > self._message_bytes_max:
                raise GRPCError(
                    Status.RESOURCE_EXHAUSTED,
                    f"the message has {length} bytes; the maximum is {self._message_bytes_max}",
                )
            data = await stream.recv_data(length)
            if len(data) != length:
                raise GRPCError(
                    Status.INTERNAL, "the message is shorter than the length in its prefix"
                )
            if not streams and await stream.recv_data(1):
                raise GRPCError(
                    Status.UNIMPLEMENTED, "the call takes one message, but more arrived"
                )
        except RequestEndedError:
            raise GRPCError(
                Status.INTERNAL, "the request ended in the middle of a message"
            ) from None
        if flag:
            encoding = self.request.fields.get("grpc-encoding", "")
            data = inflate(data, encoding, bytes_max=self._message_bytes_max)
        message = cast(Received, self._codec.decode(data, self._recv_type))
        if self.observation is not None:
            self.observation.message_received()
        if streams:
            stream.message_read(_FRAME.size + length)
        return message

    # This is `recv_message` with a narrower type: of a call with one message it never returns None.
    recv_request = cast(
        Callable[["Call[Received, Sent]"], Coroutine[Any, Any, Received]], recv_message
    )

    async def send_message(self, message: Sent) -> None:
        """Send one message, after the headers if they have not been sent."""
        await super().send_message(message)
        if self.observation is not None:
            self.observation.message_sent()

    async def send_answer(self, message: Sent) -> None:
        """Send the only message of an answer and the status OK together.

        They leave in one packet instead of three, with all other answers of the connection that are
        ready.
        """
        await self.send_encoded_answer(self._codec.encode(message, self._send_type))

    async def send_encoded_answer(self, message: bytes) -> None:
        """Send a serialized message as `send_answer` does.

        Raises:
            StreamClosedError: The stream is gone.
        """
        data = _FRAME.pack(0, len(message)) + message
        stream = self._stream
        await stream.connection.write_ready.wait()
        # This does not use grpclib's methods, because they write to the socket after each frame.
        http, stream_id = stream._h2_connection, cast(int, stream.id)  # noqa: SLF001
        if len(data) > min(http.local_flow_control_window(stream_id), http.max_outbound_frame_size):
            await self.send_framed(data, count=1)
            return
        http.send_headers(stream_id, [*ANSWER_HEADERS, ("x-request-id", self.request.request_id)])
        http.send_data(stream_id, data)
        http.send_headers(
            stream_id, [("grpc-status", "0"), *encode_metadata(self.trailers)], end_stream=True
        )
        stream.connection.flush_soon()
        stream.connection.headers_send_process()
        self._send_initial_metadata_done = self._send_message_done = True
        self._send_trailing_metadata_done = True
        self.outcome = Status.OK
        if self.observation is not None:
            self.observation.message_sent()

    @staticmethod
    def framed(messages: Iterable[bytes]) -> bytes:
        """Return serialized messages as they are sent, each after its flag and length."""
        data = bytearray()
        for message in messages:
            data += _FRAME.pack(0, len(message))
            data += message
        return bytes(data)

    async def send_framed(self, data: bytes, *, count: int) -> None:
        """Send several messages at once, preceded by the headers if they have not been sent.

        Return when the client's windows have admitted all messages: the client sets the pace.

        Args:
            data: What `framed` returned for them.
            count: The number of messages.
        """
        if not self._send_initial_metadata_done:
            await self.send_initial_metadata()
        if data:
            await self._stream.send_data(data)
            self._send_message_done = True
            if self.observation is not None:
                self.observation.message_sent(count)

    async def send_initial_metadata(self, *, metadata: _MetadataLike | None = None) -> None:
        """Send the headers that start an answer."""
        if self._send_initial_metadata_done:
            raise ProtocolError("initial metadata was already sent")
        await self._stream.send_headers(
            [
                *ANSWER_HEADERS,
                ("x-request-id", self.request.request_id),
                *encode_metadata(metadata or {}),
            ]
        )
        self._send_initial_metadata_done = True

    async def send_trailing_metadata(
        self,
        *,
        status: Status = Status.OK,
        status_message: str | None = None,
        status_details: Any = None,  # grpclib's signature: what its details codec takes
        metadata: _MetadataLike | None = None,
    ) -> None:
        """Send the status and `trailers`; before any message they are a trailers-only answer."""
        if self._send_trailing_metadata_done:
            raise ProtocolError("trailing metadata was already sent")
        headers: list[tuple[str, str]] = []
        if not self._send_initial_metadata_done:
            headers += [*ANSWER_HEADERS, ("x-request-id", self.request.request_id)]
        headers += status_headers(GRPCError(status, status_message, status_details))
        headers.extend(encode_metadata({**dict(metadata or ()), **self.trailers}))
        await self._stream.send_headers(headers, end_stream=True)
        self.outcome = status
        self._send_trailing_metadata_done = True
        if status is not Status.OK:
            self._stop_client()

    async def send_error(self, error: GRPCError) -> None:
        """Send an error as the status of the call."""
        await self.send_trailing_metadata(
            status=error.status, status_message=error.message, status_details=error.details
        )

    async def reject(self, rejection: NotGrpc) -> None:
        """Answer a request that is not gRPC in plain HTTP.

        The reason is in the headers too, as a status of gRPC. The body is left out if the client
        does not take it at once: the call must not wait for it.
        """
        reason = str(rejection)
        headers = [
            (":status", rejection.status),
            *rejection.headers,
            ("grpc-status", str(Status.INTERNAL.value)),
            ("grpc-message", encode_grpc_message(reason)),
            ("x-request-id", self.request.request_id),
        ]
        text = f"{reason}\n".encode() if rejection.body else b""
        stream = self._stream
        await stream.connection.write_ready.wait()
        http, stream_id = stream._h2_connection, cast(int, stream.id)  # noqa: SLF001
        if len(text) > min(http.local_flow_control_window(stream_id), http.max_outbound_frame_size):
            text = b""
        if text:
            headers += [("content-type", "text/plain"), ("content-length", str(len(text)))]
        http.send_headers(stream_id, headers, end_stream=not text)
        if text:
            http.send_data(stream_id, text, end_stream=True)
        self.outcome, self.http_status = Status.INTERNAL, rejection.status
        self._stop_client()
        stream.connection.flush()

    def refuse(self) -> None:
        """End the call without an answer; gRPC's clients see RESOURCE_EXHAUSTED."""
        self.outcome = Status.RESOURCE_EXHAUSTED
        if self._stream.closable:
            self._stream.reset_nowait(ErrorCodes.ENHANCE_YOUR_CALM)

    def _stop_client(self) -> None:
        """Ask a client that is still sending to stop."""
        if self._stream.closable:
            self._stream.reset_nowait()


def status_details(error: GRPCError) -> bytes:
    """Return the serialized `google.rpc.Status` of an error; empty if the error has no details."""
    if error.details is None:
        return b""
    return _STATUS_DETAILS.encode(error.status, error.message, error.details)


def status_headers(error: GRPCError) -> list[tuple[str, str]]:
    """Return the headers that carry a status, its message and its details."""
    headers = [("grpc-status", str(error.status.value))]
    if error.message is not None:
        headers.append(("grpc-message", encode_grpc_message(error.message)))
    details = status_details(error)
    if details:
        headers.append(("grpc-status-details-bin", encode_bin_value(details).decode("ascii")))
    return headers
