"""A bucket: a burst at once, a rate in the long run."""

import pytest
from credit_server.admission.token_bucket import TokenBucket
from hypothesis import given
from hypothesis import strategies as st


def test_a_burst_may_be_spent_at_once_and_no_more() -> None:
    bucket = TokenBucket(per_second=1, burst=3, now=0)
    assert [bucket.spend() for _ in range(4)] == [True, True, True, False]


def test_what_comes_back_never_passes_the_burst() -> None:
    bucket = TokenBucket(per_second=1, burst=3, now=0)
    bucket.refill(1_000_000)
    bucket.earn(1_000_000)
    assert bucket.spend(3)
    assert not bucket.spend()


def test_what_is_earned_can_be_spent() -> None:
    bucket = TokenBucket(per_second=0, burst=3, now=0)
    assert bucket.spend(3)
    bucket.earn(2)
    assert bucket.spend(2)
    assert not bucket.spend()


@given(
    steps=st.lists(
        st.tuples(st.floats(min_value=0, max_value=10), st.integers(min_value=1, max_value=20))
    )
)
def test_never_more_than_burst_and_rate_is_spent(steps: list[tuple[float, int]]) -> None:
    bucket, now, spent = TokenBucket(per_second=2, burst=10, now=0), 0.0, 0
    for seconds, count in steps:
        now += seconds
        bucket.refill(now)
        spent += count if bucket.spend(count) else 0
        assert spent <= 10 + 2 * now + 1e-6


def test_the_wait_for_a_token_is_exact_and_taking_nothing_costs_nothing() -> None:
    bucket = TokenBucket(per_second=2, burst=1, now=0)
    assert bucket.take(0) == 0
    assert [bucket.take(0), bucket.wait_seconds(0.2)] == [0.5, pytest.approx(0.3)]
    assert bucket.take(0.5) == 0


def test_several_tokens_are_taken_together_or_not_at_all() -> None:
    bucket = TokenBucket(per_second=2, burst=10, now=0)
    assert bucket.take(0, 7) == 0
    assert bucket.take(0, 5) == pytest.approx(1)
    assert bucket.take(0, 3) == 0


def test_more_tokens_than_there_ever_are_leave_a_full_bucket_in_debt() -> None:
    bucket = TokenBucket(per_second=2, burst=10, now=0)
    assert bucket.take(0, 30) == 0
    assert bucket.wait_seconds(0) == pytest.approx(10.5)
    assert bucket.take(0, 30) == pytest.approx(15)
    assert bucket.take(15, 30) == 0


def test_as_many_tokens_are_taken_as_there_are() -> None:
    bucket = TokenBucket(per_second=2, burst=10, now=0)
    assert [bucket.take_some(0, 4), bucket.take_some(0, 9), bucket.take_some(0, 9)] == [4, 6, 0]
    assert bucket.take_some(1.9, 9) == 3
    assert bucket.take(1.9) == pytest.approx(0.1)
    bucket.take(100, 30)
    assert bucket.take_some(100, 1) == 0
