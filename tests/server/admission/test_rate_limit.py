"""Rate limits: how often, how many at once, and what an evicted name loses."""

from collections.abc import Sequence

import pytest
from credit_server.admission.decision import Decision
from credit_server.admission.rate_limit import RateLimit, RunningLimit
from hypothesis import given
from hypothesis import strategies as st


def _limit(*, per_second: float = 2, burst: int = 3, names_max: int = 10) -> RateLimit:
    return RateLimit(per_second=per_second, burst=burst, names_max=names_max)


def _taken(limit: RateLimit, name: str, now: float, tries: int) -> int:
    """Return how many of these tries get a token."""
    return sum(not limit.take(name, now) for _ in range(tries))


def test_a_burst_is_taken_at_once_and_no_more() -> None:
    assert _taken(_limit(), "a", 0, 10) == 3


def test_the_wait_is_exact() -> None:
    limit = _limit()
    _taken(limit, "a", 100, 3)
    assert limit.take("a", 100) == pytest.approx(0.5)
    assert limit.take("a", 100.2) == pytest.approx(0.3)
    assert limit.take("a", 100.5) == 0
    assert limit.take("a", 100.5) == pytest.approx(0.5)


def test_what_was_paid_counts_towards_more_and_is_not_given_back() -> None:
    limit = _limit(burst=3)
    assert limit.take("a", 0) == 0
    assert limit.take("a", 0, 3, paid=1) == 0
    assert limit.take("a", 0) == pytest.approx(0.5)
    assert limit.take("b", 0) == 0
    assert limit.take("b", 0) == 0
    assert limit.take("b", 0, 3, paid=1) == pytest.approx(0.5)
    assert _taken(limit, "b", 0, 10) == 1


def test_the_rest_of_several_tokens_has_a_wait() -> None:
    limit = _limit(burst=3)
    taken, wait = limit.take_some("a", 0, 5)
    assert (taken, wait) == (3, 1.0)
    assert limit.take_some("a", 1, 2) == (2, 0.0)
    assert _limit(per_second=0).take_some("a", 0, 1000) == (1000, 0.0)


def test_a_rejected_caller_has_lost_nothing() -> None:
    limit = _limit()
    assert _taken(limit, "a", 0, 1000) == 3
    assert _taken(limit, "a", 1, 1000) == 2


def test_a_bucket_does_not_grow_beyond_its_burst() -> None:
    limit = _limit()
    _taken(limit, "a", 0, 3)
    assert _taken(limit, "a", 1_000_000, 10) == 3


def test_names_have_buckets_of_their_own() -> None:
    limit = _limit()
    _taken(limit, "a", 0, 3)
    assert _taken(limit, "b", 0, 10) == 3


def test_looking_takes_nothing() -> None:
    limit = _limit(burst=1)
    assert [limit.wait_seconds("a", 0) for _ in range(3)] == [0, 0, 0]
    assert _taken(limit, "a", 0, 2) == 1
    assert limit.wait_seconds("a", 0) == pytest.approx(0.5)


def test_no_rate_is_no_limit_and_keeps_nothing() -> None:
    limit = _limit(per_second=0, burst=1)
    assert _taken(limit, "a", 0, 100) == 100
    assert limit.wait_seconds("a", 0) == 0
    assert len(limit) == 0


def test_a_bucket_that_is_full_again_makes_room_and_nothing_is_forgotten() -> None:
    limit = _limit(names_max=2)
    _taken(limit, "a", 0, 3)
    _taken(limit, "b", 5, 1)
    assert _taken(limit, "c", 5, 10) == 3
    assert len(limit) == 2
    assert _taken(limit, "a", 5, 10) <= 3


def test_no_name_gets_a_full_bucket_by_having_its_own_evicted() -> None:
    limit = _limit(per_second=0.001, names_max=2)
    _taken(limit, "a", 0, 3)
    _taken(limit, "b", 0, 3)
    # Each of these takes over an empty bucket, and so does the name that was evicted.
    assert [_taken(limit, name, 0, 3) for name in ("c", "d", "a")] == [0, 0, 0]


CALLS = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 500)), min_size=1, max_size=200)


@given(calls=CALLS, burst=st.integers(1, 5), names_max=st.integers(1, 4))
def test_all_names_together_never_get_more_than_the_buckets_hold(
    calls: Sequence[tuple[str, int]], burst: int, names_max: int
) -> None:
    limit = RateLimit(per_second=4, burst=burst, names_max=names_max)
    now, taken = 0.0, 0
    for name, milliseconds in calls:
        now += milliseconds / 1000
        taken += not limit.take(name, now)
        assert len(limit) <= names_max
    assert taken <= names_max * (burst + 4 * now) + 1e-6


@given(calls=CALLS, burst=st.integers(1, 5))
def test_a_caller_that_waits_as_long_as_asked_is_admitted(
    calls: Sequence[tuple[str, int]], burst: int
) -> None:
    limit = RateLimit(per_second=4, burst=burst, names_max=10)
    now = 0.0
    for name, milliseconds in calls:
        now += milliseconds / 1000
        wait = limit.take(name, now)
        if wait:
            assert limit.wait_seconds(name, now + wait + 1e-9) == 0


def test_each_name_may_run_as_many_calls_as_the_limit() -> None:
    limit = RunningLimit(2)
    decisions = [limit.admit(name) for name in ("a", "a", "a", "b")]
    assert decisions == [
        Decision.ADMIT,
        Decision.ADMIT,
        Decision.RUNNING_CALLS,
        Decision.ADMIT,
    ]


def test_a_call_that_ends_makes_room_and_an_idle_name_is_dropped() -> None:
    limit = RunningLimit(1)
    assert limit.admit("a") is Decision.ADMIT
    limit.leave("a")
    assert not limit._running
    assert limit.admit("a") is Decision.ADMIT
