"""Connections as Prometheus sees them."""

from credit_models import UserId
from credit_server.http2.connections import Closing
from credit_testing.http2_client import Wire

from tests.server.serving import until
from tests.server.telemetry.observed import Observed


async def test_open_connections_are_counted(server: Observed) -> None:
    assert server.value("credit_connections") == 0
    async with Wire.connect(server.port) as wire:
        await wire.call("GetUserCredits", UserId(user_id=7))
        assert server.value("credit_connections") == 1
    await until(lambda: server.value("credit_connections") == 0)


async def test_each_reason_for_closing_is_shown_before_it_has_happened(server: Observed) -> None:
    connections = server.server.connections
    server.telemetry.connections.watch_closed(lambda: connections.closed, Closing)
    for reason in Closing:
        assert server.value("credit_connections_closed_total", reason=reason) == 0


async def test_closings_are_counted_by_reason(server: Observed) -> None:
    server.telemetry.connections.watch_closed(lambda: {"idle": 2})
    assert server.value("credit_connections_closed_total", reason="idle") == 2
