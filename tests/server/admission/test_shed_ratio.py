"""The time after which shed callers should retry."""

from random import Random

from credit_server.admission.shed_ratio import ShedRatio


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
