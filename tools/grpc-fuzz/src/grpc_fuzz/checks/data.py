"""Checks that the server accepts what the contract allows, and nothing else."""

from fnmatch import fnmatchcase

from google.rpc.error_details_pb2 import BadRequest

from grpc_fuzz.checks.check import Check, Context
from grpc_fuzz.model import Case, Reply, Severity
from grpc_fuzz.replies import detail
from grpc_fuzz.strategies import RANGE

# Statuses for an invalid request, which do not depend on the state of the server.
_INVALID_REQUEST = frozenset({"INVALID_ARGUMENT", "UNIMPLEMENTED"})


def _rejected(case: Case, reply: Reply, context: Context) -> str | None:
    if reply.status != "OK":
        return None
    return f"accepted although a constraint is broken: {case.broken or case.description}"


NEGATIVE_DATA_REJECTED = Check(
    name="negative_data_rejected",
    severity=Severity.MAJOR,
    sentence="A request that breaks a constraint of the contract is rejected.",
    applies=lambda case, context: (
        _is_negative(case)
        and not _breaks_time_range(case)
        and not _is_answered_inside(case, context)
    ),
    run=_rejected,
)


def _is_negative(case: Case) -> bool:
    return case.positive is False and case.wire is None


def _is_answered_inside(case: Case, context: Context) -> bool:
    return case.broken is not None and any(
        fnmatchcase(case.broken.field, glob) for glob in context.answered_inside
    )


def _breaks_time_range(case: Case) -> bool:
    return case.broken is not None and case.broken.rule == RANGE


TIMES_IN_RANGE = Check(
    name="times_in_range",
    severity=Severity.MAJOR,
    sentence="A Timestamp or Duration outside its documented range is rejected.",
    applies=lambda case, context: (
        _is_negative(case) and _breaks_time_range(case) and not _is_answered_inside(case, context)
    ),
    run=_rejected,
)


def _accepted(case: Case, reply: Reply, context: Context) -> str | None:
    if reply.status not in _INVALID_REQUEST:
        return None
    bad_request = detail(reply, "google.rpc.BadRequest")
    fields = ""
    if isinstance(bad_request, BadRequest):
        named = {entry.field for entry in bad_request.field_violations}
        message = case.method.input.name
        if named and {f"{message}.{field}" for field in named} <= {*context.unstated_rules}:
            return None
        fields = ", ".join(sorted(named))
    return f"{reply.status} for a request that keeps every constraint" + (fields and f" ({fields})")


POSITIVE_DATA_ACCEPTED = Check(
    name="positive_data_accepted",
    severity=Severity.MAJOR,
    sentence="A request that keeps every constraint is not rejected as invalid.",
    applies=lambda case, context: case.positive is True and case.wire is None,
    run=_accepted,
)


def _named(case: Case, reply: Reply, context: Context) -> str | None:
    bad_request = detail(reply, "google.rpc.BadRequest")
    if case.broken is None or not isinstance(bad_request, BadRequest):
        return None
    if "[]" in case.broken.field:
        # The key of a map entry is random, and there is no single way to write it.
        return None
    if case.broken.field in {entry.field for entry in bad_request.field_violations}:
        return None
    return f"google.rpc.BadRequest does not name {case.broken.field}"


BROKEN_FIELD_NAMED = Check(
    name="broken_field_named",
    severity=Severity.MINOR,
    sentence="If an error lists the invalid fields, the broken field is among them.",
    applies=lambda case, context: case.broken is not None,
    run=_named,
)
