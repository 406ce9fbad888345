"""The interface of a check: what it is given, and what it returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from grpc_fuzz.credentials import Credentials
from grpc_fuzz.model import Case, Limits, Reply, Severity, TrailerRule
from grpc_fuzz.schema import Schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a check may use besides the case and the reply.

    Attributes:
        schema: The contract.
        send: Makes another call, which no check judges.
        limits: The limits on the time of a reply.
        allowed_statuses: The statuses that any method may return, declared or not.
        answered_inside: Globs of the fields whose constraints are answered in the response.
        unstated_rules: Fields with rules that no option states.
        changing_fields: Paths in responses that may differ when a call is repeated.
        idempotency_key: The request field that makes a call safe to repeat, or None.
        trailers: The declared trailers, by name.
        credentials: The credentials of every call, or None.
    """

    schema: Schema
    send: Callable[[Case], Reply]
    limits: Limits = field(default_factory=Limits)
    allowed_statuses: frozenset[str] = frozenset()
    answered_inside: tuple[str, ...] = ()
    unstated_rules: tuple[str, ...] = ()
    changing_fields: tuple[str, ...] = ()
    idempotency_key: str | None = None
    trailers: Mapping[str, TrailerRule] = field(default_factory=dict)
    credentials: Credentials | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A failure that a check found in another call, which it made itself.

    Attributes:
        case: The other call.
        reply: The reply to it.
        cause: What is wrong with the reply.
    """

    case: Case
    reply: Reply
    cause: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A property that every reply must have.

    Attributes:
        name: The name in options, in snake_case.
        severity: How severe a failure is.
        sentence: What the check means, for people.
        applies: Returns whether the check can judge a case.
        run: Returns the cause of the failure, or None if the reply is correct. A cause is short and
            free of values that change from case to case, because causes distinguish failures. If
            another call shows the failure, `run` returns a `Finding`.
        default: Whether the check runs without being named.
        always_decides: Whether failures decide the exit code even in cases about the runtime.
    """

    name: str
    severity: Severity
    sentence: str
    applies: Callable[[Case, Context], bool]
    run: Callable[[Case, Reply, Context], str | Finding | None]
    default: bool = True
    always_decides: bool = False
