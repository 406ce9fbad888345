"""Wire cases with invalid header lists: pseudo-headers, timeouts, binary metadata."""

from collections.abc import Iterator

from grpc_fuzz.model import Case, Method
from grpc_fuzz.wire.script import (
    CORRUPT,
    HTTP2_ERROR,
    SERVICE_STATUSES,
    Fields,
    call_fields,
    data,
    headers,
    prefixed,
    wire_case,
)

# For a header list that HTTP/2 calls malformed (RFC 9113, 8.1.1): a stream error, a connection
# error, or a response that reports it.
MALFORMED = HTTP2_ERROR | {"HTTP_400", "INTERNAL", "INVALID_ARGUMENT"}
UNIMPLEMENTED = frozenset({"UNIMPLEMENTED"})
# The documents name no status for these. The server must answer, and must not report a failure of
# its own.
REJECTED = CORRUPT | {"INVALID_ARGUMENT", "HTTP_400"}
NOT_GRPC = frozenset({"HTTP_415", "HTTP_400"})
_LONG_VALUE_BYTES = 65536

_BAD_TIMEOUTS = {
    "empty": b"",
    "without a unit": b"1",
    "without a number": b"S",
    "negative": b"-1S",
    "a fraction": b"1.5S",
    "an unknown unit": b"1x",
    "nine digits": b"100000000S",
    "400 digits": b"9" * 400 + b"S",
    "with a space": b"1 S",
    "hexadecimal": b"0x1S",
    "Arabic digits": "٣S".encode(),
}
_BAD_BASE64 = {"foreign characters": b"!!!!", "one character": b"A", "padding alone": b"===="}


def header_cases(method: Method, request: bytes) -> Iterator[Case]:
    """Yield the cases of one method, made from one request that keeps the contract."""
    body = prefixed(request)
    for description, fields, expected in (
        *_pseudo_headers(method),
        *_http(method),
        *_paths(method),
        *_metadata(method),
    ):
        yield wire_case(method, description, headers(fields), data(body), expected=expected)
    yield wire_case(
        method,
        "a deadline that passes at once",
        headers(call_fields(method, (b"grpc-timeout", b"1n"))),
        data(body),
        # A fast server may finish before it checks the deadline.
        expected=SERVICE_STATUSES | {"RST_STREAM"},
    )


_Variant = tuple[str, Fields, frozenset[str]]


def _pseudo_headers(method: Method) -> Iterator[_Variant]:
    fields = call_fields(method)
    for name in (b":method", b":scheme", b":path"):
        yield f"without {name.decode()}", call_fields(method, replaced={name: None}), MALFORMED
    doubled = (fields[0], *fields)
    yield "with :method twice", doubled, MALFORMED
    yield "with an unknown pseudo-header", ((b":fuzz", b"1"), *fields), MALFORMED
    yield "with a pseudo-header after the others", (*fields[1:], fields[0]), MALFORMED
    yield "with a field name in upper case", (*fields, (b"X-Fuzz", b"1")), MALFORMED
    # A proxy would have removed "connection". Some servers ignore it.
    hop = (*fields, (b"connection", b"keep-alive"))
    yield "with a field of HTTP/1", hop, MALFORMED | SERVICE_STATUSES
    # RFC 9113 requires :authority or host if there is one. gRPC calls it optional.
    yield (
        "without :authority",
        call_fields(method, replaced={b":authority": None}),
        MALFORMED | SERVICE_STATUSES,
    )


def _http(method: Method) -> Iterator[_Variant]:
    yield "without content-type", call_fields(method, replaced={b"content-type": None}), NOT_GRPC
    for kind in (b"application/json", b"text/plain", b""):
        name = f"with content-type {kind.decode()!r}"
        yield name, call_fields(method, replaced={b"content-type": kind}), NOT_GRPC
    yield (
        "with application/grpc+proto",
        call_fields(method, replaced={b"content-type": b"application/grpc+proto"}),
        SERVICE_STATUSES,
    )
    other_codec = call_fields(method, replaced={b"content-type": b"application/grpc+fuzz"})
    yield "with an unknown codec", other_codec, SERVICE_STATUSES | NOT_GRPC | {"INTERNAL"}
    # `te` detects incompatible proxies. The server decides what to do without it.
    yield "without te", call_fields(method, replaced={b"te": None}), SERVICE_STATUSES | REJECTED
    for verb in (b"GET", b"PUT", b"FUZZ"):
        expected = REJECTED | NOT_GRPC | {"HTTP_405", "HTTP_501", "UNIMPLEMENTED"}
        yield (
            f"with method {verb.decode()}",
            call_fields(method, replaced={b":method": verb}),
            expected,
        )


def _paths(method: Method) -> Iterator[_Variant]:
    path = method.path.encode()
    service = method.service.encode()
    for name, value in {
        "an unknown method": b"/" + service + b"/GrpcFuzzNoSuchMethod",
        "an unknown service": b"/grpc.fuzz.NoSuchService/" + method.name.encode(),
        "a method in another case": path.swapcase(),
        "a path with a query": path + b"?a=b",
        "a path with a trailing slash": path + b"/",
        "a path with %2F": b"/" + service + b"%2F" + method.name.encode(),
    }.items():
        yield f"with {name}", call_fields(method, replaced={b":path": value}), UNIMPLEMENTED
    for value in (b"", b"/", b"*", b"//", path[1:], b"/" + b"a" * 2000):
        expected = MALFORMED | (SERVICE_STATUSES - {"OK"}) | {"HTTP_404", "HTTP_414"}
        name = f"with the path {value[:20].decode()!r}"
        yield name, call_fields(method, replaced={b":path": value}), expected


def _metadata(method: Method) -> Iterator[_Variant]:
    for name, value in _BAD_TIMEOUTS.items():
        fields = call_fields(method, (b"grpc-timeout", value))
        yield f"with a grpc-timeout that is {name}", fields, SERVICE_STATUSES | REJECTED
    yield (
        "with a grpc-timeout of 8 digits",
        call_fields(method, (b"grpc-timeout", b"99999999H")),
        SERVICE_STATUSES,
    )
    for name, value in _BAD_BASE64.items():
        fields = call_fields(method, (b"x-fuzz-bin", value))
        yield f"with -bin metadata that is {name}", fields, SERVICE_STATUSES | REJECTED
    for name, value in {"padded": b"AA==", "unpadded": b"AA", "joined": b"AA,AQI"}.items():
        yield (
            f"with {name} -bin metadata",
            call_fields(method, (b"x-fuzz-bin", value)),
            SERVICE_STATUSES,
        )
    # "Implementations must not error due to receiving an invalid ASCII-Value."
    yield (
        "with metadata that is not ASCII",
        call_fields(method, (b"x-fuzz", b"\xc3\xa9")),
        SERVICE_STATUSES,
    )
    yield "with a reserved field", call_fields(method, (b"grpc-fuzz", b"1")), SERVICE_STATUSES
    long = call_fields(method, (b"x-fuzz", b"a" * _LONG_VALUE_BYTES))
    yield "with 64 KiB of metadata", long, SERVICE_STATUSES | HTTP2_ERROR | {"INTERNAL", "HTTP_431"}
    many = call_fields(method, *((b"x-fuzz", b"") for _ in range(1000)))
    yield "with 1000 fields", many, SERVICE_STATUSES | HTTP2_ERROR | {"INTERNAL", "HTTP_431"}
