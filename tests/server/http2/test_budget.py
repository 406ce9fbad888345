"""A budget: a burst at once, a rate in the long run."""

from credit_server.http2.budget import Budget
from hypothesis import given
from hypothesis import strategies as st


def test_a_burst_may_be_spent_at_once_and_no_more() -> None:
    budget = Budget(per_second=1, burst=3, now=0)
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]


def test_what_comes_back_never_passes_the_burst() -> None:
    budget = Budget(per_second=1, burst=3, now=0)
    budget.refill(1_000_000)
    budget.earn(1_000_000)
    assert budget.spend(3)
    assert not budget.spend()


def test_what_is_earned_can_be_spent() -> None:
    budget = Budget(per_second=0, burst=3, now=0)
    assert budget.spend(3)
    budget.earn(2)
    assert budget.spend(2)
    assert not budget.spend()


@given(
    steps=st.lists(
        st.tuples(st.floats(min_value=0, max_value=10), st.integers(min_value=1, max_value=20))
    )
)
def test_never_more_than_burst_and_rate_is_spent(steps: list[tuple[float, int]]) -> None:
    budget, now, spent = Budget(per_second=2, burst=10, now=0), 0.0, 0
    for seconds, count in steps:
        now += seconds
        budget.refill(now)
        spent += count if budget.spend(count) else 0
        assert spent <= 10 + 2 * now + 1e-6
