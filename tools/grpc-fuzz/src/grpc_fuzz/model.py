"""The nouns of a run: methods, cases, replies, checks and failures."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from grpc_fuzz.shape import shape

if TYPE_CHECKING:
    from grpc_fuzz.credentials import Credentials
    from grpc_fuzz.schema import Schema

PHASES = ("examples", "coverage", "fuzzing", "wire", "stateful")

Metadata = tuple[tuple[str, str | bytes], ...]

FailureKey = tuple[str, str, str, str]
"""Check, method, status and shape of the cause."""

Presented = Literal["valid", "missing", "forged", "unsigned", "expired"]
"""The credentials that a call comes with, where the run has some."""


class Severity(Enum):
    """How bad it is when a check fails, worst first."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredError:
    """One way in which a method may refuse, as its options declare it.

    Attributes:
        status: The name of the gRPC status, such as "NOT_FOUND".
        reason: The `google.rpc.ErrorInfo.reason` that comes with it, where reasons are declared.
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
        path: What a call names, such as "/shop.v1.Orders/Get".
        service: The full name of the service.
        name: The short name of the method.
        input: The request's message type.
        output: The response's message type.
        idempotency: "IDEMPOTENCY_UNKNOWN", "NO_SIDE_EFFECTS" or "IDEMPOTENT".
        declared: The errors that the method declares, or None where it declares nothing.
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
        """The statuses of the declared errors, or None where nothing is declared."""
        if self.declared is None:
            return None
        return frozenset(error.status for error in self.declared)


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
    """Another spelling of the same requests, which a server must treat alike.

    Attributes:
        relation: In what the two differ.
        requests: The plain spelling; the case itself carries the unusual one.
    """

    relation: Literal["unknown_fields", "unset_equals_zero"]
    requests: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WireStep:
    """One thing that a wire case does on its connection.

    Attributes:
        action: What to do. "headers" opens the next stream, "data" and "reset" go on it; "raw"
            writes `payload` to the socket as it is; "storm" opens `times` streams with `headers`
            and resets each at once; "hang_up" closes our side of the connection.
        headers: The header list of "headers" and "storm", in order and unchecked.
        payload: The bytes of "data" or "raw".
        end_stream: Whether "headers" or "data" half-closes the stream.
        times: How often to do it; of "headers", in how many frames.
    """

    action: Literal["headers", "data", "reset", "raw", "storm", "hang_up"]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    payload: bytes = b""
    end_stream: bool = False
    times: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class WireScript:
    """What a wire case does, byte by byte, on an HTTP/2 connection of its own.

    What is waited for is the end of the stream that was opened last. Where the script has reset
    that stream, the answer to a PING is waited for instead.
    """

    steps: tuple[WireStep, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    """A value that a request takes from what an earlier call of the sequence has answered.

    Attributes:
        field: The path of the request's field, such as "order.user_id".
        call: The position of the earlier call in `Case.before`, from 0.
        response: The position of the response message in that call's answer, from 0.
        source: The path of the response's field, such as "lines[0].id".
    """

    field: str
    call: int
    response: int
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One call to be made, with what is known about it beforehand.

    Attributes:
        method: What is called.
        phase: The phase that made the case; one of `PHASES`.
        positive: True where the requests keep every constraint, False where they break one, None
            where that is not known (a constraint that cannot be evaluated).
        requests: The serialized request messages; exactly one unless the client streams. A client
            that streams may send none.
        broken: The constraint that a negative case breaks.
        metadata: Sent with the call, beside the run's own; keys in lower case.
        description: What the case tries, for people.
        twin: The plain spelling of the requests, for the checks that compare the two.
        wire: The script of a wire case, which is played instead of an ordinary call.
        expected: The only outcomes (see `Reply.outcome`) that the gRPC documents allow, or None.
        before: The calls of a sequence that came first, in order.
        bindings: Where the request's values come from, when the sequence is played again; the
            requests hold those of the first time.
        presented: Which credentials the call comes with; those of the calls before are valid.
        about: What the case tries: the method, or the gRPC runtime beneath it, which does the same
            whatever the method.
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
        """Names the case by what it sends: twelve hexadecimal digits, the same in every run."""
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
        type_url: What the entry says it is.
        value: Its bytes.
        message: The decoded message, or None where that cannot be done.
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
    """What came back.

    Attributes:
        status: The name of the gRPC status that the server sent, or None where it sent none.
        message: The status message.
        details: The decoded error details.
        details_error: Why `grpc-status-details-bin` could not be read, or None.
        initial_metadata: As received.
        trailers: As received.
        responses: The serialized responses, in order.
        seconds: From sending to the end of the call.
        healthy_after: Whether the server answered a probe afterwards; None where none was sent.
        transport_error: Why there is no status; the first word is one of `Reply.outcome`.
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
        """The status or, where there is none, how the exchange ended.

        That is "HTTP_415" (a plain HTTP answer), "RST_STREAM", "GOAWAY", "CLOSED", "ALIVE" (the
        call was cancelled and the connection still answers) or "NO_REPLY".
        """
        if self.status is not None:
            return self.status
        return (self.transport_error or "NO_REPLY").split(maxsplit=1)[0].rstrip(":")

    def trailer(self, name: str) -> str | bytes | None:
        """The first trailer of that name, or None."""
        return next((value for key, value in self.trailers if key == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrailerRule:
    """A trailer that carries a message, as the configuration declares it.

    Attributes:
        message: The full name of the message type.
        ignore: Fields that may differ when an idempotent call is repeated.
    """

    message: str
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a reply may take.

    Attributes:
        request_timeout: The deadline of each call, in seconds. A call that has no answer by then
            hangs.
        slack: How much later than the deadline a reply may come, in seconds.
        max_response_time: The bound of the check of that name, in seconds; None: not checked.
    """

    request_timeout: float = 5.0
    slack: float = 1.0
    max_response_time: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a check may use beside the case and the reply.

    Attributes:
        schema: The contract.
        send: Makes a further call, outside all checks.
        limits: What a reply may take.
        allowed_statuses: Statuses that any method may answer with, declared or not.
        idempotency_key: The request field that makes a call safe to repeat, or None.
        trailers: The declared trailers, by name.
        credentials: What every call comes with, or None.
    """

    schema: "Schema"
    send: Callable[[Case], Reply]
    limits: Limits = Limits()
    allowed_statuses: frozenset[str] = frozenset()
    idempotency_key: str | None = None
    trailers: Mapping[str, TrailerRule] = field(default_factory=dict)
    credentials: "Credentials | None" = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a check has found in a further call that it made itself.

    Attributes:
        case: That call.
        reply: What the server answered.
        cause: What was wrong with it.
    """

    case: Case
    reply: Reply
    cause: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One property that every reply must have.

    Attributes:
        name: In snake_case; how options name the check.
        severity: How bad it is when the check fails.
        sentence: What the check means, for people.
        applies: Whether the check has anything to say about a case.
        run: The cause of the failure, or None where the reply is as it must be. A cause is short
            and free of values that change from case to case: its shape distinguishes failures.
            Where it is a further call that shows the failure, a `Finding` names it.
        default: Whether the check runs without being named.
        always_decides: Whether the check's failures decide the exit code also in cases about the
            runtime.
    """

    name: str
    severity: Severity
    sentence: str
    applies: Callable[[Case, Context], bool]
    run: Callable[[Case, Reply, Context], str | Finding | None]
    default: bool = True
    always_decides: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A check that failed, with everything that is needed to see it fail again.

    Attributes:
        check: The check's name.
        severity: The check's severity.
        case: The case, as small as it could be made.
        reply: What the server answered.
        cause: What was wrong with it.
        reproducers: Ways to send the same again, by kind: "buf curl", "python", "bytes", "replay".
        of_runtime: Whether it is the gRPC runtime that deviates, and not the service.
        times: In how many calls of the run it was seen.
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
        """What distinguishes failures: check, method, status and the shape of the cause.

        The runtime does the same whatever the method, so its failures have none.
        """
        method = "" if self.of_runtime else self.case.method.path
        return (self.check, method, self.reply.status or "", shape(self.cause))
