"""Wire cases with an invalid message stream: prefixes, flags, number and length of messages."""

import gzip
from collections.abc import Iterator
from random import Random

from grpc_fuzz.model import Case, Method
from grpc_fuzz.strategies.encodings import tag, varint
from grpc_fuzz.wire.script import (
    CORRUPT,
    SERVICE_STATUSES,
    UNKNOWN_FIELD,
    call_fields,
    data,
    headers,
    prefixed,
    wire_case,
)

_UINT32_MAX = 2**32 - 1
_BOMB_BYTES = 8 * 2**20
_LONG_BYTES = 5 * 2**20
_TRUNCATIONS = 8


def message_cases(method: Method, request: bytes, random: Random) -> Iterator[Case]:
    """Yield the cases of one method, made from one request that keeps the contract."""
    yield from _truncated(method, request, random)
    yield from _wrong_length(method, request)
    yield from _compressed(method, request)
    yield from _long(method, request)
    if not method.client_streaming:
        yield from _wrong_count(method, request)


def _call(
    method: Method, description: str, body: bytes, expected: frozenset[str], encoding: bytes = b""
) -> Case:
    more = ((b"grpc-encoding", encoding),) if encoding else ()
    steps = (headers(call_fields(method, *more)), data(body))
    return wire_case(method, description, *steps, expected=expected)


def _truncated(method: Method, request: bytes, random: Random) -> Iterator[Case]:
    body = prefixed(request)
    for length in range(1, 5):
        yield _call(method, f"prefix cut to {length} bytes", body[:length], CORRUPT)
    if request:
        cuts = random.sample(range(5, len(body)), min(_TRUNCATIONS, len(request)))
        for length in sorted(cuts):
            name = f"message cut to {length - 5} of {len(request)} bytes"
            yield _call(method, name, body[:length], CORRUPT)


def _wrong_length(method: Method, request: bytes) -> Iterator[Case]:
    longer = prefixed(request, length=len(request) + 1)
    yield _call(method, "prefix one byte too long", longer, CORRUPT)
    # A server may reject such a long message before it notices that the bytes do not arrive.
    too_long = CORRUPT | {"RESOURCE_EXHAUSTED"}
    for length in (2**31 - 1, 2**31, _UINT32_MAX):
        name = f"prefix of {length} bytes"
        yield _call(method, name, prefixed(request, length=length), too_long)
    yield wire_case(
        method,
        "announced bytes that never come, with a deadline",
        headers(call_fields(method, (b"grpc-timeout", b"200m"))),
        data(prefixed(request, length=len(request) + 1), end_stream=False),
        expected=frozenset({"DEADLINE_EXCEEDED", "CANCELLED", "RST_STREAM"}),
    )
    if request:
        # The server reads the rest as a second message: too short for its prefix, or one too many.
        expected = (
            too_long | {"UNIMPLEMENTED"} | (SERVICE_STATUSES if method.client_streaming else set())
        )
        for length in sorted({0, len(request) - 1}):
            name = f"prefix {len(request) - length} bytes too short"
            yield _call(method, name, prefixed(request, length=length), expected)


def _compressed(method: Method, request: bytes) -> Iterator[Case]:
    internal = frozenset({"INTERNAL"})
    undone = frozenset({"INTERNAL", "UNIMPLEMENTED"})
    flagged = prefixed(request, flag=1)
    yield _call(method, "compressed flag without grpc-encoding", flagged, internal)
    yield _call(method, "compressed flag with identity", flagged, internal, b"identity")
    unsupported = frozenset({"UNIMPLEMENTED"})
    yield _call(method, "compressed with an unknown algorithm", flagged, unsupported, b"x-none")
    yield _call(method, "compressed flag on what is not gzip", flagged, undone, b"gzip")
    cut = prefixed(gzip.compress(request, mtime=0)[:-4], flag=1)
    yield _call(method, "truncated gzip", cut, undone, b"gzip")
    bomb = prefixed(gzip.compress(bytes(_BOMB_BYTES), mtime=0), flag=1)
    rejected = undone | {"RESOURCE_EXHAUSTED"}
    yield _call(method, f"gzip of {_BOMB_BYTES} zero bytes", bomb, rejected, b"gzip")
    valid = prefixed(gzip.compress(request, mtime=0), flag=1)
    yield _call(method, "valid gzip", valid, SERVICE_STATUSES, b"gzip")
    for flag in (2, 128, 255):
        name = f"compressed flag {flag}"
        yield _call(method, name, prefixed(request, flag=flag), CORRUPT | {"UNIMPLEMENTED"})


def _long(method: Method, request: bytes) -> Iterator[Case]:
    unknown = tag(UNKNOWN_FIELD, 2) + varint(_LONG_BYTES) + bytes(_LONG_BYTES)
    body = prefixed(request + unknown)
    # The server decides whether five megabytes are too long.
    yield _call(method, f"message of {_LONG_BYTES} bytes", body, SERVICE_STATUSES)


def _wrong_count(method: Method, request: bytes) -> Iterator[Case]:
    violation = frozenset({"UNIMPLEMENTED"})
    yield wire_case(
        method,
        "no message, the stream ends with HEADERS",
        headers(call_fields(method), end_stream=True),
        expected=violation,
    )
    yield _call(method, "no message, the stream ends with empty DATA", b"", violation)
    yield _call(method, "two messages", prefixed(request) * 2, violation)
