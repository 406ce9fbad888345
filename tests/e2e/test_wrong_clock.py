"""Test that a server with a wrong clock writes nothing, reports why, and recovers by itself."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from credit_models import CreditRequest, CreditTransaction, UserCredits, UserId
from credit_testing.http2_client import Connection
from credit_testing.injected import MovedClock
from credit_testing.server import ServerProcess, run_credit_server, running_server
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

HOUR = 3600.0
ADD = CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)
HEALTH = "/grpc.health.v1.Health/Check"
JSON = ("--log-format", "json")
QUICK = {"health": {"interval_seconds": 0.05}}
DIFFER = "the clocks of this machine and the store differ"
AGREE = "the clocks of this machine and the store agree again"


@pytest.fixture
def clock(tmp_path: Path) -> MovedClock:
    folder = tmp_path / "injected"
    folder.mkdir()
    return MovedClock(folder)


@pytest.fixture
async def server(
    tmp_path: Path, clock: MovedClock, store_options: list[str]
) -> AsyncIterator[ServerProcess]:
    async with running_server(
        tmp_path, *store_options, *JSON, environment=clock.environment, constants=QUICK
    ) as server:
        yield server


async def _logged(server: ServerProcess, words: str) -> None:
    await server.logged(lambda line: str(line["event"]).startswith(words))


async def _health(wire: Connection) -> int:
    answer = await wire.call(HEALTH, HealthCheckRequest())
    return answer.message(HealthCheckResponse).status


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_server_whose_clock_jumps_rejects_writes_until_it_is_right_again(
    server: ServerProcess, clock: MovedClock, seconds: float
) -> None:
    async with Connection.connect(server.port) as wire:
        assert (await wire.call("AddCredits", ADD)).status is Status.OK
        clock.move(seconds)
        # At once: the check needs no earlier comparison.
        refused = await wire.call("AddCredits", ADD)
        assert refused.status is Status.UNAVAILABLE
        info = refused.details[0]
        assert isinstance(info, ErrorInfo)
        assert info.reason == "CLOCK_SKEWED"
        assert int(info.metadata["skew_milliseconds"]) > 3_590_000
        assert info.metadata["limit_milliseconds"] == "2000"
        await _logged(server, DIFFER)
        assert await _health(wire) == HealthCheckResponse.NOT_SERVING
        read = await wire.call("GetUserCredits", UserId(user_id=7))
        assert read.message(UserCredits).revision == 1
        clock.move(0)
        await _logged(server, AGREE)
        assert await _health(wire) == HealthCheckResponse.SERVING
        assert (await wire.call("AddCredits", ADD)).status is Status.OK
        entries = await wire.call("ListUserTransactions", UserId(user_id=7))
        first, second = entries.messages(CreditTransaction)
        assert first.created_at is not None
        assert second.created_at is not None
        assert 0 <= (second.created_at - first.created_at).total_seconds() < HOUR / 2


async def test_a_server_that_starts_with_a_wrong_clock_serves_only_reads(
    tmp_path: Path, clock: MovedClock, store_options: list[str]
) -> None:
    clock.move(HOUR)
    async with (
        running_server(
            tmp_path, *store_options, *JSON, environment=clock.environment, constants=QUICK
        ) as server,
        Connection.connect(server.port) as wire,
    ):
        assert await _health(wire) == HealthCheckResponse.NOT_SERVING
        assert (await wire.call("AddCredits", ADD)).status is Status.UNAVAILABLE
        assert (await wire.call("GetUserCredits", UserId(user_id=7))).status is Status.OK
        clock.move(0)
        await _logged(server, AGREE)
        assert (await wire.call("AddCredits", ADD)).status is Status.OK
        assert await server.stop() == 0


async def test_doctor_reports_the_wrong_clock_and_the_entries_it_has_dated(
    tmp_path: Path, clock: MovedClock, store_options: list[str]
) -> None:
    lenient = {**QUICK, "clock": {"skew_seconds_max": 2 * HOUR}}
    clock.move(HOUR)
    async with (
        running_server(
            tmp_path, *store_options, *JSON, environment=clock.environment, constants=lenient
        ) as server,
        Connection.connect(server.port) as wire,
    ):
        assert (await wire.call("AddCredits", ADD)).status is Status.OK
    ended = await run_credit_server(
        tmp_path, "doctor", "--json", *store_options, environment=clock.environment
    )
    findings = {found["check"]: found for found in json.loads(ended.output)["findings"]}
    assert findings["clock"]["verdict"] == "fails"
    assert "ahead of MongoDB's" in findings["clock"]["found"]
    assert findings["dates"]["verdict"] == "warning"
    assert findings["dates"]["found"].startswith("user 7, sequence 1: dated 3")
    clock.move(0)
    ended = await run_credit_server(
        tmp_path, "doctor", "--json", *store_options, environment=clock.environment
    )
    findings = {found["check"]: found for found in json.loads(ended.output)["findings"]}
    assert findings["clock"]["verdict"] == "ok"
    assert findings["dates"]["verdict"] == "warning"
