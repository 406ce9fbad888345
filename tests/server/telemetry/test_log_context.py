"""What is logged while a call runs says which call it was."""

from collections.abc import Mapping
from typing import Any

import structlog
from credit_models import AppId
from credit_server.store.memory import MemoryStore
from credit_server.telemetry import Telemetry
from opentelemetry import trace

from tests.server.telemetry.observed import Sdk, observed
from tests.server.transport.wire import Wire


class Talker(MemoryStore):
    """Keeps what a log line would carry that is written while it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.bound: list[Mapping[str, Any]] = []  # Any: structlog's own type

    async def app_total(self, app_id: int) -> int:
        self.bound.append(structlog.contextvars.get_contextvars())
        return 0


async def test_a_line_of_a_call_names_its_request_and_its_trace(sdk: Sdk) -> None:
    store = Talker()
    async with observed(sdk.telemetry(), store) as server, Wire.connect(server.port) as wire:
        for request_id in ("first", "second"):
            await wire.call("GetAppBalance", AppId(app_id=1), ("x-request-id", request_id))
        await server.quiet()
    assert store.bound == [
        {"request_id": name, "trace_id": trace.format_trace_id(span.context.trace_id)}
        for name, span in zip(
            ("first", "second"), sdk.spans("credit.v1.CreditService/GetAppBalance"), strict=True
        )
    ]
    assert not structlog.contextvars.get_contextvars()


async def test_a_line_of_a_call_that_is_not_traced_names_its_request_alone() -> None:
    store = Talker()
    async with observed(Telemetry(), store) as server, Wire.connect(server.port) as wire:
        await wire.call("GetAppBalance", AppId(app_id=1), ("x-request-id", "mine"))
        await server.quiet()
    assert store.bound == [{"request_id": "mine"}]
