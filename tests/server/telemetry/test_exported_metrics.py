"""The metrics on /metrics are frozen: operators' dashboards, alerts and records depend on them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path

import pytest
from credit_server.access.tls import Validity
from credit_server.telemetry import exposed
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.server.telemetry.observed import ADDRESS, Observed

CALL = ("grpc_method", "grpc_service", "grpc_type")
EXPORTED = {
    "credit_batch_seconds": ("histogram", ("le",)),
    "credit_batch_size": ("histogram", ("le",)),
    "credit_build_info": ("gauge", ("python", "version")),
    "credit_certificate_days_left": ("gauge", ("file",)),
    "credit_commit_unknown": ("counter", ()),
    "credit_conflicts": ("counter", ()),
    "credit_connections": ("gauge", ()),
    "credit_connections_closed": ("counter", ("reason",)),
    "credit_event_loop_lag_seconds": ("histogram", ("le",)),
    "credit_operations": ("counter", ("grpc_code", "kind")),
    "credit_queue_depth": ("gauge", ()),
    "credit_retries": ("counter", ()),
    "credit_settle_lag_seconds": ("gauge", ()),
    "credit_settled": ("counter", ()),
    "credit_shed": ("counter", ("cause",)),
    "credit_store_healthy": ("gauge", ()),
    "credit_webhook_dead_letters": ("gauge", ()),
    "credit_webhook_delivered": ("counter", ()),
    "credit_webhook_failed": ("counter", ()),
    "credit_webhook_pending_seconds": ("gauge", ()),
    "credit_store_ping_seconds": ("histogram", ("le",)),
    "credit_watch_delay_seconds": ("histogram", ("le",)),
    "credit_watchers": ("gauge", ()),
    "grpc_server_handled": ("counter", ("grpc_code", *CALL)),
    "grpc_server_handling_seconds": ("histogram", (*CALL, "le")),
    "grpc_server_msg_received": ("counter", CALL),
    "grpc_server_msg_sent": ("counter", CALL),
    "grpc_server_started": ("counter", CALL),
    "process_cpu_seconds": ("counter", ()),
    "process_max_fds": ("gauge", ()),
    "process_open_fds": ("gauge", ()),
    "process_resident_memory_bytes": ("gauge", ()),
    "process_start_time_seconds": ("gauge", ()),
    "process_virtual_memory_bytes": ("gauge", ()),
    "python_gc_collections": ("counter", ("generation",)),
    "python_gc_objects_collected": ("counter", ("generation",)),
    "python_gc_objects_uncollectable": ("counter", ("generation",)),
}
SUFFIXES = {
    "counter": {"_total"},
    "gauge": {""},
    "histogram": {"_bucket", "_count", "_sum"},
}
SECONDS = "0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 +Inf"
BUCKETS = {
    "credit_batch_seconds": SECONDS,
    "credit_watch_delay_seconds": SECONDS,
    "credit_batch_size": "1.0 2.0 4.0 8.0 16.0 32.0 64.0 128.0 256.0 512.0 1000.0 +Inf",
    "credit_event_loop_lag_seconds": "0.001 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 +Inf",
    "credit_store_ping_seconds": (
        "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 +Inf"
    ),
    "grpc_server_handling_seconds": SECONDS,
}
CAUSES = {
    *("calls", "clock_skewed", "deadline", "expected_wait", "loop_lag", "queue_full"),
    "stopping",
}


@pytest.fixture
async def exported(server: Observed) -> dict[str, Metric]:
    """Every family of metrics that the HTTP server exports, by name."""
    telemetry = server.telemetry
    telemetry.connections.watch_closed(lambda: {"idle": 1})
    now = datetime.now(UTC)
    telemetry.certificates.look([Validity(path=Path("server.pem"), begins=now, ends=now)], now)
    with exposed(telemetry.registry, ready=lambda: True, host=ADDRESS, port=0) as shown:
        connection = HTTPConnection(ADDRESS, shown.port, timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
    return {family.name: family for family in text_string_to_metric_families(text)}


def _labels(family: Metric) -> tuple[str, ...]:
    return tuple(sorted({label for sample in family.samples for label in sample.labels}))


def _values(label: str, families: Iterable[Metric]) -> list[str]:
    values = [
        sample.labels[label]
        for family in families
        for sample in family.samples
        if label in sample.labels
    ]
    return list(dict.fromkeys(values))


async def test_names_types_and_labels_are_those_that_were_released(
    exported: dict[str, Metric],
) -> None:
    found = {name: (family.type, _labels(family)) for name, family in exported.items()}
    assert found == EXPORTED
    for name, family in exported.items():
        samples = {sample.name.removeprefix(name) for sample in family.samples}
        assert samples == SUFFIXES[family.type], name
        assert family.documentation


async def test_buckets_are_those_that_were_released(exported: dict[str, Metric]) -> None:
    histograms = {name for name, family in exported.items() if family.type == "histogram"}
    assert histograms == BUCKETS.keys()
    for name, buckets in BUCKETS.items():
        assert _values("le", [exported[name]]) == buckets.split(), name


async def test_the_causes_of_rejected_calls_are_those_that_were_released(
    exported: dict[str, Metric],
) -> None:
    assert set(_values("cause", exported.values())) == CAUSES
