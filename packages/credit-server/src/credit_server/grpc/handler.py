"""Serves the calls of one connection: from the headers of a request to its status and log line."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import cast

import structlog
from credit_models.timeouts import Timeout
from grpclib import const
from grpclib.const import Cardinality, Status
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline
from grpclib.protocol import Stream as H2Stream
from grpclib.server import Handler
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError as H2ProtocolError

from credit_server.admission.decision import Decision, NotAdmitted
from credit_server.admission.load import AdmissionController
from credit_server.grpc.call import ANSWER_HEADERS, Call, status_headers
from credit_server.grpc.ports import Access, CallObserver, Contract, CutOff
from credit_server.grpc.request import Headers, NotGrpc, RequestHead
from credit_server.http2.frames import ServerFrames
from credit_server.http2.stream import ServerConnection, ServerStream, StreamHandler
from credit_server.log import TASK_FIELDS
from credit_server.units import Count

log = structlog.get_logger("credit_server.calls")

UNCERTAIN_WRITE = (
    "a write may or may not have taken effect, or may still take effect: retry it with the same"
    " idempotency key, and it takes effect once"
)
"""What a caller must know of a write that ends without an answer from the service."""

_PATH = re.compile(r"/[^/]+/[^/]+")
# The step to which the retry times of shed calls are rounded up, so that their headers are made
# once.
_RETRY_STEP_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class CallLimits:
    """Limits on calls. Times are in seconds."""

    # 1,000 operations with the longest fields have 2,087,002 bytes. A purchase has 2,081 bytes: 4
    # integers of 6 bytes, and 128, 256 and 128 characters of 4 bytes, with 3 bytes each for tag and
    # length. Tag and length of the purchase and of the operation take 6 bytes more, `atomic` 2.
    message_bytes_max: int = 2_097_152
    """Longest request in bytes that is accepted, above 0. The limit of a compressed request applies
    to its size after decompression. The longest message of the contract is a batch of 1,000
    operations, with 2,087,002 bytes."""

    calls_max: Count = 2048
    """Calls that may run at once, over all connections. More are rejected as OVERLOADED. One
    identity may have a quarter of them. The same number of streams of Watch may run in addition,
    and one identity may have half of these streams."""

    call_deadline_seconds: float = 30.0
    """Deadline of a call with one answer, if its client sets none, and of each operation of a
    stream; above 0. Without one, a call that waits for the store would occupy one of `calls_max`
    for as long as it waits."""

    # Proxies need a longer time limit than this: see `deploy/proxy`.
    stream_deadline_seconds: float = 600.0
    """Deadline of a list or a stream of operations, if its client sets none; above 0. It then ends
    with DEADLINE_EXCEEDED, and a client continues a list with after_sequence, as the SDK does."""

    deadline_seconds_max: float = 3600.0
    """Longest deadline, above 0. A longer deadline of a client is shortened to it, so that every
    call ends."""

    # A batch of 1,000 operations takes 0.2 s of the CPU: see `CommitLimits.batch_max`.
    loop_lag_seconds_max: float = 1.0
    """Delay of the server's event loop, above 0, beyond which new calls are rejected as
    OVERLOADED."""

    overload_streams_max: int = 768
    """Calls that all clients together may have open while calls are rejected, at least 1. Clients
    then wait themselves, which costs the server less than to reject their calls."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A method, with all that is known of a call from its path.

    Attributes:
        served: grpclib's entry for the method.
        is_served: Whether there is such a method; otherwise the entry stands for the unknown path.
        standard: Whether it belongs to one of gRPC's own services.
        counted: Whether its calls are admitted by the load and count as running calls. gRPC's own
            services are served whatever the load: an orchestrator kills a server that does not
            answer its health check. Streams without an end have a limit of their own.
        write: Whether it changes something.
        queued: Whether each of its calls waits for the commit of a write. The operations of a
            stream are admitted by themselves.
        deadline_seconds: Its deadline if the client sets none; None: it may run forever.
        awaited: Whether a drain waits for its calls: all but the streams of gRPC's own services,
            which may never end (health's Watch).
        lasting: Whether its calls may last for long: lists, streams of operations, and all of
            gRPC's own services.
    """

    served: const.Handler
    is_served: bool
    standard: bool
    counted: bool
    write: bool
    queued: bool
    deadline_seconds: float | None
    awaited: bool
    lasting: bool

    @classmethod
    def of(
        cls, path: str, served: const.Handler | None, limits: CallLimits, contract: Contract
    ) -> "Method":
        """Describe the method with a path; `served` is None for a path that is not served."""
        entry = served or const.Handler(lambda _: None, Cardinality.UNARY_UNARY, object, object)
        streams = entry.cardinality.server_streaming
        standard = served is not None and path.startswith("/grpc.")
        deadline = limits.stream_deadline_seconds if streams else limits.call_deadline_seconds
        return cls(
            served=entry,
            is_served=served is not None,
            standard=standard,
            counted=not standard and path not in contract.watches,
            write=path in contract.writes,
            queued=path in contract.writes and not entry.cardinality.client_streaming,
            deadline_seconds=None if standard else min(deadline, limits.deadline_seconds_max),
            awaited=not (standard and streams),
            lasting=standard or streams,
        )


class CallServing:
    """What the handlers of all connections share.

    Attributes:
        mapping: grpclib's entries of the served methods by path.
        methods: The served methods by path.
        unknown: Stands for every other path.
    """

    def __init__(
        self,
        mapping: Mapping[str, const.Handler],
        *,
        admission: AdmissionController,
        limits: CallLimits,
        access: Access,
        contract: Contract,
        observer: CallObserver | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            mapping: The served methods by path.
            admission: Sheds calls by the load.
            limits: Limits on calls.
            access: Authenticates, authorizes and admits calls.
            contract: What has to be known of the services.
            observer: Observes every call; None: no call is observed.
        """
        self.mapping = dict(mapping)
        self.admission = admission
        self.limits = limits
        self.access = access
        self.contract = contract
        self.observer = observer
        self.methods = {
            path: Method.of(path, served, limits, contract) for path, served in mapping.items()
        }
        self.unknown = Method.of("", None, limits, contract)
        self._shed_headers: dict[tuple[int, bool], list[tuple[str, str]]] = {}

    def shed_headers(
        self, cause: Decision, retry_seconds: float, *, write: bool
    ) -> list[tuple[str, str]]:
        """Return the whole answer to a shed call but for its request id.

        Args:
            cause: Why the call is shed.
            retry_seconds: When the caller should retry; rounded up to a twentieth of a second.
            write: Whether the call writes.
        """
        steps = ceil(retry_seconds / _RETRY_STEP_SECONDS)
        headers = self._shed_headers.get((steps, write))
        if headers is None:
            error = NotAdmitted(
                cause,
                "the server has more calls than it can answer in time",
                retry_seconds=steps * _RETRY_STEP_SECONDS,
            )
            headers = self._shed_headers[steps, write] = [
                *ANSWER_HEADERS,
                *status_headers(self.status_of(error, write=write)),
            ]
        return headers

    def status_of(self, error: BaseException, *, write: bool) -> GRPCError:
        """Return the status for an exception of a write or of a read.

        Raises:
            BaseException: The exception itself, if it is a bug.
        """
        if isinstance(error, GRPCError):
            return error
        status = self.contract.translate(error, write=write)
        if status is None:
            raise error
        return status


class CallHandler(Handler, StreamHandler):
    """Serves the calls of one connection. Replaces grpclib's own request handler.

    Attributes:
        lasting: The number of open calls that may last for long: see `Method.lasting`.
        awaited: The number of open calls that a drain waits for: see `Method.awaited`.
    """

    def __init__(
        self,
        serving: CallServing,
        dispatch: _DispatchServerEvents,
    ) -> None:
        super().__init__(serving.mapping, serving.contract.codec, None, dispatch)
        self._serving = serving
        self.lasting = self.awaited = 0
        self._cutting_off = False

    def accept(
        self, stream: H2Stream, headers: Headers, release_stream: Callable[[], None]
    ) -> None:
        """Start to serve a call, or shed it."""
        self.__gc_step__()
        serving = self._serving
        opened = cast(ServerStream, stream)
        request = RequestHead.of(headers, opened.too_long)
        method = serving.methods.get(request.path, serving.unknown)
        opened.takes_messages = method.served.cardinality.client_streaming
        if method.counted:
            decision = serving.admission.admit(write=method.queued)
            if decision is not Decision.ADMIT:
                self._shed(stream, request, decision, write=method.write)
                release_stream()
                return
        task = self.loop.create_task(self._serve(stream, request, method))
        self.awaited += method.awaited
        self.lasting += method.lasting

        # Not in the task: one that is cancelled before its first step runs none of its own code.
        def ended(_: "asyncio.Task[None]") -> None:
            if method.counted:
                serving.admission.leave(write=method.queued)
            self.awaited -= method.awaited
            self.lasting -= method.lasting
            release_stream()  # it looks at what is still awaited

        task.add_done_callback(ended)
        self._tasks[stream] = task

    def _shed(
        self, stream: H2Stream, request: RequestHead, cause: Decision, *, write: bool
    ) -> None:
        """Answer a call in one packet, without a task, a message or a log line of its own."""
        # grpclib writes after each frame; this engine is ours: see `ServerFrames`.
        http = cast(ServerFrames, stream._h2_connection)  # noqa: SLF001
        seconds = self._serving.admission.shed(cause, informed=http.settings_acknowledged)
        if not stream.closable:
            return
        if not stream.connection.write_ready.is_set():
            # Answers would pile up for a client that does not read. Resets cost it its budget.
            stream.reset_nowait(ErrorCodes.REFUSED_STREAM)
            return
        assert stream.id is not None  # noqa: S101 - for the type checker
        headers = self._serving.shed_headers(cause, seconds, write=write)
        http.send_headers(
            stream.id, [*headers, ("x-request-id", request.request_id)], end_stream=True
        )
        if stream.closable:  # its client is still sending
            http.reset_stream(stream.id, ErrorCodes.NO_ERROR)
        cast(ServerConnection, stream.connection).flush_soon()

    def cancel(self, stream: H2Stream) -> None:
        """End a call that its client has reset, or that outlives its connection.

        Both may happen to the same call; grpclib's own method would raise then.
        """
        task = self._tasks.pop(stream, None)
        if task is not None:
            task.cancel()
            self._cancelled.add(task)

    def cut_off(self, stream: H2Stream) -> None:
        """End a call that outlives its connection's grace, and answer it as UNAVAILABLE."""
        self._cutting_off = True
        self.cancel(stream)

    async def _serve(self, stream: H2Stream, request: RequestHead, method: Method) -> None:
        """Serve one call and observe it. Nothing but a cancellation is raised."""
        started = time.perf_counter()
        serving = self._serving
        call: Call[object, object] = Call(
            cast(ServerStream, stream),
            request,
            method.served,
            codec=self.codec,
            dispatch=self.dispatch,
            message_bytes_max=serving.limits.message_bytes_max,
        )
        failure: BaseException | None = None
        try:
            await self._answer(call, method)
        except asyncio.CancelledError as cancelled:
            failure = cancelled
            # A client that does not read would keep the answer, and the drain, waiting.
            if self._cutting_off and call.open and call.writable:
                await call.send_error(serving.status_of(CutOff(), write=method.write))
            raise
        except Exception as bug:  # noqa: BLE001 - it is logged, with its traceback
            failure = bug
        finally:
            # A call counts until its answer is sent: its client may not read it.
            if call.caller is not None and call.caller.counted:
                serving.access.leave(call.caller)
            _observe_end(call, time.perf_counter() - started, failure)

    async def _answer(self, call: "Call[object, object]", method: Method) -> None:
        """Answer one call, step by step as the protocol has it."""
        serving, request = self._serving, call.request
        try:
            fields: dict[str, object] = {"request_id": request.request_id}
            if serving.observer is not None:
                observed = serving.observer.started(request.path, request.fields, call.peer)
                call.observation, call.batch_context = observed, observed.context
                if observed.trace_id is not None:
                    fields["trace_id"] = observed.trace_id
            TASK_FIELDS.set(fields)
            seconds = request.check(write=method.write)
            if seconds is None:
                seconds = method.deadline_seconds
            elif not method.standard:  # health's Watch may run for as long as its client likes
                seconds = min(seconds, serving.limits.deadline_seconds_max)
            call.deadline = None if seconds is None else Deadline.from_timeout(seconds)
            caller = call.caller = serving.access.admit(call)
            if caller.identity_name is not None:
                TASK_FIELDS.set({**fields, "identity": caller.identity_name})
            if not method.is_served:  # only now: a caller without an identity learns no paths
                raise GRPCError(
                    Status.UNIMPLEMENTED,
                    "there is no such method"
                    if _PATH.fullmatch(request.path)
                    else "the path is not /package.Service/Method",
                )
            await _run(call, method)
        except NotGrpc as rejection:
            if call.writable:
                await call.reject(rejection)
            else:
                call.refuse()
        except Exception as error:  # noqa: BLE001 - a bug is raised again
            await self._answer_error(call, error, write=method.write)
        else:
            if call.outcome is None:
                await call.send_trailing_metadata()

    async def _answer_error(
        self, call: "Call[object, object]", error: Exception, *, write: bool
    ) -> None:
        """Answer a call that has failed.

        Raises:
            Exception: The error itself, if it is a bug.
        """
        try:
            status = self._serving.status_of(error, write=write)
        except Exception:
            # The reason is in the log under the request's id, and nowhere else.
            if call.open:
                await call.send_error(GRPCError(Status.INTERNAL, "internal error"))
            raise
        if call.caller is not None or call.writable:
            await call.send_error(status)
        else:  # a client without an identity that does not read must not occupy the server
            call.refuse()


async def _run(call: "Call[object, object]", method: Method) -> None:
    """Run the method until the deadline of the call.

    Raises:
        GRPCError: The deadline has passed.
    """
    deadline = call.deadline
    if deadline is None:
        await method.served.func(call)
        return
    try:
        async with Timeout(deadline.time_remaining()) as limit:
            if deadline.time_remaining() <= 0:  # do not start what no caller waits for
                raise TimeoutError
            await method.served.func(call)
    except TimeoutError:
        if limit.expired() or deadline.time_remaining() <= 0:
            # A batch may commit a write after its caller has left.
            more = f"; {UNCERTAIN_WRITE}" if method.write else ""
            raise GRPCError(Status.DEADLINE_EXCEEDED, f"the deadline has passed{more}") from None
        raise


def _observe_end(
    call: "Call[object, object]", seconds: float, failure: BaseException | None
) -> None:
    """Log the end of a call, and report it to its observation."""
    if call.http_status:
        status = f"HTTP {call.http_status}"
    elif call.outcome is not None:
        status = call.outcome.name
    else:
        status = "CANCELLED" if isinstance(failure, asyncio.CancelledError) else "GONE"
    fields = {
        "method": call.request.path,
        "status": status,
        "milliseconds": round(seconds * 1000, 3),
        "request_id": call.request.request_id,
        "peer": call.peer.name or None,
    }
    # Writing to a client that has gone, or has given up the call, is not an error.
    gone = isinstance(failure, H2ProtocolError) and call.outcome is None
    if isinstance(failure, Exception) and not gone:
        log.error("call", **fields, exc_info=failure)
    else:
        log.info("call", **fields)
    if call.observation is not None:
        # A call without an outcome had no client left to answer.
        call.observation.finished(call.outcome or Status.CANCELLED, seconds)
