"""Checks that nobody is served without credentials, and that the credentials given are good."""

import dataclasses

from grpc_fuzz.model import Case, Check, Context, Finding, Presented, Reply, Severity

# Answers that say nothing about the caller: the server is busy, or the caller's time was up.
# RESOURCE_EXHAUSTED is one of them, as failed attempts may be limited.
_NOT_JUDGED = frozenset(
    {None, "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"}
)
_REFUSED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
# What no gRPC library answers by itself (statuscodes): the service has looked at the request.
_OF_THE_SERVICE = frozenset(
    {"OK", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE"}
)
_WORDS: dict[Presented, str] = {
    "missing": "without credentials",
    "forged": "with forged credentials",
    "unsigned": "with a token that says it needs no signature",
    "expired": "with an expired token",
}


def _is_protected(case: Case, context: Context) -> bool:
    credentials = context.credentials
    return credentials is not None and credentials.protect(case.method)


def _ignored(case: Case, reply: Reply, context: Context) -> str | Finding | None:
    if case.presented != "valid":
        return _cause(case, reply)
    if context.credentials is None or not _says_something(case, reply):
        return None
    for presented in context.credentials.bad():
        tried = dataclasses.replace(case, presented=presented, twin=None)
        answer = context.send(tried)
        cause = _cause(tried, answer)
        if cause is not None:
            return Finding(case=tried, reply=answer, cause=cause)
    return None


def _says_something(case: Case, reply: Reply) -> bool:
    """Whether the answer to a valid call is one that a caller without credentials must not get."""
    if case.wire is not None:
        return reply.status in _OF_THE_SERVICE
    return reply.status not in _NOT_JUDGED | _REFUSED


def _cause(case: Case, reply: Reply) -> str | None:
    if reply.status == "UNAUTHENTICATED" or reply.status in _NOT_JUDGED:
        return None
    # What breaks the protocol may be refused before anybody asks who calls.
    if case.wire is not None and reply.status not in _OF_THE_SERVICE:
        return None
    return f"{reply.status} instead of UNAUTHENTICATED {_WORDS[case.presented]}"


IGNORED_AUTH = Check(
    name="ignored_auth",
    severity=Severity.CRITICAL,
    sentence="Without valid credentials every call, sound or not, is answered UNAUTHENTICATED.",
    applies=_is_protected,
    run=_ignored,
    always_decides=True,
)


def _is_presented(case: Case, context: Context) -> bool:
    return context.credentials is not None and case.presented == "valid" and case.wire is None


def _accepted(case: Case, reply: Reply, context: Context) -> str | None:
    refused = reply.status == "UNAUTHENTICATED"
    return "UNAUTHENTICATED with the credentials given" if refused else None


CREDENTIALS_ACCEPTED = Check(
    name="credentials_accepted",
    severity=Severity.MAJOR,
    sentence="A call with the credentials given is not answered UNAUTHENTICATED.",
    applies=_is_presented,
    run=_accepted,
)
