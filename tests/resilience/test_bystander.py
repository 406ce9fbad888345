"""Which part of a bystander's wait counts."""

import pytest
from credit_resilience.bystander import Call


@pytest.mark.parametrize(
    ("due", "seconds"),
    [
        pytest.param(4.0, 3.0, id="all of it, where it began under attack"),
        pytest.param(1.0, 5.0, id="what came of it under attack, where it waited before"),
    ],
)
def test_a_wait_counts_from_the_begin_of_the_attack(due: float, seconds: float) -> None:
    assert Call(due=due, ended=7.0, outcome="OK").seconds_since(2.0) == seconds
