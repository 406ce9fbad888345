"""A few values of a strategy, the same for the same seed."""

from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

ValueT = TypeVar("ValueT")

# Hypothesis begins with the simplest values, which leave out whatever may be left out.
_EXAMPLES = 20


def samples(strategy: SearchStrategy[ValueT], seed_number: int, count: int) -> tuple[ValueT, ...]:
    """Draws values, the simplest first.

    Args:
        strategy: Where the values come from.
        seed_number: Decides which ones.
        count: How many to draw at most, at least 1; a small strategy may have fewer.

    Raises:
        hypothesis.errors.Unsatisfiable: The strategy has none.
    """
    drawn: list[ValueT] = []

    @seed(seed_number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(value: ValueT) -> None:
        drawn.append(value)

    draw()
    return tuple(drawn)


def sample(strategy: SearchStrategy[ValueT], seed_number: int) -> ValueT:
    """Draws one value that is not the simplest.

    Args:
        strategy: Where the value comes from.
        seed_number: Decides which one.
    """
    return samples(strategy, seed_number, _EXAMPLES)[-1]
