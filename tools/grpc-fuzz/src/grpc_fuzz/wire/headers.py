"""Wire cases that break a call's header list: pseudo-headers, timeouts, binary metadata."""

from collections.abc import Iterator

from grpc_fuzz.model import Case, Method
from grpc_fuzz.wire.script import (
    CHOSEN,
    CORRUPT,
    HTTP2_ERROR,
    Fields,
    call_fields,
    data,
    headers,
    prefixed,
    wire_case,
)

# A header list that HTTP/2 calls malformed (RFC 9113, 8.1.1): an error of the stream or of the
# connection, or an answer that says so.
MALFORMED = HTTP2_ERROR | {"HTTP_400", "INTERNAL", "INVALID_ARGUMENT"}
UNIMPLEMENTED = frozenset({"UNIMPLEMENTED"})
# The documents name no status for these: what counts is that there is an answer, and that it is
# not taken for the service's own failure.
REFUSED = CORRUPT | {"INVALID_ARGUMENT", "HTTP_400"}
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
    """Yields the cases of one method, made from one request that keeps the contract."""
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
        # A quick server may be done before it looks at the clock.
        expected=CHOSEN | {"RST_STREAM"},
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
    # A proxy would have made "connection" go away; some servers do not mind it.
    hop = (*fields, (b"connection", b"keep-alive"))
    yield "with a field of HTTP/1", hop, MALFORMED | CHOSEN
    # RFC 9113 wants :authority or host where there is one, and gRPC calls it optional.
    yield (
        "without :authority",
        call_fields(method, replaced={b":authority": None}),
        MALFORMED | CHOSEN,
    )


def _http(method: Method) -> Iterator[_Variant]:
    yield "without content-type", call_fields(method, replaced={b"content-type": None}), NOT_GRPC
    for kind in (b"application/json", b"text/plain", b""):
        name = f"with content-type {kind.decode()!r}"
        yield name, call_fields(method, replaced={b"content-type": kind}), NOT_GRPC
    yield (
        "with application/grpc+proto",
        call_fields(method, replaced={b"content-type": b"application/grpc+proto"}),
        CHOSEN,
    )
    other_codec = call_fields(method, replaced={b"content-type": b"application/grpc+fuzz"})
    yield "with a codec that nobody knows", other_codec, CHOSEN | NOT_GRPC | {"INTERNAL"}
    # `te` is there to find proxies that are in the way; what to do then is the server's choice.
    yield "without te", call_fields(method, replaced={b"te": None}), CHOSEN | REFUSED
    for verb in (b"GET", b"PUT", b"FUZZ"):
        expected = REFUSED | NOT_GRPC | {"HTTP_405", "HTTP_501", "UNIMPLEMENTED"}
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
        "a method in other case": path.swapcase(),
        "a path with a query": path + b"?a=b",
        "a path with a slash too many": path + b"/",
        "a path with %2F": b"/" + service + b"%2F" + method.name.encode(),
    }.items():
        yield f"with {name}", call_fields(method, replaced={b":path": value}), UNIMPLEMENTED
    for value in (b"", b"/", b"*", b"//", path[1:], b"/" + b"a" * 2000):
        expected = MALFORMED | (CHOSEN - {"OK"}) | {"HTTP_404", "HTTP_414"}
        name = f"with the path {value[:20].decode()!r}"
        yield name, call_fields(method, replaced={b":path": value}), expected


def _metadata(method: Method) -> Iterator[_Variant]:
    for name, value in _BAD_TIMEOUTS.items():
        fields = call_fields(method, (b"grpc-timeout", value))
        yield f"with a grpc-timeout that is {name}", fields, CHOSEN | REFUSED
    yield (
        "with a grpc-timeout of 8 digits",
        call_fields(method, (b"grpc-timeout", b"99999999H")),
        CHOSEN,
    )
    for name, value in _BAD_BASE64.items():
        fields = call_fields(method, (b"x-fuzz-bin", value))
        yield f"with -bin metadata that is {name}", fields, CHOSEN | REFUSED
    for name, value in {"padded": b"AA==", "unpadded": b"AA", "joined": b"AA,AQI"}.items():
        yield f"with {name} -bin metadata", call_fields(method, (b"x-fuzz-bin", value)), CHOSEN
    # "Implementations must not error due to receiving an invalid ASCII-Value."
    yield "with metadata that is not ASCII", call_fields(method, (b"x-fuzz", b"\xc3\xa9")), CHOSEN
    yield "with a reserved field", call_fields(method, (b"grpc-fuzz", b"1")), CHOSEN
    long = call_fields(method, (b"x-fuzz", b"a" * _LONG_VALUE_BYTES))
    yield "with 64 KiB of metadata", long, CHOSEN | HTTP2_ERROR | {"INTERNAL", "HTTP_431"}
    many = call_fields(method, *((b"x-fuzz", b"") for _ in range(1000)))
    yield "with 1000 fields", many, CHOSEN | HTTP2_ERROR | {"INTERNAL", "HTTP_431"}
