"""Wire cases that cancel calls: one call in progress, and a limited number in a row."""

from collections.abc import Iterator

from grpc_fuzz.model import Case, Method, WireStep
from grpc_fuzz.wire.script import (
    HANG_UP,
    HTTP2_ERROR,
    RESET,
    SERVICE_STATUSES,
    call_fields,
    data,
    frame,
    headers,
    prefixed,
    raw,
    valid_call,
    wire_case,
)

# Enough to find a server that keeps cancelled calls, and far from an attack on a shared server.
STORM_CALLS = 100
_PING, _SETTINGS = 6, 4
_PINGS = 50


def cancellation_cases(method: Method, request: bytes) -> Iterator[Case]:
    """Yield the cases of one method, made from one request that keeps the contract."""
    body = prefixed(request)
    fields = call_fields(method)
    opened = headers(fields)
    # A server owes no reply to a cancelled call, but the connection must stay alive.
    cancelled = HTTP2_ERROR | {"ALIVE"}
    for description, steps in {
        "cancelled before the message": (opened, RESET),
        "cancelled within the message": (opened, data(body[:-1], end_stream=False), RESET),
        "cancelled after the message": (opened, data(body, end_stream=False), RESET),
        "cancelled after the end of the request": (opened, data(body), RESET),
    }.items():
        yield wire_case(method, description, *steps, expected=cancelled | SERVICE_STATUSES)
    yield wire_case(
        method,
        "the connection is closed during the call",
        *valid_call(method, body),
        HANG_UP,
        expected=HTTP2_ERROR | SERVICE_STATUSES,
    )
    # A server may treat this as an attack. Otherwise it must answer the next call as usual.
    after_storm = HTTP2_ERROR | SERVICE_STATUSES
    storm = WireStep(action="storm", headers=fields, times=STORM_CALLS)
    yield wire_case(
        method,
        f"a call after {STORM_CALLS} resets",
        storm,
        *valid_call(method, body),
        expected=after_storm,
    )
    for name, octets in {
        "PING": frame(_PING, bytes(8)),
        "empty SETTINGS": frame(_SETTINGS, b""),
    }.items():
        yield wire_case(
            method,
            f"a call after {_PINGS} frames of {name}",
            raw(octets, times=_PINGS),
            *valid_call(method, body),
            expected=after_storm,
        )
