"""Checks that the server answers at all, in time, without breaking down."""

from grpc_fuzz.checks.cause import same_for_all
from grpc_fuzz.model import Case, Check, Context, Reply, Severity

SERVER_ERRORS = frozenset({"UNKNOWN", "INTERNAL", "DATA_LOSS"})


def _replied(case: Case, reply: Reply, context: Context) -> str | None:
    if case.method.server_streaming and reply.responses:
        # A stream may go on for as long as there is something to tell.
        return None
    if case.expected is not None and reply.outcome != "NO_REPLY":
        # What broke the protocol may end without a status; protocol_status says whether rightly.
        return None
    if reply.status is None and reply.outcome not in (case.expected or ()):
        return f"no status came back: {same_for_all(reply.transport_error or 'no reason known')}"
    bound = context.limits.request_timeout + context.limits.slack
    if reply.seconds > bound:
        return "the status came later than the deadline and its slack"
    return None


ALWAYS_REPLIES = Check(
    name="always_replies",
    severity=Severity.CRITICAL,
    sentence="Every call ends with a status of the server's, within its deadline and some slack.",
    applies=lambda case, context: True,
    run=_replied,
)


def _healthy(case: Case, reply: Reply, context: Context) -> str | None:
    return "the server did not answer a health probe" if reply.healthy_after is False else None


SERVER_STILL_HEALTHY = Check(
    name="server_still_healthy",
    severity=Severity.CRITICAL,
    sentence="After the call the server still answers on another connection.",
    applies=lambda case, context: True,
    run=_healthy,
)


def _no_server_error(case: Case, reply: Reply, context: Context) -> str | None:
    if reply.status not in SERVER_ERRORS or reply.status in (case.expected or ()):
        return None
    return f"{reply.status}: {same_for_all(reply.message)}"


NOT_A_SERVER_ERROR = Check(
    name="not_a_server_error",
    severity=Severity.CRITICAL,
    sentence="No request makes the server fail on its own account: UNKNOWN, INTERNAL, DATA_LOSS.",
    applies=lambda case, context: True,
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
