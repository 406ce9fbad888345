"""Calls are spaced as the limit says."""

import pytest
from grpc_fuzz import rate
from grpc_fuzz.rate import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate, "time", clock)
    return clock


def test_calls_are_spaced_evenly(clock: Clock) -> None:
    limit = RateLimit(4)
    times = []
    for _ in range(3):
        limit.wait()
        times.append(clock.now)

    assert times == [100.0, 100.25, 100.5]


def test_time_without_calls_is_not_saved_up(clock: Clock) -> None:
    limit = RateLimit(4)
    limit.wait()
    clock.now += 10
    limit.wait()
    limit.wait()

    assert clock.now == 110.25


def test_without_a_limit_nothing_is_waited_for(clock: Clock) -> None:
    limit = RateLimit(None)
    for _ in range(100):
        limit.wait()

    assert clock.now == 100.0
