"""Keep which policies of apps servers may apply at which time."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class AppRules:
    """A policy of an app.

    Attributes:
        caps: The caps by period.
        allow_negative: Whether an adjustment may take more credits than there are.
        since: From when on servers may apply it, on the journal's clock.
        until: Until when they may; None: without an end.
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
    """Yield the rules that servers may apply between two times: one of each app.

    Args:
        policies: The policies.
        apps: The apps whose rules are needed.
        first: The first time, on the journal's clock.
        last: The last time; None: there is none.
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
