"""What gRPC needs from the rest of the server, plugged in by `credit_server.app`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.protocol import Peer

if TYPE_CHECKING:  # a call has a caller, which is declared here
    from credit_server.grpc.call import Call


class CutOff(Exception):
    """The server ends a call that it has begun, because it closes the connection."""


class Translate(Protocol):
    """Returns the status for an exception."""

    def __call__(self, error: BaseException, *, write: bool) -> GRPCError | None:
        """Return the status; None: the exception is a bug.

        Args:
            error: The exception.
            write: Whether the call writes. The message of a read does not mention changes.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """What the server has to know of the services beside gRPC's own.

    Attributes:
        codec: Decodes requests and encodes answers. It raises GRPCError for a request that cannot
            be decoded.
        translate: Returns the status for what a method, `Access`, admission or a `CutOff` raises.
        writes: The paths of the methods that change something.
        watches: The paths of streams that last until their clients end them. Their service limits
            their number, so they do not count as running calls.
        files: The files that define the services.
    """

    codec: CodecBase
    translate: Translate
    writes: frozenset[str]
    files: FileDescriptorSet
    watches: frozenset[str] = frozenset()


class Caller(Protocol):
    """The caller of a call, as `Access.admit` has identified it."""

    @property
    def name(self) -> str:
        """The name under which limits that callers share count the call."""

    @property
    def identity_name(self) -> str | None:
        """The name of the identity that the call has proved; None: it has proved none."""

    @property
    def counted(self) -> bool:
        """Whether the call counts as running, so that `Access.leave` must follow."""


class Access(Protocol):
    """Decides which calls are allowed."""

    def check(self, paths: Collection[str]) -> None:
        """Check that each served path has a rule.

        Raises:
            LookupError: A path has none.
        """

    # Any: a call of any messages.
    def admit(self, call: "Call[Any, Any]") -> Caller:
        """Authenticate, authorize and admit a call whose message has not been read.

        A path that is not served must be admitted too: it is answered as such, and only to callers
        that have proved an identity.

        Raises:
            Exception: The call is not allowed; `Contract.translate` returns its status.
        """

    def leave(self, caller: Caller) -> None:
        """Record that a call of a `counted` caller has ended and its answer has been sent."""


class CallObservation(Protocol):
    """Follows one call from its headers to its status."""

    @property
    def trace_id(self) -> str | None:
        """The trace that the call is recorded in, 32 hexadecimal digits; None: in none."""

    @property
    def context(self) -> object | None:
        """What stands for the call where its batch is observed: see `commit.observer`."""

    def message_received(self) -> None:
        """Count a sound message that was received."""

    def message_sent(self, count: int = 1) -> None:
        """Count messages that were sent."""

    def operation_ended(self, kind: str, status: Status) -> None:
        """Note the end of one operation of a call that has several.

        Args:
            kind: The kind of the operation, of a fixed set.
            status: Its status.
        """

    def finished(self, status: Status, seconds: float) -> None:
        """Note the end of the call. It is called once, in the task that serves the call.

        Args:
            status: The status as the client sees it; CANCELLED if it had stopped listening.
            seconds: How long the call took.
        """


class CallObserver(Protocol):
    """Observes every call."""

    def started(self, path: str, metadata: Mapping[str, str], peer: Peer) -> CallObservation:
        """Note the start of a call. It is called in the task that serves the call.

        Args:
            path: The path that was called; it may be one that is not served.
            metadata: The headers of the request.
            peer: The client.
        """
