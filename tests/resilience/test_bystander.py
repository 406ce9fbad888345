"""Test which part of a bystander's wait counts."""

import pytest
from credit_resilience.bystander import Call


@pytest.mark.parametrize(
    ("due", "seconds"),
    [
        pytest.param(4.0, 3.0, id="the call began during the attack: the whole wait"),
        pytest.param(1.0, 5.0, id="the call began before the attack: the wait during the attack"),
    ],
)
def test_a_wait_counts_from_the_start_of_the_attack(due: float, seconds: float) -> None:
    assert Call(due=due, ended=7.0, outcome="OK").seconds_since(2.0) == seconds
