"""Test that a server with a failed part ends, with an error that names the part."""

import asyncio
import json
from pathlib import Path

from credit_models import CreditRequest
from credit_testing.http2_client import Connection
from credit_testing.injected import with_bug
from credit_testing.server import running_server
from grpclib.const import Status

ADD = CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)
FAILED = "a part of the server has failed"


async def test_a_failed_shard_ends_the_server_and_every_call_is_answered(
    tmp_path: Path, store_options: list[str]
) -> None:
    environment = with_bug(tmp_path, "credit_server.admission.load", "LatencyEstimate.end")
    async with (
        running_server(
            tmp_path, *store_options, "--log-format", "json", environment=environment
        ) as server,
        Connection.connect(server.port) as wire,
    ):
        calls = [asyncio.create_task(wire.call("AddCredits", ADD)) for _ in range(20)]
        answers = [await call for call in calls]
        assert {answer.status for answer in answers} <= {Status.OK, Status.UNAVAILABLE}
        assert await server.wait() == 1
        lines = server.stderr.read_text().splitlines()
        failed = next(json.loads(line) for line in lines if FAILED in line)
        assert (failed["part"], failed["level"]) == ("shard 1 of the writes", "error")
        assert "a bug that a test has injected" in failed["exception"]
        assert lines[-1].startswith(
            "credit-server: The server has stopped because a part of it failed"
        )


async def test_any_other_failed_part_ends_the_server_too(
    tmp_path: Path, store_options: list[str]
) -> None:
    environment = with_bug(
        tmp_path,
        "credit_server.telemetry.metrics",
        "ProcessMetrics.watch_loop",
        coroutine=True,
    )
    async with running_server(
        tmp_path, *store_options, "--log-format", "json", environment=environment
    ) as server:
        assert await server.wait() == 1
        last = server.stderr.read_text().splitlines()[-1]
        assert last.startswith("credit-server: The server has stopped because a part of it")
        assert "the metric of the event loop" in last
