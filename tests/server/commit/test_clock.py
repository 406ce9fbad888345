"""Test the clock of new entries, and its comparison with the store's clock."""

from datetime import timedelta

import pytest
from credit_server.commit import Clock, ClockSkewed
from credit_server.store.port import Interrupted

from tests.server.clocks import LIMIT_SECONDS, NOON, Clocks


def _compared(clocks: Clocks) -> Clock:
    clock = clocks.clock()
    clock.compare(clocks.reading())
    return clock


def test_clocks_that_agree_return_the_time_in_whole_milliseconds() -> None:
    clocks = Clocks()
    clock = _compared(clocks)
    clocks.advance(0.0129)
    moment = clock.now()
    assert moment.now == NOON + timedelta(milliseconds=12)


@pytest.mark.parametrize("seconds", [3600.0, LIMIT_SECONDS + 0.01])
@pytest.mark.parametrize("side", [1, -1], ids=["ahead", "behind"])
def test_a_clock_that_differs_by_more_than_the_limit_raises(seconds: float, side: int) -> None:
    clocks = Clocks()
    clocks.wall += side * seconds
    with pytest.raises(ClockSkewed) as caught:
        _compared(clocks).now()
    assert caught.value.skew_seconds == pytest.approx(seconds, abs=0.002)
    assert caught.value.limit_seconds == LIMIT_SECONDS


@pytest.mark.parametrize("seconds", [LIMIT_SECONDS, -LIMIT_SECONDS, 0.5])
def test_a_clock_within_the_limit_returns_its_own_time(seconds: float) -> None:
    clocks = Clocks()
    clocks.wall += seconds
    assert _compared(clocks).now().now == NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(("there", "back"), [(5.0, 0.0), (0.0, 5.0), (2.5, 2.5)])
@pytest.mark.parametrize("skew", [-LIMIT_SECONDS, 0.0, LIMIT_SECONDS])
def test_a_slow_answer_does_not_count_as_skew(there: float, back: float, skew: float) -> None:
    clocks = Clocks()
    clocks.wall += skew
    clock = clocks.clock()
    clock.compare(clocks.reading(there=there, back=back))
    clock.now()
    clocks.advance(60)
    clock.now()


def test_the_round_trip_is_subtracted_from_the_difference() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    clocks.wall += 10
    clock.compare(clocks.reading(there=4, back=4))
    with pytest.raises(ClockSkewed) as caught:
        clock.now()
    assert caught.value.skew_seconds == pytest.approx(6, abs=0.002)


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 2.5, -2.5])
def test_a_jump_of_the_clock_is_detected_without_a_new_comparison(jump: float) -> None:
    clocks = Clocks()
    clock = _compared(clocks)
    clocks.advance(1.0)
    clock.now()
    clocks.wall += jump
    with pytest.raises(ClockSkewed):
        clock.now()
    clocks.wall -= jump
    clock.now()


def test_a_pause_between_reading_two_clocks_does_not_count_as_skew() -> None:
    clocks = Clocks()

    def after_a_pause() -> float:
        clocks.advance(30)
        return clocks.monotonic

    clock = Clock(skew_seconds_max=LIMIT_SECONDS, wall=lambda: clocks.wall, monotonic=after_a_pause)
    clock.compare(clocks.reading())
    clock.now()


def test_a_clock_that_agrees_again_returns_the_time_again() -> None:
    clocks = Clocks()
    clocks.wall += 3600
    clock = _compared(clocks)
    with pytest.raises(ClockSkewed):
        clock.now()
    clocks.wall -= 3600
    assert clock.now().now == NOON


def test_a_changed_clock_of_the_store_takes_effect_at_the_next_reading() -> None:
    clocks = Clocks()
    clock = _compared(clocks)
    clocks.store -= 10
    clock.now()
    clock.compare(clocks.reading())
    with pytest.raises(ClockSkewed):
        clock.now()


@pytest.mark.parametrize("ahead", [-LIMIT_SECONDS, 0.0, LIMIT_SECONDS])
def test_the_latest_time_of_an_entry_is_the_stores_time_plus_the_limit(ahead: float) -> None:
    clocks = Clocks()
    clocks.wall += ahead
    moment = _compared(clocks).now()
    latest = NOON + timedelta(seconds=LIMIT_SECONDS)
    assert latest <= moment.latest <= latest + timedelta(milliseconds=1)
    assert moment.now <= moment.latest


def test_a_clock_without_a_comparison_returns_its_own_time() -> None:
    clocks = Clocks()
    clocks.wall += 3600
    assert clocks.clock().now().now == NOON + timedelta(hours=1)


def test_an_entry_can_appear_as_long_as_mongodb_the_store_and_the_clocks_allow() -> None:
    clock = Clock(skew_seconds_max=2.0, store_seconds_max=10.0)
    assert clock.settling_seconds == 60 * 1.5 + 2 * 10 + 2 * 2


def test_a_moment_is_recent_for_as_long_as_a_read_of_the_store_takes() -> None:
    clocks = Clocks()
    clock = _compared(clocks)
    moment = clock.now()
    clocks.advance(10)
    clock.check_age(moment)
    clocks.advance(0.001)
    with pytest.raises(Interrupted, match="took too long"):
        clock.check_age(moment)
