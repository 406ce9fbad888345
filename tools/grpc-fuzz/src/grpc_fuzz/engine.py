"""Hypothesis as an engine: its settings, and values that a seed decides."""

from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis.strategies import SearchStrategy

ValueT = TypeVar("ValueT")

# Hypothesis starts with the simplest values, which omit everything that may be omitted.
_EXAMPLES = 20


# Any: settings of several types.
def engine_settings(*, max_examples: int, shrink: bool = True, **more: Any) -> hypothesis.settings:
    """Return settings without a database, deadline or health checks.

    Args:
        max_examples: The limit on examples, at least 1.
        shrink: Whether hypothesis shrinks the examples that fail.
        more: Further settings.
    """
    return hypothesis.settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        print_blob=False,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
        **more,
    )


def samples(strategy: SearchStrategy[ValueT], seed_number: int, count: int) -> tuple[ValueT, ...]:
    """Draw values, the simplest first.

    Args:
        strategy: The strategy.
        seed_number: Decides which values are drawn.
        count: The limit on values, at least 1. A small strategy may have fewer.

    Raises:
        hypothesis.errors.Unsatisfiable: The strategy has no value.
    """
    drawn: list[ValueT] = []

    @seed(seed_number)
    @engine_settings(max_examples=count, shrink=False)
    @given(strategy)
    def draw(value: ValueT) -> None:
        drawn.append(value)

    draw()
    return tuple(drawn)


def sample(strategy: SearchStrategy[ValueT], seed_number: int) -> ValueT:
    """Draw one value that is not the simplest.

    Args:
        strategy: The strategy.
        seed_number: Decides which value is drawn.
    """
    return samples(strategy, seed_number, _EXAMPLES)[-1]
