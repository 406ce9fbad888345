"""Metrics over HTTP, on a port of their own, which is closed at the end."""

import asyncio
import socket
import threading
from collections.abc import MutableMapping
from http.client import HTTPConnection
from typing import Any

import pytest
from credit_server.errors import StartError
from credit_server.telemetry import Telemetry, exposed
from prometheus_client import CollectorRegistry, Counter

from tests.ipv6 import needs_ipv6

HOST = "127.0.0.1"


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("seen_total", "How often.", registry=registry).inc(3)
    return registry


def _ready() -> bool:
    return True


def _get(port: int, host: str = HOST) -> str:
    connection = HTTPConnection(host, port, timeout=60)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.status == 200
    return text


def test_metrics_are_served_inside_the_context(registry: CollectorRegistry) -> None:
    with exposed(registry, ready=_ready, host=HOST, port=0) as shown:
        assert shown.host == HOST
        assert "seen_total 3.0" in _get(shown.port)
    with socket.create_server((HOST, shown.port)):
        assert "metrics" not in [thread.name for thread in threading.enumerate()]


@needs_ipv6
def test_the_server_listens_on_an_ipv6_address(registry: CollectorRegistry) -> None:
    with exposed(registry, ready=_ready, host="::1", port=0) as shown:
        assert "seen_total" in _get(shown.port, shown.host)


async def test_metrics_can_be_read_while_the_event_loop_is_blocked(
    registry: CollectorRegistry,
) -> None:
    asyncio.get_running_loop()  # this test is a coroutine: the loop waits for the answer
    with exposed(registry, ready=_ready, host=HOST, port=0) as shown:
        assert "seen_total" in _get(shown.port)


def test_a_client_that_sends_nothing_does_not_delay_others(registry: CollectorRegistry) -> None:
    with (
        exposed(registry, ready=_ready, host=HOST, port=0) as shown,
        socket.create_connection((HOST, shown.port)),
    ):
        assert "seen_total" in _get(shown.port)


def test_a_port_that_is_in_use_is_an_error_with_a_remedy(registry: CollectorRegistry) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(
                StartError, match=rf"port {port}: .*in use.*--metrics-port.*--no-metrics"
            ),
            exposed(registry, ready=_ready, host=HOST, port=port),
        ):
            pass


def test_a_default_port_that_is_in_use_is_replaced_by_a_free_one(
    registry: CollectorRegistry, logged: list[MutableMapping[str, Any]]
) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with exposed(
            registry, ready=_ready, host=HOST, port=port, any_port_if_in_use=True
        ) as shown:
            assert shown.port != port
            assert "seen_total" in _get(shown.port)
    assert logged[0]["port"] == port
    assert logged[0]["instead"] == shown.port


def test_an_address_of_another_machine_is_an_error(registry: CollectorRegistry) -> None:
    # An address that RFC 5737 reserves for documentation.
    with (
        pytest.raises(StartError, match="--metrics-host"),
        exposed(registry, ready=_ready, host="192.0.2.1", port=0, any_port_if_in_use=True),
    ):
        pass


def test_a_server_exports_its_version_and_process(registry: CollectorRegistry) -> None:
    with exposed(Telemetry().registry, ready=_ready, host=HOST, port=0) as shown:
        text = _get(shown.port)
    for name in ("credit_build_info{", "process_resident_memory_bytes ", "process_open_fds "):
        assert name in text


def _answer(port: int, method: str, path: str) -> tuple[int, str]:
    connection = HTTPConnection(HOST, port, timeout=60)
    connection.request(method, path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


@pytest.mark.parametrize(
    "path", ["/", "/metrics/", "/metric", "/healthz/x", "/favicon.ico", "/%6detrics2"]
)
def test_every_other_path_is_not_found(path: str, registry: CollectorRegistry) -> None:
    with exposed(registry, ready=_ready, host=HOST, port=0) as shown:
        status, text = _answer(shown.port, "GET", path)
    assert status == 404
    assert "/metrics, /healthz, /readyz" in text
    assert "seen_total" not in text


def test_readiness_follows_the_server_and_liveness_does_not(registry: CollectorRegistry) -> None:
    serving = False
    with exposed(registry, ready=lambda: serving, host=HOST, port=0) as shown:
        assert _answer(shown.port, "GET", "/readyz") == (503, "not serving\n")
        assert _answer(shown.port, "GET", "/healthz") == (200, "ok\n")
        serving = True
        assert _answer(shown.port, "GET", "/readyz") == (200, "ok\n")
        assert _answer(shown.port, "HEAD", "/readyz") == (200, "")
        assert _answer(shown.port, "HEAD", "/metrics") == (200, "")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_other_methods_than_get_and_head_are_rejected(
    path: str, registry: CollectorRegistry
) -> None:
    with exposed(registry, ready=_ready, host=HOST, port=0) as shown:
        assert _answer(shown.port, "POST", path)[0] == 405
