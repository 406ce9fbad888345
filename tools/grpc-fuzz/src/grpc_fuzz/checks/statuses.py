"""Checks of the status and the error details of a reply."""

from google.rpc.error_details_pb2 import ErrorInfo

from grpc_fuzz.checks.check import Check, Context
from grpc_fuzz.checks.liveness import SERVER_ERRORS
from grpc_fuzz.model import Case, DeclaredError, Reply, Severity
from grpc_fuzz.replies import error_info

# A cause names the allowed outcomes if there are at most this many.
_NAMED_MAX = 8


def _declares(case: Case, context: Context) -> bool:
    return case.wire is None and case.method.declared is not None


def _documented(case: Case, reply: Reply, context: Context) -> str | None:
    declared = case.method.declared
    if declared is None or reply.status in (None, "OK") or reply.status in context.allowed_statuses:
        return None
    if reply.status not in {error.status for error in declared}:
        return f"{reply.status} is not among the method's declared errors"
    reasons = [error for error in declared if error.reason is not None]
    return _documented_reason(reply, reasons) if reasons else None


def _documented_reason(reply: Reply, declared: list[DeclaredError]) -> str | None:
    info = error_info(reply)
    if not isinstance(info, ErrorInfo):
        return f"{reply.status} came without a google.rpc.ErrorInfo, which names the reason"
    error = next((error for error in declared if error.reason == info.reason), None)
    if error is None:
        return f"the reason {info.reason} is not among the method's declared errors"
    if error.status != reply.status:
        return f"the reason {info.reason} came with {reply.status} instead of {error.status}"
    missing = [key for key in error.metadata if key not in info.metadata]
    if missing:
        return f"the reason {info.reason} came without the metadata {', '.join(missing)}"
    present = {detail.name for detail in reply.details}
    absent = [name for name in error.details if f"google.rpc.{name}" not in present]
    if absent:
        return f"the reason {info.reason} came without the detail {', '.join(absent)}"
    return None


DOCUMENTED_STATUS = Check(
    name="documented_status",
    severity=Severity.MAJOR,
    sentence="An error is one that the method declares, with the declared reason and details.",
    applies=_declares,
    run=_documented,
)


def _protocol(case: Case, reply: Reply, context: Context) -> str | None:
    # always_replies reports a missing reply.
    if case.expected is None or reply.outcome in {"NO_REPLY", *case.expected}:
        return None
    if case.about == "method" and reply.status in SERVER_ERRORS:
        # not_a_server_error reports it.
        return None
    return f"{case.description}: {reply.outcome}{_instead(case.expected)}"


def _instead(allowed: frozenset[str]) -> str:
    """Return the allowed outcomes as text, if they are few enough."""
    return f" instead of {' or '.join(sorted(allowed))}" if len(allowed) <= _NAMED_MAX else ""


PROTOCOL_STATUS = Check(
    name="protocol_status",
    severity=Severity.MAJOR,
    sentence="A protocol violation gets the status that the gRPC documents define.",
    applies=lambda case, context: case.expected is not None,
    run=_protocol,
)


def _decodable(case: Case, reply: Reply, context: Context) -> str | None:
    if reply.details_error is not None:
        return f"grpc-status-details-bin: {reply.details_error}"
    for detail in reply.details:
        if detail.message is None:
            return f"the detail {detail.name or 'without a type'} cannot be decoded"
    return None


ERROR_DETAILS_DECODABLE = Check(
    name="error_details_decodable",
    severity=Severity.MAJOR,
    sentence="The error details are a google.rpc.Status with known messages.",
    applies=lambda case, context: True,
    run=_decodable,
)
