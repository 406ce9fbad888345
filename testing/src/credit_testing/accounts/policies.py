"""Record which policies of apps the servers may apply at which time."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class AppRules:
    """A policy of an app.

    Attributes:
        caps: The caps by period.
        allow_negative: Whether an adjustment may make the balance negative.
        since: The time from which servers may apply it, on the journal's clock.
        until: The time until which servers may apply it; None: there is no end.
    """

    caps: Mapping[str, int] = field(default_factory=dict)
    allow_negative: bool = False
    since: int = field(default=0, compare=False)
    until: int | None = field(default=None, compare=False)


Policies = Mapping[int, Sequence[AppRules]]
"""The policies of each app; an app without one has no rules."""


def applicable(
    policies: Policies, apps: Iterable[int], first: int, last: int | None = None
) -> Iterator[Mapping[int, AppRules]]:
    """Yield each set of rules that servers may apply between two times. A set has one per app.

    Args:
        policies: The policies.
        apps: The apps whose rules are needed.
        first: The start of the period, on the journal's clock.
        last: The end of the period; None: there is no end.
    """
    needed = [app_id for app_id in apps if app_id in policies]
    choices: list[list[AppRules]] = []
    for app_id in needed:
        different: list[AppRules] = []
        for rules in policies[app_id]:
            applies = (rules.until is None or rules.until > first) and (
                last is None or rules.since < last
            )
            if applies and rules not in different:
                different.append(rules)
        choices.append(different)
    for chosen in itertools.product(*choices):
        yield dict(zip(needed, chosen, strict=True))
