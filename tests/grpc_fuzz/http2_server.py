"""A gRPC server on h2 that conforms to the gRPC documents, and passes each call to a function."""

import base64
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from grpc_fuzz.wire.exchange import STATUS_NAMES
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error

_PREFIX = struct.Struct(">BI")
_CODES = {name: code for code, name in STATUS_NAMES.items()}
_MESSAGE_BYTES_MAX = 4 * 2**20
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}
Headers = Sequence[tuple[str, str]]


class CallError(Exception):
    """Ends a call with a status."""

    def __init__(self, status: str, message: str = "", trailers: Headers = ()) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.trailers = trailers


class NoReply(Exception):
    """Leaves a call without an answer."""


# Takes the path of a method and a request, and returns the responses. Raises `CallError` or
# `NoReply`.
Handler = Callable[[str, bytes], list[bytes]]

# Takes the path of a method and the `authorization` of the call. Raises `CallError`.
Admit = Callable[[str, str | None], None]


def admit_all(path: str, authorization: str | None) -> None:
    """Admit every call."""


@dataclass(kw_only=True, slots=True)
class _Call:
    path: str
    encoding: str
    deadline: float | None
    authorization: str | None
    data: bytearray = field(default_factory=bytearray)


class Http2Server:
    """Serves on a free loopback port, with a thread for each connection.

    Args:
        handler: Handles every call.
        one_message: Whether a call with more than one message is an error.
        admit: Authenticates every call before its request is parsed.
    """

    def __init__(
        self, handler: Handler, *, one_message: bool = True, admit: Admit = admit_all
    ) -> None:
        self._handler = handler
        self._admit = admit
        self._one_message = one_message
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        # Once it is set, every connection is closed at once.
        self.dead = threading.Event()

    @contextmanager
    def running(self) -> Iterator[int]:
        """Serve, and yield the port."""
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        try:
            yield self.port
        finally:
            self.dead.set()
            # Closing the socket does not wake a thread in `accept`.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            http = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
            http.initiate_connection()
            try:
                _Connection(
                    connection, http, self._handler, self._one_message, self._admit, self.dead
                ).serve()
            except OSError:
                return


class _Connection:
    def __init__(
        self,
        connection: socket.socket,
        http: H2Connection,
        handler: Handler,
        one_message: bool,
        admit: Admit,
        dead: threading.Event,
    ) -> None:
        self._socket = connection
        self._http = http
        self._handler = handler
        self._one_message = one_message
        self._admit = admit
        self._dead = dead
        self._calls: dict[int, _Call] = {}

    def serve(self) -> None:
        self._flush()
        while not self._dead.is_set():
            data = self._read()
            if data is not None and not self._receive(data):
                return
            self._end_late_calls()
            self._flush()

    def _read(self) -> bytes | None:
        """Return the received bytes, or None if the deadline of a call passed first."""
        deadlines = [call.deadline for call in self._calls.values() if call.deadline is not None]
        # The timeout also lets the thread check whether the server still runs.
        left = min([deadline - time.monotonic() for deadline in deadlines], default=0.2)
        self._socket.settimeout(min(max(left, 0.001), 0.2))
        try:
            return self._socket.recv(65536)
        except TimeoutError:
            return None

    def _receive(self, data: bytes) -> bool:
        if not data:
            return False
        try:
            events = self._http.receive_data(data)
        except H2Error:
            self._flush()  # h2 has written the GOAWAY
            return False
        for event in events:
            if isinstance(event, ConnectionTerminated) or self._dead.is_set():
                return False
            try:
                self._take(event)
            except H2Error:
                continue  # the client has reset the stream already
        return True

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._open(event.stream_id, cast(Headers, event.headers))
            case DataReceived():
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.stream_id in self._calls:
                    self._calls[event.stream_id].data += event.data
            case StreamReset():
                self._calls.pop(event.stream_id, None)
            case StreamEnded():
                call = self._calls.pop(event.stream_id, None)
                if call is not None:
                    self._answer(event.stream_id, call)

    def _open(self, stream_id: int, headers: Headers) -> None:
        fields = dict(headers)
        rejection = _rejection(fields)
        if rejection is not None:
            self._http.send_headers(stream_id, [(":status", rejection)], end_stream=True)
            return
        try:
            deadline = _deadline(fields.get("grpc-timeout"))
        except CallError as error:
            self._end_call(stream_id, error)
            return
        self._calls[stream_id] = _Call(
            path=fields[":path"],
            encoding=fields.get("grpc-encoding", "identity"),
            deadline=deadline,
            authorization=fields.get("authorization"),
        )

    def _answer(self, stream_id: int, call: _Call) -> None:
        try:
            if call.deadline is not None and call.deadline <= time.monotonic():
                raise CallError("DEADLINE_EXCEEDED")
            self._admit(call.path, call.authorization)
            messages = list(_messages(bytes(call.data), call.encoding))
            if not messages or (len(messages) > 1 and self._one_message):
                raise CallError("UNIMPLEMENTED", "the call takes one message")
            responses = self._handler(call.path, messages[0])
        except CallError as error:
            self._end_call(stream_id, error)
        except NoReply:
            return
        else:
            self._http.send_headers(stream_id, _HEADERS)
            body = b"".join(_PREFIX.pack(0, len(message)) + message for message in responses)
            self._http.send_data(stream_id, body)
            self._http.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)

    def _end_call(self, stream_id: int, error: CallError) -> None:
        code = _CODES[error.status]
        trailers = [("grpc-status", str(code)), ("grpc-message", _percent(error.message))]
        self._http.send_headers(stream_id, [*_HEADERS, *trailers, *error.trailers], end_stream=True)

    def _end_late_calls(self) -> None:
        now = time.monotonic()
        for stream_id, call in list(self._calls.items()):
            if call.deadline is not None and call.deadline <= now:
                del self._calls[stream_id]
                self._end_call(stream_id, CallError("DEADLINE_EXCEEDED"))
                self._http.reset_stream(stream_id, ErrorCodes.NO_ERROR)

    def _flush(self) -> None:
        self._socket.settimeout(None)
        self._socket.sendall(self._http.data_to_send())


_HEADERS = [
    (":status", "200"),
    ("content-type", "application/grpc"),
    ("grpc-accept-encoding", "identity"),
]


def _rejection(fields: dict[str, str]) -> str | None:
    if fields.get(":method") != "POST":
        return "405"
    content_type = fields.get("content-type", "")
    return None if re.fullmatch(r"application/grpc([+;].*)?", content_type) else "415"


def _deadline(timeout: str | None) -> float | None:
    if timeout is None:
        return None
    matched = _TIMEOUT.fullmatch(timeout)
    if matched is None:
        raise CallError("INVALID_ARGUMENT", "the timeout cannot be read")
    return time.monotonic() + int(matched[1]) * _SECONDS[matched[2]]


def _messages(data: bytes, encoding: str) -> Iterator[bytes]:
    while data:
        if len(data) < _PREFIX.size:
            raise CallError("INTERNAL", "the prefix of a message is cut short")
        flag, length = _PREFIX.unpack_from(data)
        if flag:
            unknown = flag == 1 and encoding != "identity"
            raise CallError("UNIMPLEMENTED" if unknown else "INTERNAL", "compressed")
        if length > _MESSAGE_BYTES_MAX:
            raise CallError("RESOURCE_EXHAUSTED", "the message is too long")
        message, data = data[_PREFIX.size : _PREFIX.size + length], data[_PREFIX.size + length :]
        if len(message) < length:
            raise CallError("INTERNAL", "a message is cut short")
        yield message


def _percent(text: str) -> str:
    return "".join(
        chr(octet) if 0x20 <= octet <= 0x7E and octet != 0x25 else f"%{octet:02X}"
        for octet in text.encode()
    )


def binary(data: bytes) -> str:
    """Return the value of binary metadata."""
    return base64.b64encode(data).rstrip(b"=").decode()
