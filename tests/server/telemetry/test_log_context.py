"""Log lines of a running call or of its batch contain the id of the call."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from credit_models import AppId, CreditRequest
from credit_server.log import TASK_FIELDS
from credit_server.store.memory import MemoryStore
from credit_server.store.port import StoreUnavailable
from credit_server.telemetry import Telemetry
from credit_testing.http2_client import Connection
from credit_testing.stores import FailingStore
from opentelemetry import trace

from tests.server.telemetry.observed import Sdk, observed


class ContextStore(MemoryStore):
    """Keeps the context that a log line of the running call would have."""

    def __init__(self) -> None:
        super().__init__()
        self.bound: list[Mapping[str, object]] = []

    async def app_total(self, app_id: int) -> int:
        self.bound.append(dict(TASK_FIELDS.get()))
        return 0


async def test_a_log_line_of_a_call_has_its_request_id_and_trace(sdk: Sdk) -> None:
    store = ContextStore()
    async with observed(sdk.telemetry(), store) as server, Connection.connect(server.port) as wire:
        for request_id in ("first", "second"):
            await wire.call("GetAppBalance", AppId(app_id=1), ("x-request-id", request_id))
        await server.quiet()
    assert store.bound == [
        {"request_id": name, "trace_id": trace.format_trace_id(span.context.trace_id)}
        for name, span in zip(
            ("first", "second"), sdk.spans("credit.v1.CreditService/GetAppBalance"), strict=True
        )
    ]
    assert not TASK_FIELDS.get()


async def test_a_log_line_of_a_call_that_is_not_traced_has_its_request_id() -> None:
    store = ContextStore()
    async with observed(Telemetry(), store) as server, Connection.connect(server.port) as wire:
        await wire.call("GetAppBalance", AppId(app_id=1), ("x-request-id", "mine"))
        await server.quiet()
    assert store.bound == [{"request_id": "mine"}]


async def test_a_log_line_of_a_batch_has_the_ids_of_its_requests(
    logged: list[MutableMapping[str, Any]],  # Any: structlog's own type
) -> None:
    store = FailingStore(StoreUnavailable("away"))
    async with observed(Telemetry(), store) as server, Connection.connect(server.port) as wire:
        request = CreditRequest(user_id=7, app_id=1, credits=5, created_by=1)
        answer = await wire.call("AddCredits", request, ("x-request-id", "mine"))
        await server.quiet()
    assert answer.headers["x-request-id"] == "mine"
    (line,) = (line for line in logged if "request_ids" in line)
    assert (line["event"], line["request_ids"]) == ("a batch failed", ["mine"])
