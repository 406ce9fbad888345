"""Wire cases that give up calls: one in mid-call, and many in a row, within a bound."""

from collections.abc import Iterator

from grpc_fuzz.model import Case, Method, WireStep
from grpc_fuzz.wire.script import (
    CHOSEN,
    HANG_UP,
    HTTP2_ERROR,
    RESET,
    call_fields,
    data,
    frame,
    headers,
    prefixed,
    raw,
    sound,
    wire_case,
)

# Enough to find a server that keeps what was cancelled; far from an attack on a shared one.
STORM_CALLS = 100
_PING, _SETTINGS = 6, 4
_PINGS = 50


def storm_cases(method: Method, request: bytes) -> Iterator[Case]:
    """Yields the cases of one method, made from one request that keeps the contract."""
    body = prefixed(request)
    fields = call_fields(method)
    opened = headers(fields)
    # Nothing is owed to a caller who has gone, but the connection still lives.
    cancelled = HTTP2_ERROR | {"ALIVE"}
    for description, steps in {
        "cancelled before the message": (opened, RESET),
        "cancelled within the message": (opened, data(body[:-1], end_stream=False), RESET),
        "cancelled after the message": (opened, data(body, end_stream=False), RESET),
        "cancelled after the end of the request": (opened, data(body), RESET),
    }.items():
        yield wire_case(method, description, *steps, expected=cancelled | CHOSEN)
    yield wire_case(
        method,
        "the connection is closed in mid-call",
        *sound(method, body),
        HANG_UP,
        expected=HTTP2_ERROR | CHOSEN,
    )
    # A server may call this an attack; if it does not, the next call is answered as ever.
    calmed = HTTP2_ERROR | CHOSEN
    storm = WireStep(action="storm", headers=fields, times=STORM_CALLS)
    yield wire_case(
        method, f"a call after {STORM_CALLS} resets", storm, *sound(method, body), expected=calmed
    )
    for name, octets in {
        "PING": frame(_PING, bytes(8)),
        "empty SETTINGS": frame(_SETTINGS, b""),
    }.items():
        yield wire_case(
            method,
            f"a call after {_PINGS} frames of {name}",
            raw(octets, times=_PINGS),
            *sound(method, body),
            expected=calmed,
        )
