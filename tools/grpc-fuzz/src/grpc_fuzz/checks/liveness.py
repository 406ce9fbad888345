"""Checks that the server answers, in time, and stays healthy."""

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from grpc_fuzz.checks.check import Check, Context
from grpc_fuzz.model import Case, Reply, Severity
from grpc_fuzz.normalize import without_values
from grpc_fuzz.schema import texts_in

SERVER_ERRORS = frozenset({"UNKNOWN", "INTERNAL", "DATA_LOSS"})
# How a server ends a call whose deadline has passed. Some runtimes reset the stream instead.
_DEADLINE_OUTCOMES = frozenset({"DEADLINE_EXCEEDED", "CANCELLED", "RST_STREAM"})
# The server starts its clock later than the client, and may round the deadline.
_DEADLINE_SHARE = 0.9


def _replied(case: Case, reply: Reply, context: Context) -> str | None:
    if case.method.server_streaming and reply.responses:
        # A stream may last as long as there is something to send.
        return None
    if case.expected is not None and reply.outcome != "NO_REPLY":
        # A protocol violation may end without a status. protocol_status judges the outcome.
        return None
    if _hangs(case, reply, context):
        return None
    if reply.status is None and reply.outcome not in (case.expected or ()):
        prefix = f"{case.description}: " if case.about == "runtime" else ""
        return f"{prefix}no status: {reply.transport_error or 'unknown reason'}"
    bound = context.limits.request_timeout + context.limits.slack
    if reply.seconds > bound:
        return "the status came after the deadline and its slack"
    return None


ALWAYS_REPLIES = Check(
    name="always_replies",
    severity=Severity.CRITICAL,
    sentence="Every call ends with a status from the server, within its deadline and the slack.",
    applies=lambda case, context: True,
    run=_replied,
)


def _hangs(case: Case, reply: Reply, context: Context) -> bool:
    if case.wire is not None or reply.responses:
        return False
    late = reply.seconds >= context.limits.request_timeout * _DEADLINE_SHARE
    return late and reply.outcome in _DEADLINE_OUTCOMES


def _answered(case: Case, reply: Reply, context: Context) -> str | None:
    if not _hangs(case, reply, context):
        return None
    return f"no reply before the deadline of {context.limits.request_timeout:g} s"


ANSWERS_BEFORE_DEADLINE = Check(
    name="answers_before_deadline",
    severity=Severity.CRITICAL,
    sentence="A call ends before its deadline. A call that only the deadline ends hangs.",
    applies=lambda case, context: case.wire is None,
    run=_answered,
)


def _healthy(case: Case, reply: Reply, context: Context) -> str | None:
    return "the server failed a health check" if reply.healthy_after is False else None


SERVER_STILL_HEALTHY = Check(
    name="server_still_healthy",
    severity=Severity.CRITICAL,
    sentence="After the call, the server still answers on another connection.",
    applies=lambda case, context: True,
    run=_healthy,
    always_decides=True,
)


def _no_server_error(case: Case, reply: Reply, context: Context) -> str | None:
    if reply.status not in SERVER_ERRORS or reply.status in (case.expected or ()):
        return None
    return f"{reply.status}: {without_values(reply.message, _texts(case, context))}"


def _texts(case: Case, context: Context) -> Iterator[str]:
    for request in case.requests:
        try:
            yield from texts_in(context.schema.parse(case.method.input, request))
        except DecodeError:
            continue


NOT_A_SERVER_ERROR = Check(
    name="not_a_server_error",
    severity=Severity.CRITICAL,
    sentence="No request causes an error of the server itself: UNKNOWN, INTERNAL, DATA_LOSS.",
    # protocol_status judges the replies of the runtime.
    applies=lambda case, context: case.about == "method",
    run=_no_server_error,
)


def _fast_enough(case: Case, reply: Reply, context: Context) -> str | None:
    bound = context.limits.max_response_time
    if bound is None or reply.seconds <= bound:
        return None
    return f"the reply took longer than {bound:g} s"


MAX_RESPONSE_TIME = Check(
    name="max_response_time",
    severity=Severity.MINOR,
    sentence="No reply takes longer than the configured time.",
    applies=lambda case, context: context.limits.max_response_time is not None,
    run=_fast_enough,
)
