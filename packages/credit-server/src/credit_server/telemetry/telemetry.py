"""All that is observed of a server, put together: one registry, one tracer, one meter."""

from collections.abc import Iterable
from importlib.metadata import version

from grpclib._typing import IServable
from opentelemetry import metrics, trace
from prometheus_client import CollectorRegistry

from credit_server.telemetry.batch_spans import BatchSpans
from credit_server.telemetry.call_metrics import CallMetrics
from credit_server.telemetry.call_spans import CallSpans
from credit_server.telemetry.call_telemetry import CallTelemetry
from credit_server.telemetry.certificate_metrics import CertificateMetrics
from credit_server.telemetry.commit_metrics import CommitMetrics
from credit_server.telemetry.commit_telemetry import CommitTelemetry
from credit_server.telemetry.connection_metrics import ConnectionMetrics
from credit_server.telemetry.instruments import CallInstruments, CommitInstruments
from credit_server.telemetry.method import methods_of
from credit_server.telemetry.process_metrics import ProcessMetrics
from credit_server.telemetry.store_metrics import StoreMetrics

_SCOPE = "credit_server"


class Telemetry:
    """Observes one server. Each part is told of its own subject.

    Attributes:
        registry: What Prometheus is shown.
        commits: Observes batches.
        connections: Observes connections.
        store: Observes the store's health.
        process: Observes the process.
        certificates: Observes certificates that end.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        """Prepare to observe.

        Args:
            tracer_provider: Who records spans; None: the one that was set for the process before.
            meter_provider: Who records measurements; likewise.
        """
        tracer_provider = tracer_provider or trace.get_tracer_provider()
        meter = metrics.get_meter(_SCOPE, version("credit-server"), meter_provider)
        # Without an SDK a span would be made for nobody: 6 µs for each call, most of them for
        # reading the client's context. An instrument without one costs 0.1 µs.
        self._tracer: trace.Tracer | None = None
        if not isinstance(tracer_provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            self._tracer = tracer_provider.get_tracer(_SCOPE, version("credit-server"))
        self._call_instruments = CallInstruments(meter)
        self.registry = CollectorRegistry()
        self.commits = CommitTelemetry(
            CommitMetrics(self.registry),
            CommitInstruments(meter),
            None if self._tracer is None else BatchSpans(self._tracer),
        )
        self.connections = ConnectionMetrics(self.registry)
        self.store = StoreMetrics(self.registry)
        self.process = ProcessMetrics(self.registry)
        self.certificates = CertificateMetrics(self.registry)

    def calls(
        self, services: Iterable[IServable], *, server_address: str, server_port: int
    ) -> CallTelemetry:
        """Make what observes the calls of services; once for a server.

        Args:
            services: All that is served; the metrics' labels are taken from it.
            server_address: Where the server listens.
            server_port: Its port; 0: not known yet.
        """
        spans = None
        if self._tracer is not None:
            spans = CallSpans(self._tracer, server_address=server_address, server_port=server_port)
        return CallTelemetry(
            CallMetrics(self.registry, methods_of(services)), self._call_instruments, spans
        )
