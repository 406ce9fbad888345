"""The verdict on a row."""

from dataclasses import replace

from credit_resilience.attack import GROWTH_BYTES_MAX, Attack, Outcome, Target
from credit_resilience.bystander import Experience
from credit_resilience.row import BYSTANDER_SECONDS_MAX, Cost, Row


async def _nothing(target: Target) -> Outcome:
    return Outcome(seen="", held=True)


WELL = Experience(calls=9, failed=[], worst_seconds=BYSTANDER_SECONDS_MAX)
ROW = Row(
    attack=Attack(name="a", required="", run=_nothing),
    outcome=Outcome(seen="", held=True),
    seconds=1,
    at_rest=WELL,
    attacked=WELL,
    cost=Cost(cpu_seconds=1, growth_bytes=GROWTH_BYTES_MAX),
)


def test_a_row_within_its_limits_passes() -> None:
    assert ROW.failures == []


def test_all_that_is_wrong_is_named() -> None:
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


def test_a_bystander_may_be_refused_where_more_is_requested_than_can_be_served() -> None:
    refused = replace(
        ROW,
        attack=replace(ROW.attack, exhausts=True),
        attacked=Experience(calls=9, failed=["Overloaded"], worst_seconds=5),
    )
    assert refused.failures == []
    lost = replace(refused, attacked=replace(refused.attacked, failed=["DeadlineExceeded"]))
    assert lost.failures == ["bystander: 1 DeadlineExceeded"]


def test_a_server_that_ends_of_an_attack_fails() -> None:
    assert replace(ROW, cost=None).failures == ["the server has ended"]


def test_a_server_that_is_to_end_may_and_its_bystander_is_not_served() -> None:
    end = replace(
        ROW,
        attack=replace(ROW.attack, ends_server=True),
        attacked=replace(WELL, failed=["Unavailable"]),
        cost=None,
    )
    assert end.failures == []
