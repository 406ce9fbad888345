"""Offer ten times the load that the server can serve, and measure its goodput."""

from collections.abc import Sequence

from credit_bench.overload import CALLERS, GOAL, TIMES, WARM_UP_SECONDS, measure
from credit_bench.sample import Sample
from credit_bench.workloads import System
from credit_testing.child import module, output

from credit_resilience.attack import Attack, Outcome, Target

_USERS = 1_000
_SECONDS = 2.0
"""The length of each of the five measurements, after the warm-up."""
_REFUSED, _KEPT_BACK = "UNAVAILABLE", "UNSENT"


async def _ten_times(target: Target) -> Outcome:
    """Find the best goodput with closed loops, then offer ten times as much with an open loop."""

    async def generate(arguments: Sequence[str]) -> Sample:
        users = target.count(_USERS)
        command = ("credit_bench.generator", f"--target={target.server.target}", f"--users={users}")
        return Sample.from_json(await output(module(*command, *arguments)))

    await generate(["--open-accounts"])
    overload = await measure(
        System.OURS,
        1,
        generate,
        seconds=_SECONDS * target.scale,
        warm_up_seconds=WARM_UP_SECONDS * target.scale,
        callers=CALLERS[: target.count(len(CALLERS))],
    )
    flooded = overload.flooded
    refused, kept_back = flooded.errors.get(_REFUSED, 0), flooded.errors.get(_KEPT_BACK, 0)
    return Outcome(
        seen=(
            f"{overload.kept:.0%} kept: {flooded.operations_per_second:.0f} of"
            f" {overload.best:.0f} op/s; {refused} refused, {kept_back} kept back by the client"
        ),
        held=overload.kept >= GOAL,
    )


ATTACKS = (
    Attack(
        name="overload",
        required=f"{GOAL:.0%} of its best goodput at {TIMES} times the load",
        run=_ten_times,
        exhausts=True,
        # Five runs of hundreds of concurrent calls; the server's caches have a limit.
        growth_bytes_max=64 * 2**20,
    ),
)
