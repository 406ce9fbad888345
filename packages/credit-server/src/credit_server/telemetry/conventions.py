"""Define the names under which telemetry reports calls: methods, statuses and attributes.

Metrics use the names of go-grpc-prometheus:
https://github.com/grpc-ecosystem/go-grpc-middleware/tree/main/providers/prometheus. Spans use the
semantic conventions of OpenTelemetry, https://opentelemetry.io/docs/specs/semconv/rpc/ (the stable
line, after version 1.37). The package of these conventions still marks the names as incubating, so
they are copied here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from grpclib._typing import IServable
from grpclib.const import Cardinality, Status

PEER_ADDRESS = "network.peer.address"
PEER_PORT = "network.peer.port"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

_SYSTEM = "rpc.system.name"
_METHOD = "rpc.method"
_STATUS_CODE = "rpc.response.status_code"
_ERROR_TYPE = "error.type"
_GRPC = "grpc"
_OTHER = "_OTHER"

_TYPES = {
    Cardinality.UNARY_UNARY: "unary",
    Cardinality.UNARY_STREAM: "server_stream",
    Cardinality.STREAM_UNARY: "client_stream",
    Cardinality.STREAM_STREAM: "bidi_stream",
}

# The statuses that make a call an error of the server. All others are caused by the client.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A method that the server serves.

    Attributes:
        type: `unary`, `server_stream`, `client_stream` or `bidi_stream`.
        service: The service's full name, such as `credit.v1.CreditService`.
        name: The method's own name, such as `AddCredits`.
    """

    type: str
    service: str
    name: str

    @property
    def full_name(self) -> str:
        """Service and method, such as `credit.v1.CreditService/AddCredits`."""
        return f"{self.service}/{self.name}"


# Represents every path that is not served. A path that a client invents must not become a label.
UNKNOWN = Method(type="unary", service="unknown", name="unknown")


def methods_of(services: Iterable[IServable]) -> Mapping[str, Method]:
    """Return the methods of services, by path."""
    methods: dict[str, Method] = {}
    for served in services:
        for path, handler in served.__mapping__().items():
            service, _, name = path.removeprefix("/").partition("/")
            methods[path] = Method(type=_TYPES[handler.cardinality], service=service, name=name)
    return methods


def go_code(status: Status) -> str:
    """Return a status as Go spells it: `OK`, `NotFound`, and `Canceled` with one l."""
    match status:
        case Status.OK:
            return "OK"
        case Status.CANCELLED:
            return "Canceled"
        case _:
            return "".join(word.capitalize() for word in status.name.split("_"))


def span_name(method: Method) -> str:
    """Return the name of a call's span."""
    return _GRPC if method is UNKNOWN else method.full_name


def start_attributes(method: Method) -> dict[str, str]:
    """Return the attributes of a call that are known when it starts."""
    return {_SYSTEM: _GRPC, _METHOD: _OTHER if method is UNKNOWN else method.full_name}


def end_attributes(status: Status) -> Mapping[str, str]:
    """Return the attributes of a call that are known when it ends."""
    return _END_ATTRIBUTES[status]


_END_ATTRIBUTES: Mapping[Status, Mapping[str, str]] = {
    status: {_STATUS_CODE: status.name}
    | ({_ERROR_TYPE: status.name} if status in SERVER_FAULTS else {})
    for status in Status
}
