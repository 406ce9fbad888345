"""Run every attack on a shared server, and check its outcome and the bystander's calls.

`make resilience` checks wall-clock limits. These tests compare the CPU time of an attack with that
of ordinary calls.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from credit_resilience.attack import Attack
from credit_resilience.attacks import ATTACKS, connections, floods, overload, resets, stop
from credit_resilience.run import TargetServer, run_attack, target_server

from tests.resilience.conftest import PERIOD_SECONDS

# Only a test that fails waits this long for the server.
SECONDS = 10.0
# Attacks whose full size takes long to build and tests nothing more.
SCALES = {"idle": 0.1, "gzip": 0.1}
pytestmark = pytest.mark.usefixtures("forked_children")
FRAME_ATTACKS = [*resets.ATTACKS, *floods.ATTACKS]


def scale(attack: Attack) -> float:
    return SCALES.get(attack.name.partition(":")[0], 1.0)


@pytest.mark.parametrize(
    "attack",
    [attack for attack in ATTACKS if not (attack.ends_server or attack.exhausts)],
    ids=lambda attack: attack.name,
)
async def test_an_attack_ends_as_required_and_the_bystander_is_served(
    attack: Attack, attacked: TargetServer, ordinary_cpu_seconds: float
) -> None:
    row = await run_attack(attack, attacked, seconds=SECONDS, scale=scale(attack), rest_seconds=0)
    assert row.outcome.held, row.outcome.seen
    assert row.attacked.failed == []
    assert row.cost is not None
    assert row.cost.growth_bytes <= attack.growth_bytes_max
    # Attacks that hold connections last for seconds, on any machine.
    assert row.attacked.calls or attack not in connections.ATTACKS
    # An attack by frames costs less than thousands of ordinary calls.
    assert row.cost.cpu_seconds <= ordinary_cpu_seconds or attack not in FRAME_ATTACKS


@pytest.fixture
async def other(
    mongod_uri: str, migrated_database: str, tmp_path: Path
) -> AsyncIterator[TargetServer]:
    """Run a server with the default limits for one test, on an empty database."""
    async with target_server(
        mongod_uri, migrated_database, tmp_path, period_seconds=PERIOD_SECONDS
    ) as target:
        yield target


async def test_goodput_under_ten_times_the_load_is_reported(other: TargetServer) -> None:
    """Run it with one library for HTTP/2: admission does not depend on it."""
    (attack,) = overload.ATTACKS
    for share in (0.1, 0.3):
        row = await run_attack(attack, other, seconds=SECONDS, scale=share, rest_seconds=0)
        # The remaining goodput depends on the machine. A busy machine may serve no call in 0.2 s.
        if re.search(r"% kept: \d+ of [1-9]\d* op/s", row.outcome.seen):
            return
    pytest.fail(row.outcome.seen)


@pytest.mark.usefixtures("http2_engine")
async def test_a_server_that_gets_sigterm_under_load_loses_no_write(other: TargetServer) -> None:
    (attack,) = stop.ATTACKS
    row = await run_attack(attack, other, seconds=SECONDS, scale=0.2, rest_seconds=0)
    assert row.outcome.held, row.outcome.seen
