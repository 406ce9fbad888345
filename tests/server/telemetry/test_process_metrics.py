"""How late the event loop is."""

import asyncio

from credit_server.telemetry.metrics import ProcessMetrics
from prometheus_client import CollectorRegistry

from tests.server.serving import until
from tests.server.telemetry.driven_loop import DrivenLoop, drive

LAG = "credit_event_loop_lag_seconds"


def test_a_loop_that_is_held_up_is_late_by_that_much() -> None:
    registry = CollectorRegistry()

    async def scenario(loop: DrivenLoop) -> None:
        task = loop.create_task(ProcessMetrics(registry).watch_loop())
        await asyncio.sleep(5.25)
        assert registry.get_sample_value(f"{LAG}_count") == 10
        assert registry.get_sample_value(f"{LAG}_bucket", {"le": "0.001"}) == 10
        loop.now += 3.25  # nothing ran for so long; the next look was due after 0.25 s
        await until(lambda: registry.get_sample_value(f"{LAG}_count") == 11)
        assert registry.get_sample_value(f"{LAG}_sum") == 3.0
        task.cancel()

    drive(scenario)
