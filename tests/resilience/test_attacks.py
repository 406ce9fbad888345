"""Every attack of the siege, on a shared server: how it ends, and that the neighbour is served.

Wall-clock limits are for `make resilience` to judge. Here cost is told in what ordinary calls cost.
"""

import re

import pytest
from credit_resilience.attack import Attack
from credit_resilience.attacks import ATTACKS, connections, floods, overload, resets, stop
from credit_resilience.run import Besieged, assail, defended

# It waits so long for the server only where a test fails.
SECONDS = 10.0
# Where the full size would take long to make and shows no more.
SCALES = {"idle": 0.1, "gzip": 0.1}
FRAME_ATTACKS = [*resets.ATTACKS, *floods.ATTACKS]


def scale(attack: Attack) -> float:
    return SCALES.get(attack.name.partition(":")[0], 1.0)


@pytest.mark.parametrize(
    "attack",
    [attack for attack in ATTACKS if not (attack.ends_server or attack.exhausts)],
    ids=lambda attack: attack.name,
)
async def test_an_attack_ends_as_required_and_the_neighbour_is_served(
    attack: Attack, besieged: Besieged
) -> None:
    row = await assail(attack, besieged, seconds=SECONDS, scale=scale(attack), rest_seconds=0)
    assert row.outcome.held, row.outcome.seen
    assert row.attacked.failed == []
    assert row.cost is not None
    assert row.cost.growth_bytes <= attack.growth_bytes_max
    # Those that hold connections last for seconds, whoever works meanwhile.
    assert row.attacked.calls or attack not in connections.ATTACKS


@pytest.mark.parametrize("attack", FRAME_ATTACKS, ids=lambda a: a.name)
async def test_an_attack_costs_less_than_thousands_of_ordinary_calls(
    attack: Attack, besieged: Besieged, ordinary_cpu_seconds: float
) -> None:
    row = await assail(attack, besieged, seconds=SECONDS, rest_seconds=0)
    assert row.cost is not None
    assert row.cost.cpu_seconds <= ordinary_cpu_seconds


async def test_ten_times_the_load_is_offered_and_what_is_left_is_told(
    besieged: Besieged, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (attack,) = overload.ATTACKS
    folder = tmp_path_factory.mktemp("overload")
    uri, database = besieged.server.uri, besieged.server.database
    async with defended(uri, database, folder) as other:
        row = await assail(attack, other, seconds=SECONDS, scale=0.05, rest_seconds=0)
    # How much is left, a busy machine decides.
    assert re.search(r"% kept: \d+ of [1-9]\d* op/s", row.outcome.seen), row.outcome.seen


async def test_a_server_that_is_told_to_stop_under_load_loses_nothing(
    besieged: Besieged, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (attack,) = stop.ATTACKS
    folder = tmp_path_factory.mktemp("stop")
    uri, database = besieged.server.uri, besieged.server.database
    async with defended(uri, database, folder) as other:
        row = await assail(attack, other, seconds=SECONDS, scale=0.2, rest_seconds=0)
    assert row.outcome.held, row.outcome.seen
