"""Test a real server's metrics, read at the address in the banner as Prometheus does."""

import re

from credit_client import CreditClient
from credit_testing.server import run_credit_server

from tests.conftest import StartServer
from tests.e2e.scrape import scrape


async def test_a_call_and_its_batch_are_counted(
    credit_server_process: StartServer, store_options: list[str]
) -> None:
    server = await credit_server_process(*store_options)
    async with CreditClient(server.address) as client:
        await client.add(user_id=7, app_id=1, credits=5, created_by=9)
        await client.balance(app_id=1, user_id=7)
        samples = await scrape(server)
    call = {
        "grpc_type": "unary",
        "grpc_service": "credit.v1.CreditService",
        "grpc_method": "AddCredits",
        "grpc_code": "OK",
    }
    assert samples["grpc_server_handled_total", frozenset(call.items())] == 1
    assert samples["credit_batch_size_count", frozenset()] == 1
    assert samples["credit_store_healthy", frozenset()] == 1
    assert samples["credit_connections", frozenset()] >= 1  # the SDK may open more than one
    assert not [name for name, _ in samples if name.endswith("_created")]


async def test_a_port_for_metrics_that_is_in_use_is_an_error(
    credit_server_process: StartServer, store_options: list[str]
) -> None:
    server = await credit_server_process(*store_options)
    (port,) = re.findall(r"  scrape http://127.0.0.1:(\d+)/", server.banner)
    options = ("serve", *store_options, "--port", "0", "--metrics-port", port)
    ended = await run_credit_server(server.folder, *options)
    assert ended.status == 1
    assert f"port {port}" in ended.errors
    assert "--no-metrics" in ended.errors
    assert "Traceback" not in ended.errors


async def test_the_banner_of_a_server_without_metrics_reports_it(
    credit_server_process: StartServer, store_options: list[str]
) -> None:
    server = await credit_server_process(*store_options, "--no-metrics")
    assert "  scrape no metrics\n" in server.banner
