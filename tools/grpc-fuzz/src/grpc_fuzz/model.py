"""The data of a run: methods, cases, replies and failures."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import Literal

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from grpc_fuzz.normalize import normalize

PHASES = ("examples", "coverage", "fuzzing", "wire", "stateful")

Metadata = tuple[tuple[str, str | bytes], ...]

# Check, method, status and normalized cause.
FailureKey = tuple[str, str, str, str]

# The credentials that a call carries, where the run has credentials.
Presented = Literal["valid", "missing", "forged", "unsigned", "expired"]


class Severity(Enum):
    """How severe the failure of a check is, from the most severe."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredError:
    """One error that the options of a method declare.

    Attributes:
        status: The name of the gRPC status, such as "NOT_FOUND".
        reason: The `google.rpc.ErrorInfo.reason` of the error, if reasons are declared.
        metadata: The keys of `ErrorInfo.metadata` that are always present.
        details: The short names of the `google.rpc` messages that are always present.
    """

    status: str
    reason: str | None = None
    metadata: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One method of a service.

    Attributes:
        path: The path of a call, such as "/shop.v1.Orders/Get".
        service: The full name of the service.
        name: The short name of the method.
        input: The request's message type.
        output: The response's message type.
        idempotency: "IDEMPOTENCY_UNKNOWN", "NO_SIDE_EFFECTS" or "IDEMPOTENT".
        client_streaming: Whether the client sends a stream of requests.
        server_streaming: Whether the server sends a stream of responses.
        declared: The errors that the method declares, or None if it declares nothing.
    """

    path: str
    service: str
    name: str
    input: Descriptor
    output: Descriptor
    client_streaming: bool
    server_streaming: bool
    idempotency: str
    declared: tuple[DeclaredError, ...] | None

    @property
    def declared_statuses(self) -> frozenset[str] | None:
        """The statuses of the declared errors, or None if nothing is declared."""
        if self.declared is None:
            return None
        return frozenset(error.status for error in self.declared)

    def matches(self, globs: Iterable[str]) -> bool:
        """Return whether the path, with or without its leading slash, or the name fits a glob."""
        names = (self.path, self.path.removeprefix("/"), self.name)
        return any(fnmatchcase(name, glob) for glob in globs for name in names)


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenRule:
    """The one constraint that a negative case breaks.

    Attributes:
        field: The path of the field, such as "order.lines[0].count".
        rule: The name of the constraint, such as "maximum" or "required".
    """

    field: str
    rule: str

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Twin:
    """Another encoding of the same requests, which a server must treat alike.

    Attributes:
        relation: How the two encodings differ.
        requests: The plain encoding. The case itself carries the unusual one.
    """

    relation: Literal["unknown_fields", "unset_equals_zero"]
    requests: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WireStep:
    """One step of a wire case on its connection.

    Attributes:
        action: What the step does. "headers" opens the next stream; "data" and "reset" act on it.
            "raw" writes `payload` to the socket as it is. "storm" opens `times` streams with
            `headers` and resets each at once. "hang_up" closes the client's side of the connection.
        headers: The header list of "headers" and "storm", in order and unchecked.
        payload: The bytes of "data" or "raw".
        end_stream: Whether "headers" or "data" half-closes the stream.
        times: How often the step is repeated; for "headers", the number of frames.
    """

    action: Literal["headers", "data", "reset", "raw", "storm", "hang_up"]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    payload: bytes = b""
    end_stream: bool = False
    times: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class WireScript:
    """The steps of a wire case, which run on an HTTP/2 connection of their own.

    The script ends with the end of the stream that it opened last. If the script reset that
    stream, it ends with the answer to a PING.
    """

    steps: tuple[WireStep, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    """A value that a request takes from the response to an earlier call of the sequence.

    Attributes:
        field: The path of the request's field, such as "order.user_id".
        call: The position of the earlier call in `Case.before`, from 0.
        response: The position of the response message among the responses to that call, from 0.
        source: The path of the response's field, such as "lines[0].id".
    """

    field: str
    call: int
    response: int
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One call to make, with what is known about it beforehand.

    Attributes:
        method: The method to call.
        phase: The phase that made the case, one of `PHASES`.
        positive: True if the requests keep every constraint, False if they break one, None if
            that is not known (because a constraint cannot be evaluated).
        requests: The serialized request messages; exactly one unless the client streams. A client
            that streams may send none.
        broken: The constraint that a negative case breaks.
        metadata: The metadata of the call besides that of the run, with keys in lower case.
        description: What the case tests, for people.
        twin: The plain encoding of the requests, for the checks that compare the two.
        wire: The script of a wire case, which replaces an ordinary call.
        expected: The only outcomes (see `Reply.outcome`) that the gRPC documents allow, or None.
        before: The earlier calls of the sequence, in order.
        bindings: The sources of the request's values when the sequence is sent again. The requests
            hold the values of the first time.
        presented: The credentials that the call carries. The earlier calls carry valid ones.
        about: What the case tests: the method, or the gRPC runtime below it, which behaves the
            same for every method.
    """

    method: Method
    phase: str
    positive: bool | None
    requests: tuple[bytes, ...]
    broken: BrokenRule | None = None
    metadata: Metadata = ()
    description: str = ""
    twin: Twin | None = None
    wire: WireScript | None = None
    expected: frozenset[str] | None = None
    before: tuple["Case", ...] = ()
    bindings: tuple[Binding, ...] = ()
    presented: Presented = "valid"
    about: Literal["method", "runtime"] = "method"

    @property
    def id(self) -> str:
        """An id made from what the case sends: 12 hexadecimal digits, the same in every run."""
        parts = (
            self.method.path,
            [request.hex() for request in self.requests],
            repr(self.metadata),
            repr(self.wire),
            [case.id for case in self.before],
            self.presented,
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True, slots=True)
class Detail:
    """One entry of `google.rpc.Status.details`.

    Attributes:
        type_url: The type URL of the entry.
        value: The bytes of the entry.
        message: The decoded message, or None if it cannot be decoded.
    """

    type_url: str
    value: bytes
    message: Message | None

    @property
    def name(self) -> str:
        """The full name of the message type."""
        return self.type_url.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The reply to a call.

    Attributes:
        status: The name of the gRPC status that the server sent, or None if it sent none.
        message: The status message.
        details: The decoded error details.
        details_error: Why `grpc-status-details-bin` cannot be read, or None.
        initial_metadata: The initial metadata as received.
        trailers: The trailers as received.
        responses: The serialized responses, in order.
        seconds: The time from sending to the end of the call.
        healthy_after: Whether the server passed a health check afterwards; None without a check.
        transport_error: Why there is no status. The first word is one of `Reply.outcome`.
    """

    status: str | None
    message: str = ""
    details: tuple[Detail, ...] = ()
    details_error: str | None = None
    initial_metadata: Metadata = ()
    trailers: Metadata = ()
    responses: tuple[bytes, ...] = ()
    seconds: float = 0.0
    healthy_after: bool | None = None
    transport_error: str | None = None

    @property
    def outcome(self) -> str:
        """The status or, without one, how the exchange ended.

        That is "HTTP_415" (a plain HTTP response), "RST_STREAM", "GOAWAY", "CLOSED", "ALIVE" (the
        call was cancelled and the connection still answers) or "NO_REPLY".
        """
        if self.status is not None:
            return self.status
        return (self.transport_error or "NO_REPLY").split(maxsplit=1)[0].rstrip(":")

    def trailer(self, name: str) -> str | bytes | None:
        """Return the first trailer with a name, or None."""
        return next((value for key, value in self.trailers if key == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrailerRule:
    """A trailer that carries a message, as the configuration declares it.

    Attributes:
        message: The full name of the message type.
        ignore: The fields that may differ when an idempotent call is repeated.
    """

    message: str
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits on the time of a reply.

    Attributes:
        request_timeout: The deadline of each call, in seconds. A call without a reply by then
            hangs.
        slack: How much later than the deadline a reply may come, in seconds.
        max_response_time: The limit of the check of that name, in seconds; None disables it.
    """

    request_timeout: float = 5.0
    slack: float = 1.0
    max_response_time: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A check that failed, with everything that is needed to reproduce the failure.

    Attributes:
        check: The check's name.
        severity: The check's severity.
        case: The case, shrunk as far as possible.
        reply: The reply of the server.
        cause: What is wrong with the reply.
        reproducers: Ways to send the case again, by kind: "buf curl", "python", "bytes", "replay".
        of_runtime: Whether the gRPC runtime deviates, and not the service.
        times: The number of calls of the run in which the failure was seen.
    """

    check: str
    severity: Severity
    case: Case
    reply: Reply
    cause: str
    reproducers: Mapping[str, str] = field(default_factory=dict)
    of_runtime: bool = False
    times: int = 1

    @property
    def key(self) -> FailureKey:
        """What distinguishes failures: check, method, status and the normalized cause.

        The runtime behaves the same for every method, so its failures have no method.
        """
        method = "" if self.of_runtime else self.case.method.path
        return (self.check, method, self.reply.status or "", normalize(self.cause))
