"""The methods that are served, as telemetry names them. No client can add a name to them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from grpclib._typing import IServable
from grpclib.const import Cardinality

_TYPES = {
    Cardinality.UNARY_UNARY: "unary",
    Cardinality.UNARY_STREAM: "server_stream",
    Cardinality.STREAM_UNARY: "client_stream",
    Cardinality.STREAM_STREAM: "bidi_stream",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A method that is served.

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


UNKNOWN = Method(type="unary", service="unknown", name="unknown")
"""Stands for every path that is not served: what clients invent must not become a label."""


def methods_of(services: Iterable[IServable]) -> Mapping[str, Method]:
    """List what services serve, by path."""
    methods: dict[str, Method] = {}
    for served in services:
        for path, handler in served.__mapping__().items():
            service, _, name = path.removeprefix("/").partition("/")
            methods[path] = Method(type=_TYPES[handler.cardinality], service=service, name=name)
    return methods
