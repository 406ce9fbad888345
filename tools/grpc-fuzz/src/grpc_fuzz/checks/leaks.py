"""The check that replies reveal no internals of the server."""

import re

from grpc_fuzz.checks.check import Check, Context
from grpc_fuzz.model import Case, Metadata, Reply, Severity

# What each pattern finds. Each is narrow enough that prose does not match.
_LEAKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "a Python traceback",
        re.compile(r"Traceback \(most recent call last\)|File \"[^\"]+\", line"),
    ),
    ("a Java stack trace", re.compile(r"\bat [\w$.]+\([\w$]+\.java:\d+\)")),
    ("a Go stack trace", re.compile(r"goroutine \d+ \[|panic: |runtime error: ")),
    ("a Rust panic", re.compile(r"thread '[^']*' panicked at")),
    ("a JavaScript stack trace", re.compile(r"\bat .+\(.+\.[jt]s:\d+:\d+\)")),
    (
        "a file path of the server",
        re.compile(r"(?:^|[\s'\"(=])(?:/(?:usr|home|opt|var|srv|app|root|tmp)/\S|[A-Z]:\\\w)"),
    ),
    ("a source location", re.compile(r"\b\w+\.(?:py|go|rs|java|cc|cpp|rb|cs|kt):\d+")),
    ("an object address", re.compile(r"\bat 0x[0-9a-f]{6,}|<class '|<\w+(?:\.\w+)+ object")),
    (
        "the name of an exception class",
        re.compile(
            r"\b(?:\w+\.)*[A-Z]\w*(?:Error|Exception)\b(?=\s*[:(])"
            r"|\b\w+\.(?:errors|exceptions)\.[A-Z]\w+"
        ),
    ),
    (
        "a database message",
        re.compile(r"E11000|SQLSTATE|\bORA-\d{5}|mongodb://|postgres(?:ql)?://"),
    ),
)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _texts(reply: Reply) -> list[tuple[str, str]]:
    """Return the places where a server writes text, with the text."""
    pairs: Metadata = (*reply.initial_metadata, *reply.trailers)
    return [("the status message", reply.message), *((key, _text(value)) for key, value in pairs)]


def _leak(case: Case, reply: Reply, context: Context) -> str | None:
    sent = b"\x00".join(case.requests).decode("utf-8", "replace")
    for place, text in _texts(reply):
        for what, pattern in _LEAKS:
            found = pattern.search(text)
            # What the request itself contains is no secret.
            if found is not None and found.group().strip() not in sent:
                return f"{place} contains {what}"
    return None


NO_INTERNAL_LEAK = Check(
    name="no_internal_leak",
    severity=Severity.MAJOR,
    sentence="No reply contains tracebacks, file paths or class names of the server.",
    applies=lambda case, context: True,
    run=_leak,
)
