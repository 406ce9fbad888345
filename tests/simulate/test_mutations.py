"""Test that the simulation finds each planted bug, and that none is left behind."""

from functools import cache
from pathlib import Path

import pytest
from credit_simulate.mutation import Edit, Mutation, MutationStale
from credit_simulate.mutations import MUTATIONS
from credit_simulate.run import run

SEEDS_MAX, STEPS = 120, 40


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_each_bug_is_found(mutation: Mutation) -> None:
    assert mutation.seed < SEEDS_MAX
    with mutation.planted():
        # The seed that met it once comes first: most changes of the code leave its way as it is.
        seeds = (mutation.seed, *range(SEEDS_MAX))
        found = next((seed for seed in seeds if run(seed, STEPS).findings), None)
    assert found is not None, f"no seed below {SEEDS_MAX} meets it"
    assert not _fails_without_a_bug(found), "the seed fails without the bug too"


@cache
def _fails_without_a_bug(seed: int) -> bool:
    return bool(run(seed, STEPS).findings)


def test_the_documentation_lists_the_bugs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    rows = page.partition("| bug |\n|---|\n")[2].partition("\n\n")[0].splitlines()
    assert rows == [f"| {mutation.name} |" for mutation in MUTATIONS]
    assert len(rows) >= 20


def _double(number: int) -> int:
    return 2 * number


def test_a_bug_ends_with_its_context() -> None:
    mutation = Mutation("triples", (Edit(_double, {"2 * number": "3 * number"}),))
    with mutation.planted():
        assert _double(2) == 6
    assert _double(2) == 4


def test_a_mutation_that_no_longer_fits_is_reported() -> None:
    mutation = Mutation("stale", (Edit(_double, {"5 * number": "6 * number"}),))
    with pytest.raises(MutationStale, match="_double has 0 times"), mutation.planted():
        pass
