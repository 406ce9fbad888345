"""Plan a simulation from its seed: the steps of callers, and the faults of servers and clocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random


class Act(Enum):
    """The kinds of steps; the values are their names in a trace."""

    WRITE = "write"
    AGAIN = "send a request again"
    REUSE = "use a key for another request"
    BATCH = "batch"
    ATOMIC = "atomic batch"
    GIVE_UP = "give up a write"
    READ = "read"
    READ_BACK = "read with min_revision"
    QUERY = "query a history"
    RESOLVE = "resolve a text id"
    SET_ALERT = "change an alert of a user"
    SET_POLICY = "change policies of apps"
    CRASH = "crash a server"
    STOP = "stop a server"
    START = "start a server"
    FAIL_OVER = "failover"
    LOSE = "lose a write by a failover"
    LOSE_POLICY = "lose a policy by a failover"
    REJECT_RETRY = "crash all servers during a write, and reject its retry"
    CHANGE_BACK = "change a policy back after a failover"
    SET_CLOCK = "set a clock"
    BREAK_CLOCK = "set a clock too far"


_WEIGHTS = {
    Act.WRITE: 52,
    Act.AGAIN: 8,
    Act.REUSE: 3,
    Act.BATCH: 8,
    Act.ATOMIC: 7,
    Act.GIVE_UP: 4,
    Act.READ: 10,
    Act.READ_BACK: 5,
    Act.QUERY: 5,
    Act.RESOLVE: 4,
    Act.SET_ALERT: 5,
    Act.SET_POLICY: 5,
    Act.CRASH: 2,
    Act.STOP: 1,
    Act.START: 3,
    Act.FAIL_OVER: 2,
    Act.LOSE: 2,
    Act.LOSE_POLICY: 1,
    Act.REJECT_RETRY: 1,
    Act.CHANGE_BACK: 1,
    Act.SET_CLOCK: 2,
    Act.BREAK_CLOCK: 0.5,
}
_GAPS = ((0.0, 0.35), (0.003, 0.4), (0.05, 0.15), (1.5, 0.1))
"""The mean time between two steps in seconds, and how often it is this one."""
_APPLYING_SECONDS = 9.0
"""The longest pause after a change of a policy, so that servers apply it in later steps."""
_QUIET_SECONDS = 0.4
"""The pause before and after a write is lost, so that its servers do not wait for other writes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step.

    Attributes:
        number: Its number. The number and the seed decide every detail of the step.
        at: When it begins, in seconds.
        act: The kind of the step.
    """

    number: int
    at: float
    act: Act


def plan(seed: int, steps: int) -> Sequence[Step]:
    """Return the steps of a seed, by time."""
    random = Random(f"plan-{seed}")
    acts = list(_WEIGHTS)
    weights = list(_WEIGHTS.values())
    means, shares = zip(*_GAPS, strict=True)
    planned: list[Step] = []
    at = 0.5
    for number in range(steps):
        (mean,) = random.choices(means, shares)
        at += random.expovariate(1 / mean) if mean else 0.0
        (act,) = random.choices(acts, weights)
        quiet = _QUIET_SECONDS if act is Act.LOSE else 0.0
        at += quiet
        planned.append(Step(number=number, at=at, act=act))
        at += quiet
        if act is Act.SET_POLICY and random.random() < 0.5:
            at += random.uniform(0, _APPLYING_SECONDS)
    return planned
