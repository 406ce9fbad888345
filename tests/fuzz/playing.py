"""Run a state machine of hypothesis from a seed, and shrink what it finds."""

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def play(
    machine: type[RuleBasedStateMachine], *, seed: int, examples: int, steps: int, shrink: bool
) -> None:
    """Run a number of examples, each of a limited number of steps.

    Args:
        machine: The machine to run.
        seed: The same seed makes the same examples: nothing is kept between runs.
        examples: The number of examples.
        steps: The largest number of rules in an example.
        shrink: Whether to look for the shortest example that fails.

    Raises:
        AssertionError: The machine has found a failure.
    """
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=settings)
