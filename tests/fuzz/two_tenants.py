"""Provide the cast of all games between two tenants, and run a game from a seed."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from tests.fuzz.playing import play
from tests.fuzz.tenant_calls import Calls
from tests.fuzz.tenant_model import Tenant

STEPS = 30
_FRESH_NUMBERS: Iterator[int] = itertools.count(1_000_000)

whose = st.integers(0, 1)
apps = st.integers(0, 2)


class TwoTenants(RuleBasedStateMachine):
    """Two tenants, each with an app of its own and one that they share, and two users.

    Users, apps and actors belong to one example alone.

    Attributes:
        calls: To the server.
        users: The users.
        apps: The app of the first tenant, that of the second one, and the shared one.
        actors: The only `created_by` that each tenant may give.
        tenants: The tenants.
        tokens: Their tokens.
    """

    calls: ClassVar[Calls]

    def __init__(self) -> None:
        super().__init__()
        numbers = [next(_FRESH_NUMBERS) for _ in range(7)]
        self.users, self.apps, self.actors = numbers[:2], numbers[2:5], numbers[5:]
        shared = self.apps[2]
        self.tenants = [
            Tenant(name=f"tenant-{actor}", apps=frozenset({app, shared}), actor=actor)
            for app, actor in zip(self.apps, self.actors, strict=False)
        ]
        self.tokens = [self.calls.token(tenant) for tenant in self.tenants]


def explore(
    game: type[TwoTenants], calls: Calls, *, seed: int, examples: int, shrink: bool = True
) -> Counter[str]:
    """Play a game.

    Args:
        game: The game.
        calls: To the server.
        seed: Makes the same calls again.
        examples: How many pairs of tenants play.
        shrink: Whether to look for the shortest calls that show a failure.

    Returns:
        How often each status, or reason of a rejection, was answered.

    Raises:
        AssertionError: A tenant could do or see what is not theirs, or not what is.
    """
    played = type(game.__name__, (game,), {"calls": calls})
    play(played, seed=seed, examples=examples, steps=STEPS, shrink=shrink)
    return calls.answers
