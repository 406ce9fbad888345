"""A whole run against both servers, so short that its figures mean nothing."""

from dataclasses import replace

import pytest
from credit_bench.generator import workload
from credit_bench.options import parse
from credit_bench.run import run
from credit_bench.system import System
from credit_server.settings import ServerSettings


def test_the_server_accepts_the_opening_credits() -> None:
    assert ServerSettings().credits_max >= workload.OPENING_CREDITS


@pytest.mark.parametrize("system", System)
async def test_a_short_run_is_clean(mongod_uri: str, system: System) -> None:
    options = replace(
        parse(["--callers", "4", "--users", "20", "--mongodb-uri", mongod_uri, "--only", system]),
        seconds=0.3,
        warm_up_seconds=0.1,
        repetitions=1,
        overload=False,
    )
    steps: list[str] = []
    result = await run(options, steps.append)
    assert result.clean, (steps, result)
    assert all(entry.sample.acknowledged for entry in result.measurements)
    assert len(result.measurements) == 2
