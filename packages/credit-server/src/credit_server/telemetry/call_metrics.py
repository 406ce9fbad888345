"""Counts calls for Prometheus, under the names of go-grpc-prometheus.

See https://github.com/grpc-ecosystem/go-grpc-middleware/tree/main/providers/prometheus: dashboards
and alerts that are made for those names work here too.
"""

from collections.abc import Mapping
from typing import Final

from grpclib.const import Status
from prometheus_client import CollectorRegistry, Counter, Histogram

from credit_server.telemetry.method import UNKNOWN, Method

_LABELS = ("grpc_type", "grpc_service", "grpc_method")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class CallMetrics:
    """The metrics of all calls.

    Every series exists from the start: a first failure is an increase, not a new series, which
    `rate` would not see.
    """

    def __init__(self, registry: CollectorRegistry, methods: Mapping[str, Method]) -> None:
        started = Counter(
            "grpc_server_started_total", "Calls that have begun.", _LABELS, registry=registry
        )
        handled = Counter(
            "grpc_server_handled_total",
            "Calls that have ended, by status.",
            (*_LABELS, "grpc_code"),
            registry=registry,
        )
        received = Counter(
            "grpc_server_msg_received_total",
            "Messages that came in and are sound.",
            _LABELS,
            registry=registry,
        )
        sent = Counter(
            "grpc_server_msg_sent_total", "Messages that went out.", _LABELS, registry=registry
        )
        handling = Histogram(
            "grpc_server_handling_seconds",
            "How long calls took, from their headers to their status.",
            _LABELS,
            registry=registry,
            buckets=_SECONDS,
        )
        running = {
            method: MethodMetrics(
                method,
                started=started.labels(*_values(method)),
                handled={
                    status: handled.labels(*_values(method), _code(status)) for status in Status
                },
                received=received.labels(*_values(method)),
                sent=sent.labels(*_values(method)),
                handling=handling.labels(*_values(method)),
            )
            for method in {*methods.values(), UNKNOWN}
        }
        self._unknown = running[UNKNOWN]
        self._methods = {path: running[method] for path, method in methods.items()}

    def of(self, path: str) -> "MethodMetrics":
        """Return the metrics of the method with a path; all that are not served share theirs."""
        return self._methods.get(path, self._unknown)


class MethodMetrics:
    """The metrics of one method, their labels bound once: a look-up costs more than the count."""

    __slots__ = ("_handled", "_handling", "_received", "_sent", "_started", "method")

    def __init__(
        self,
        method: Method,
        *,
        started: Counter,
        handled: Mapping[Status, Counter],
        received: Counter,
        sent: Counter,
        handling: Histogram,
    ) -> None:
        self.method: Final = method
        self._started = started
        self._handled = handled
        self._received = received
        self._sent = sent
        self._handling = handling

    def started(self) -> None:
        """Count a call that begins."""
        self._started.inc()

    def message_received(self) -> None:
        """Count a message that came in."""
        self._received.inc()

    def message_sent(self, count: int) -> None:
        """Count messages that went out."""
        self._sent.inc(count)

    def finished(self, status: Status, seconds: float) -> None:
        """Count a call that has ended."""
        self._handled[status].inc()
        self._handling.observe(seconds)


def _values(method: Method) -> tuple[str, str, str]:
    return method.type, method.service, method.name


def _code(status: Status) -> str:
    """Spell a status as Go does: `OK`, `NotFound`, and `Canceled` with one l."""
    match status:
        case Status.OK:
            return "OK"
        case Status.CANCELLED:
            return "Canceled"
        case _:
            return "".join(word.capitalize() for word in status.name.split("_"))
