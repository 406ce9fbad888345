"""Serves the calls of one connection: from the headers of a request to its status and log line."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import structlog
from credit_models.codec import WireCodec
from credit_models.status import StatusDetailsCodec
from grpclib import const
from grpclib.const import Status
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline, decode_timeout
from grpclib.protocol import Connection
from grpclib.protocol import Stream as H2Stream
from grpclib.server import Handler
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError as H2ProtocolError

from credit_server.access.authorize import Access
from credit_server.admission.controller import WRITES, Gate
from credit_server.api import refusal
from credit_server.grpc.call import Call, Rejection
from credit_server.grpc.observer import UNOBSERVED, CallObserver
from credit_server.http2.frames import ServerFrames
from credit_server.units import Bytes, Count, Seconds

log = structlog.get_logger("credit_server.calls")

Headers = list[tuple[str, str]]

# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: at most 8 digits and a unit.
_TIMEOUT = re.compile(r"[0-9]{1,8}[HMSmun]")
_NAME_CHARACTERS_MAX = 64
"""Of a header's name, where an answer has it."""
_ASCII_VALUE = bytes(range(0x20, 0x7F))
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CONTENT_TYPES = frozenset({"application/grpc", "application/grpc+proto"})
_PATH = re.compile(r"/[^/]+/[^/]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class CallLimits:
    """Limits on calls. Times are in seconds."""

    message_bytes_max: Bytes = 1_048_576
    """Longest request that is accepted; of a compressed one the size after decompression."""

    calls_max: Count = 2048
    """Calls that may run at once, over all connections. More are rejected as OVERLOADED."""

    call_deadline_seconds: Seconds = 30.0
    """Deadline of a call with one answer, if its client sets none."""

    stream_deadline_seconds: Seconds = 600.0
    """Deadline of a list, if its client sets none. The list then ends with DEADLINE_EXCEEDED, and
    a client continues it with after_sequence, as the SDK does."""

    deadline_seconds_max: Seconds = 3600.0
    """Longest deadline. A client's longer deadline is shortened to it."""

    loop_lag_seconds_max: Seconds = 1.0
    """Delay of the server's event loop beyond which new calls are rejected as OVERLOADED."""

    overload_streams_max: int = 768
    """Calls that all clients together may have open while calls are rejected."""


class CallHandler(Handler):
    """Serves the calls of one connection. Replaces grpclib's own request handler.

    Attributes:
        lasting: How many calls are open that may last for long: lists, and all of gRPC's own
            services.
        awaited: How many calls are open that a drain waits for: all but the streams of gRPC's own
            services, which may never end (health's Watch).
    """

    def __init__(
        self,
        methods: Mapping[str, const.Handler],
        dispatch: _DispatchServerEvents,
        gate: Gate,
        limits: CallLimits,
        access: Access,
        observer: CallObserver = UNOBSERVED,
    ) -> None:
        super().__init__(dict(methods), WireCodec(), StatusDetailsCodec(), dispatch)
        self._gate = gate
        self._limits = limits
        self._access = access
        self._observer = observer
        self._flushing = False
        self.lasting = self.awaited = 0
        self._cutting_off = False

    def flush_soon(self, connection: Connection) -> None:
        """Send what was written once all that is ready now has been written.

        A batch answers many calls at once: they leave in one packet, and wake the client once.
        """
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush, connection)

    def _flush(self, connection: Connection) -> None:
        self._flushing = False
        if not connection.is_closing():
            connection.flush()

    def accept(
        self, stream: H2Stream, headers: Headers, release_stream: Callable[[], None]
    ) -> None:
        """Begin to serve a call."""
        self.__gc_step__()
        fields = _fields(headers)
        path = fields.get(":path", "")
        # gRPC's own services are answered whatever the load: an orchestrator kills a server that
        # does not answer its health check.
        counted = not self._is_standard(path)
        if counted:
            cause = self._gate.refusal(path)
            if cause is not None:
                self._shed(stream, fields, cause)
                release_stream()
                return
            self._gate.enter(path)
        task = self.loop.create_task(self._serve(stream, headers, fields))
        # Not in the task: one that is cancelled before its first step runs none of its own code.
        if counted:
            task.add_done_callback(lambda _: self._gate.leave(path))
        method = self.mapping.get(path, _NO_METHOD)
        if counted or not method.cardinality.server_streaming:
            self.awaited += 1
            task.add_done_callback(self._awaited_ended)
        task.add_done_callback(lambda _: release_stream())  # it looks at what is still awaited
        if not counted or method.cardinality.server_streaming:
            self.lasting += 1
            task.add_done_callback(self._lasted)
        self._tasks[stream] = task

    def _is_standard(self, path: str) -> bool:
        """Say whether a call is for one of gRPC's own services, as far as they are served."""
        return path.startswith("/grpc.") and path in self.mapping

    def _awaited_ended(self, _: "asyncio.Task[None]") -> None:
        self.awaited -= 1

    def _lasted(self, _: "asyncio.Task[None]") -> None:
        self.lasting -= 1

    def _shed(self, stream: H2Stream, fields: Mapping[str, str], cause: str) -> None:
        """Refuse a call in one packet, without a task, a message or a log line of its own."""
        # grpclib writes after each frame; this one is ours: see `ServerFrames`.
        http = cast(ServerFrames, stream._h2_connection)  # noqa: SLF001
        seconds = self._gate.shed(cause, informed=http.settings_known)
        if not stream.closable:
            return
        if not stream.connection.write_ready.is_set():
            # What its client does not read would pile up. Resets cost it of its budget.
            stream.reset_nowait(ErrorCodes.REFUSED_STREAM)
            return
        assert stream.id is not None  # noqa: S101 - for the type checker
        headers = refusal.shed_headers(seconds)
        http.send_headers(
            stream.id, [*headers, ("x-request-id", _request_id(fields))], end_stream=True
        )
        if stream.closable:  # its client is still sending
            http.reset_stream(stream.id, ErrorCodes.NO_ERROR)
        self.flush_soon(stream.connection)

    def cancel(self, stream: H2Stream) -> None:
        """End a call that its client has reset, or that outlives its connection.

        Both may come to the same call, where grpclib's own would raise.
        """
        task = self._tasks.pop(stream, None)
        if task is not None:
            task.cancel()
            self._cancelled.add(task)

    def cut_off(self, stream: H2Stream) -> None:
        """End a call that outlives its connection's grace, and answer it as UNAVAILABLE."""
        self._cutting_off = True
        self.cancel(stream)

    async def _serve(self, stream: H2Stream, headers: Headers, fields: Mapping[str, str]) -> None:
        """Serve one call and log it; nothing but a cancellation comes out of it."""
        started = time.perf_counter()
        call = self._call(stream, fields)
        error: BaseException | None = None
        try:
            await self._answer(call, headers, fields)
        except asyncio.CancelledError as cancelled:
            error = cancelled
            # A client that does not read would keep the answer, and the drain, waiting.
            if self._cutting_off and call.open and call.writable:
                await _send_refusal(call, refusal.cut_off())
            raise
        except Exception as bug:  # noqa: BLE001 - it is logged, with its traceback
            error = bug
        finally:
            self._access.leave(call)  # not before it is answered: who does not read waits there
            seconds = time.perf_counter() - started
            _log_call(fields.get(":path", ""), call, seconds, error)
            call.observation.finished(_status(call.outcome), seconds)

    def _call(self, stream: H2Stream, fields: Mapping[str, str]) -> "Call[object, object]":
        method = self.mapping.get(fields.get(":path", ""), _NO_METHOD)
        call: Call[object, object] = Call(
            stream,
            fields.get(":path", ""),
            method.cardinality,
            method.request_type,
            method.reply_type,
            codec=self.codec,
            status_details_codec=self.status_details_codec,
            dispatch=self.dispatch,
            user_agent=fields.get("user-agent"),
        )
        call.request_id = _request_id(fields)
        call.compression = fields.get("grpc-encoding", "")
        call.message_bytes_max = self._limits.message_bytes_max
        call.trailers = {}
        call.flush_soon = self.flush_soon
        call.identity = call.holder = None
        call.outcome = ""
        return call

    def _observe(self, call: "Call[object, object]", fields: Mapping[str, str]) -> None:
        """Have the call observed, and named in all that its task logs."""
        peer = call.peer.addr()
        call.observation = self._observer.started(fields.get(":path", ""), fields, peer)
        structlog.contextvars.bind_contextvars(request_id=call.request_id)
        if call.observation.trace_id is not None:
            structlog.contextvars.bind_contextvars(trace_id=call.observation.trace_id)

    async def _answer(
        self, call: "Call[object, object]", headers: Headers, fields: Mapping[str, str]
    ) -> None:
        let_in = False
        try:
            self._observe(call, fields)
            rejection = _rejection(fields)
            if rejection is not None:
                if call.writable:
                    await call.reject(rejection, body=fields.get(":method") != "HEAD")
                else:
                    call.turn_away()
                return
            _check_te(fields)
            if call.too_long:
                raise GRPCError(
                    Status.RESOURCE_EXHAUSTED,
                    f"{call.too_long}; no change was made: send less metadata",
                )
            _check_values(headers)
            method = self.mapping.get(call.path)
            call.deadline = self._deadline(fields, method or _NO_METHOD)
            self._access.admit(call, fields.get("authorization"))
            let_in = True
            if call.identity is not None:
                structlog.contextvars.bind_contextvars(identity=call.identity.name)
            if method is None:  # only now: who is nobody learns no paths
                raise GRPCError(
                    Status.UNIMPLEMENTED,
                    "there is no such method"
                    if _PATH.fullmatch(call.path)
                    else "the path is not /package.Service/Method",
                )
            await _within(call.deadline, method, call)
        except GRPCError as error:
            if let_in or call.writable:
                await _send_refusal(call, error)
            else:  # strangers who do not read must not have the server wait with its places
                call.turn_away()
        except Exception:
            # The reason is in the log under the request's id, and nowhere else.
            if call.open:
                await call.send_trailing_metadata(
                    status=Status.INTERNAL, status_message="internal error"
                )
            raise
        else:
            if not call.outcome:
                await call.send_trailing_metadata()

    def _deadline(self, fields: Mapping[str, str], method: const.Handler) -> Deadline | None:
        """Return when a call ends at the latest."""
        seconds = _timeout_seconds(fields)
        # Health's Watch may go on for as long as its client likes.
        if not self._is_standard(fields.get(":path", "")):
            limits = self._limits
            if seconds is None:
                streams = method.cardinality.server_streaming
                seconds = (
                    limits.stream_deadline_seconds if streams else limits.call_deadline_seconds
                )
            seconds = min(seconds, limits.deadline_seconds_max)
        return None if seconds is None else Deadline.from_timeout(seconds)


_NO_METHOD = const.Handler(lambda _: None, const.Cardinality.UNARY_UNARY, object, object)


async def _within(
    deadline: Deadline | None, method: const.Handler, call: "Call[object, object]"
) -> None:
    if deadline is None:
        await method.func(call)
        return
    try:
        async with asyncio.timeout(deadline.time_remaining()) as limit:
            if deadline.time_remaining() <= 0:  # it must not begin what nobody waits for
                raise TimeoutError
            await method.func(call)
    except TimeoutError:
        if limit.expired() or deadline.time_remaining() <= 0:
            raise refusal.deadline_exceeded(write=call.path in WRITES) from None
        raise


async def _send_refusal(call: "Call[object, object]", error: GRPCError) -> None:
    await call.send_trailing_metadata(
        status=error.status, status_message=error.message, status_details=error.details
    )


def _fields(headers: Headers) -> dict[str, str]:
    """Index a request's headers; of those that come more than once the last one counts.

    But for `authorization`, which is joined as RFC 9110, section 5.2, says, and so proves nothing:
    a proxy that has looked at one of two must not let the other in.
    """
    fields = dict(headers)
    if len(fields) < len(headers):
        given = [value for name, value in headers if name == "authorization"]
        if len(given) > 1:
            fields["authorization"] = ", ".join(given)
    return fields


def _check_values(headers: Headers) -> None:
    """Refuse values that gRPC does not allow: beyond %x20-%x7E, though HTTP/2 has more.

    See https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, ASCII-Value. All at once: it
    takes 1 µs for a call with a token, and `isprintable` or a pattern two to four.
    """
    if _is_ascii_value("".join([value for _, value in headers])):
        return
    name = next(name for name, value in headers if not _is_ascii_value(value))
    raise GRPCError(
        Status.INVALID_ARGUMENT,
        f"the value of the header {name[:_NAME_CHARACTERS_MAX]!a} is not printable ASCII: send"
        " binary values in base64, under a name that ends in -bin",
    )


def _is_ascii_value(value: str) -> bool:
    return not value.encode().translate(None, delete=_ASCII_VALUE)


def _request_id(fields: Mapping[str, str]) -> str:
    request_id = fields.get("x-request-id", "")
    return request_id if _REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex


def _timeout_seconds(fields: Mapping[str, str]) -> float | None:
    """Return how long the client waits, or None where it does not say."""
    timeout = fields.get("grpc-timeout")
    if timeout is None:
        return None
    if not _TIMEOUT.fullmatch(timeout):
        raise GRPCError(
            Status.INVALID_ARGUMENT, "grpc-timeout is not 1 to 8 digits and one of H M S m u n"
        )
    return decode_timeout(timeout)


def _rejection(fields: Mapping[str, str]) -> Rejection | None:
    """Return the HTTP answer to a request that is not gRPC, or None if it is.

    As grpc-java does: an HTTP status, with the reason in the body and in `grpc-message`.
    """
    if fields.get(":method") != "POST":
        return Rejection("405", "a gRPC call is made with POST", [("allow", "POST")])
    # RFC 9110, section 8.3.1: case does not matter in a media type, and parameters may follow it.
    media_type = fields.get("content-type", "").partition(";")[0].rstrip().lower()
    if media_type not in _CONTENT_TYPES:
        return Rejection(
            "415",
            "the content-type is neither application/grpc nor application/grpc+proto, and nothing"
            " else is served here",
        )
    return None


def _check_te(fields: Mapping[str, str]) -> None:
    """Refuse a call behind a proxy that may drop trailers, and the answer's status with them.

    PROTOCOL-HTTP2.md demands the header. grpcio and grpc-java on OkHttp refuse such a call too;
    grpc-java on Netty serves it.
    """
    if fields.get("te", "").lower() != "trailers":
        raise GRPCError(
            Status.INTERNAL,
            "the request has no header te: trailers, so that a proxy on the way may drop the"
            " answer's status; no change was made",
        )


def _status(outcome: str) -> Status:
    """Return the status that a client gets from a call's outcome.

    A call that was not answered had no client left to answer.
    """
    if outcome.startswith("HTTP "):
        return Status.INTERNAL
    return Status[outcome] if outcome else Status.CANCELLED


def _log_call(
    path: str, call: "Call[object, object]", seconds: float, error: BaseException | None
) -> None:
    unanswered = "CANCELLED" if isinstance(error, asyncio.CancelledError) else "GONE"
    fields = {
        "method": path,
        "status": call.outcome or unanswered,
        "milliseconds": round(seconds * 1000, 3),
        "request_id": call.request_id,
        "peer": call.peer_name or None,
    }
    # Writing to a client that has gone, or has given up the call, is no fault of anybody's.
    gone = isinstance(error, H2ProtocolError) and not call.outcome
    if isinstance(error, Exception) and not gone:
        log.error("call", **fields, exc_info=error)
    else:
        log.info("call", **fields)
