"""Checks that the server rejects invalid credentials, and accepts valid ones."""

import dataclasses

from grpc_fuzz.checks.check import Check, Context, Finding
from grpc_fuzz.model import Case, Presented, Reply, Severity

# Statuses that do not depend on the caller: the server is overloaded, or the deadline has passed.
# RESOURCE_EXHAUSTED is one of them, because a server may limit failed attempts.
_NOT_JUDGED = frozenset(
    {None, "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"}
)
_ACCESS_DENIED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
# Statuses that no gRPC library returns itself (statuscodes): the service has processed the request.
_SERVICE_STATUSES = frozenset(
    {"OK", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE"}
)
_DESCRIPTIONS: dict[Presented, str] = {
    "missing": "without credentials",
    "forged": "with forged credentials",
    "unsigned": "with a token that says it needs no signature",
    "expired": "with an expired token",
}


def _is_protected(case: Case, context: Context) -> bool:
    credentials = context.credentials
    return credentials is not None and credentials.required_by(case.method)


def _ignored(case: Case, reply: Reply, context: Context) -> str | Finding | None:
    if case.presented != "valid":
        return _cause(case, reply)
    if context.credentials is None or not _needed_credentials(case, reply):
        return None
    for presented in context.credentials.invalid():
        repeated = dataclasses.replace(case, presented=presented, twin=None)
        answer = context.send(repeated)
        cause = _cause(repeated, answer)
        if cause is not None:
            return Finding(case=repeated, reply=answer, cause=cause)
    return None


def _needed_credentials(case: Case, reply: Reply) -> bool:
    """Return whether the reply is one that a caller without valid credentials must not get."""
    if case.wire is not None:
        return reply.status in _SERVICE_STATUSES
    return reply.status not in _NOT_JUDGED | _ACCESS_DENIED


def _cause(case: Case, reply: Reply) -> str | None:
    if reply.status == "UNAUTHENTICATED" or reply.status in _NOT_JUDGED:
        return None
    # A server may reject a protocol violation before it authenticates the caller.
    if case.wire is not None and reply.status not in _SERVICE_STATUSES:
        return None
    return f"{reply.status} instead of UNAUTHENTICATED {_DESCRIPTIONS[case.presented]}"


IGNORED_AUTH = Check(
    name="ignored_auth",
    severity=Severity.CRITICAL,
    sentence="Without valid credentials, every call ends with UNAUTHENTICATED, valid or not.",
    applies=_is_protected,
    run=_ignored,
    always_decides=True,
)


def _is_presented(case: Case, context: Context) -> bool:
    return context.credentials is not None and case.presented == "valid" and case.wire is None


def _accepted(case: Case, reply: Reply, context: Context) -> str | None:
    rejected = reply.status == "UNAUTHENTICATED"
    return "UNAUTHENTICATED with the valid credentials" if rejected else None


CREDENTIALS_ACCEPTED = Check(
    name="credentials_accepted",
    severity=Severity.MAJOR,
    sentence="A call with the valid credentials does not end with UNAUTHENTICATED.",
    applies=_is_presented,
    run=_accepted,
)
