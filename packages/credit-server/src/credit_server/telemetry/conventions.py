"""The names that OpenTelemetry's semantic conventions give to what is observed of a call.

See https://opentelemetry.io/docs/specs/semconv/rpc/ (the stable line, after version 1.37). The
package of the conventions still marks these names as incubating, so they are written down here.
"""

from collections.abc import Mapping

from grpclib.const import Status

from credit_server.telemetry.method import UNKNOWN, Method

SYSTEM = "rpc.system.name"
METHOD = "rpc.method"
STATUS_CODE = "rpc.response.status_code"
ERROR_TYPE = "error.type"
PEER_ADDRESS = "network.peer.address"
PEER_PORT = "network.peer.port"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
CALL_DURATION = "rpc.server.call.duration"
CALL_DURATION_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)

GRPC = "grpc"
OTHER = "_OTHER"

SERVER_FAULTS = frozenset(
    {
        Status.UNKNOWN,
        Status.DEADLINE_EXCEEDED,
        Status.UNIMPLEMENTED,
        Status.INTERNAL,
        Status.UNAVAILABLE,
        Status.DATA_LOSS,
    }
)
"""The statuses that make a server's call an error; the others are the client's concern."""


def span_name(method: Method) -> str:
    """Name the span of a call."""
    return GRPC if method is UNKNOWN else method.full_name


def begin_attributes(method: Method) -> dict[str, str]:
    """Describe a call as it begins."""
    return {SYSTEM: GRPC, METHOD: OTHER if method is UNKNOWN else method.full_name}


def end_attributes(status: Status) -> Mapping[str, str]:
    """Describe how a call has ended."""
    return _ENDS[status]


_ENDS: Mapping[Status, Mapping[str, str]] = {
    status: {STATUS_CODE: status.name}
    | ({ERROR_TYPE: status.name} if status in SERVER_FAULTS else {})
    for status in Status
}
