"""Waits and the retry budget."""

from credit_client.retry import Backoff, RetryBudget
from hypothesis import given, settings
from hypothesis import strategies as st


def test_the_longest_wait_doubles_up_to_its_limit() -> None:
    backoff = Backoff(initial_seconds=0.1, max_seconds=0.5)
    waits = [
        backoff.wait_seconds(attempts=attempts, minimum_seconds=0, draw=lambda: 1.0)
        for attempts in (1, 2, 3, 4, 100_000)
    ]
    assert waits == [0.1, 0.2, 0.4, 0.5, 0.5]


@settings(deadline=None)  # the machine may be slow
@given(
    attempts=st.integers(1, 200),
    minimum=st.floats(0, 100),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_never_below_what_the_server_asks_for_nor_above_it_and_the_limit(
    attempts: int, minimum: float, drawn: float
) -> None:
    wait = Backoff(initial_seconds=0.1, max_seconds=2).wait_seconds(
        attempts=attempts, minimum_seconds=minimum, draw=lambda: drawn
    )
    assert minimum <= wait <= minimum + 2


def test_the_budget_allows_repetitions_while_more_than_half_of_it_is_left() -> None:
    budget = RetryBudget(tokens_max=10, ratio=0.5)
    assert [budget.failed() for _ in range(6)] == [True] * 4 + [False] * 2


def test_successes_fill_the_budget_again_but_not_above_its_limit() -> None:
    budget = RetryBudget(tokens_max=4, ratio=0.5)
    for _ in range(100):
        budget.succeeded()
    assert [budget.failed() for _ in range(3)] == [True, False, False]
    for _ in range(5):
        budget.succeeded()
    assert [budget.failed() for _ in range(2)] == [True, False]
