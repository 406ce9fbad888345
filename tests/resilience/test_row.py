"""Test the verdict on a row."""

from dataclasses import replace

from credit_resilience.attack import GROWTH_BYTES_MAX, Attack, Outcome, Target
from credit_resilience.bystander import Experience
from credit_resilience.row import BYSTANDER_SECONDS_MAX, Cost, Row


async def _nothing(target: Target) -> Outcome:
    return Outcome(seen="", held=True)


SERVED = Experience(calls=9, failed=[], worst_seconds=BYSTANDER_SECONDS_MAX)
ROW = Row(
    attack=Attack(name="a", required="", run=_nothing),
    outcome=Outcome(seen="", held=True),
    seconds=1,
    at_rest=SERVED,
    attacked=SERVED,
    cost=Cost(cpu_seconds=1, growth_bytes=GROWTH_BYTES_MAX),
)


def test_a_row_within_its_limits_passes() -> None:
    assert ROW.failures == []


def test_every_failure_is_named() -> None:
    bad = replace(
        ROW,
        outcome=Outcome(seen="open", held=False),
        attacked=Experience(
            calls=9, failed=["Unavailable"] * 2, worst_seconds=BYSTANDER_SECONDS_MAX + 0.1
        ),
        cost=Cost(cpu_seconds=1, growth_bytes=GROWTH_BYTES_MAX + 1),
    )
    assert bad.failures == [
        "not what is required",
        "bystander: 2 Unavailable",
        "bystander waited",
        "memory",
    ]


def test_an_attack_that_exhausts_the_server_may_cause_rejected_bystander_calls() -> None:
    rejected = replace(
        ROW,
        attack=replace(ROW.attack, exhausts=True),
        attacked=Experience(calls=9, failed=["Overloaded"], worst_seconds=5),
    )
    assert rejected.failures == []
    lost = replace(rejected, attacked=replace(rejected.attacked, failed=["DeadlineExceeded"]))
    assert lost.failures == ["bystander: 1 DeadlineExceeded"]


def test_a_row_fails_if_the_server_ends_during_the_attack() -> None:
    assert replace(ROW, cost=None).failures == ["the server has ended"]


def test_an_attack_that_stops_the_server_may_fail_bystander_calls() -> None:
    end = replace(
        ROW,
        attack=replace(ROW.attack, ends_server=True),
        attacked=replace(SERVED, failed=["Unavailable"]),
        cost=None,
    )
    assert end.failures == []
