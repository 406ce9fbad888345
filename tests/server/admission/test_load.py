"""The measures of the load: event loop, shed calls, batches."""

from random import Random

import pytest
from credit_server.admission.load import LatencyEstimate, LoopLag, ShedRatio


async def test_a_quiet_loop_is_not_late() -> None:
    lag = LoopLag()
    assert lag.measure() == 0
    assert lag.measure() < 0.05


def settle(estimate: LatencyEstimate, size: int, seconds: float) -> None:
    estimate.begin(size, 0.0)
    estimate.end(seconds)


def test_nothing_is_expected_before_anything_is_known() -> None:
    assert LatencyEstimate(100).seconds_until_settled(1000, 0.0) == 0


def test_a_write_is_settled_after_those_that_wait() -> None:
    estimate = LatencyEstimate(100)
    settle(estimate, 100, 1.0)
    assert estimate.seconds_until_settled(0, 5.0) == pytest.approx(0.01)
    assert estimate.seconds_until_settled(99, 5.0) == pytest.approx(1.0)


def test_the_rest_of_the_batch_under_way_comes_before_it() -> None:
    estimate = LatencyEstimate(100)
    settle(estimate, 100, 1.0)
    estimate.begin(50, 10.0)
    assert estimate.seconds_until_settled(0, 10.2) == pytest.approx(0.5 - 0.2 + 0.01)
    assert estimate.seconds_until_settled(0, 13.0) == pytest.approx(0.01)  # late already


def test_a_small_batch_does_not_make_many_writes_look_slow() -> None:
    estimate = LatencyEstimate(100)
    settle(estimate, 1, 0.01)
    assert estimate.seconds_until_settled(99, 1.0) == 0
    settle(estimate, 100, 0.1)
    settle(estimate, 1, 0.01)
    assert estimate.seconds_until_settled(99, 1.0) == pytest.approx(0.1)


def test_it_follows_a_store_that_becomes_slower_and_recovers_by_small_batches_too() -> None:
    estimate = LatencyEstimate(100)
    settle(estimate, 100, 0.1)
    for _ in range(20):
        settle(estimate, 100, 10.0)
    assert estimate.seconds_until_settled(99, 20.0) == pytest.approx(10.0, rel=0.01)
    for _ in range(20):
        settle(estimate, 10, 0.01)
    assert estimate.seconds_until_settled(99, 20.0) == pytest.approx(0.1, rel=0.1)


def delays(ratio: ShedRatio, count: int, base_seconds: float = 1.0) -> list[float]:
    return [ratio.shed(base_seconds) for _ in range(count)]


def test_the_wait_is_spread_around_the_time_when_there_is_room() -> None:
    seconds = []
    for seed in range(200):
        seconds += delays(ShedRatio(Random(seed)), 1)
    assert 0.5 <= min(seconds) < 0.6
    assert 1.4 < max(seconds) <= 1.6


def test_the_wait_grows_with_the_share_that_is_shed_and_is_bounded() -> None:
    ratio = ShedRatio(Random(1))
    early = sum(delays(ratio, 20))
    delays(ratio, 1000)
    assert sum(delays(ratio, 20)) > 5 * early
    assert max(delays(ratio, 100, base_seconds=3600)) <= 15


def test_the_wait_shrinks_when_calls_are_admitted_again() -> None:
    ratio = ShedRatio(Random(1))
    delays(ratio, 1000)
    for _ in range(1000):
        ratio.admitted()
    assert max(delays(ratio, 5)) < 2


def test_the_wait_is_never_zero() -> None:
    assert min(delays(ShedRatio(Random(1)), 100, base_seconds=0)) >= 0.05
