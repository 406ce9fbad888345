"""Test that a real server uses the OpenTelemetry SDK of its process without configuration."""

import json
from pathlib import Path

from credit_client import CreditClient, request_id
from credit_testing.server import running_server

# What `opentelemetry-instrument` does: Python imports it before the program.
SET_UP = """
import os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

spans = open(os.environ["SPANS"], "w")
exporter = ConsoleSpanExporter(out=spans, formatter=lambda span: span.to_json(indent=None) + "\\n")
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""


async def test_an_sdk_of_the_process_records_the_call_and_its_batch(
    tmp_path: Path, store_options: list[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SET_UP)
    file = tmp_path / "spans.jsonl"
    environment = {"PYTHONPATH": str(tmp_path), "SPANS": str(file)}
    async with running_server(tmp_path, *store_options, environment=environment) as server:
        async with CreditClient(server.address) as client:
            with request_id("page-4711"):
                await client.add(user_id=7, app_id=1, credits=5, created_by=9)
        line = await server.logged(lambda line: line.get("request_id") == "page-4711")
        assert await server.stop() == 0
    spans = {span["name"]: span for span in map(json.loads, file.read_text().splitlines())}
    call, batch = spans["credit.v1.CreditService/AddCredits"], spans["commit batch"]
    assert call["context"]["trace_id"] == f"0x{line['trace_id']}"
    assert batch["parent_id"] == call["context"]["span_id"]
    assert [link["context"]["span_id"] for link in call["links"]] == [batch["context"]["span_id"]]
    assert "page-4711" not in file.read_text()
