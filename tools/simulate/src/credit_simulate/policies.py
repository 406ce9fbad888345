"""Change the policies of apps while calls are in flight, and audit which ones servers apply."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from credit_client import methods
from credit_client.call import Caller
from credit_client.errors import CreditError
from credit_client.transport import Method
from credit_models import AlertDirection, AppPolicy
from credit_models.ledger.records import Direction
from credit_server.store.port import AppPolicy as StoredPolicy
from credit_testing.accounts.journal import Journal
from credit_testing.accounts.model import Limit
from credit_testing.accounts.policies import AppRules

from credit_simulate.cluster import Cluster, Node, Operation
from credit_simulate.trace import Trace

APPLIED_SECONDS = 5.0
"""A change applies to each write that begins this long after it, or later; see the contract."""
_CAPS: Sequence[dict[str, int]] = (
    {"per_day": 30},
    {"per_day": 45},
    {"per_hour": 45},
    {"per_hour": 60, "per_day": 400},
)
"""The caps that an app can get. It always has a cap, so that each use is counted."""
_LATER_ALERTS: Mapping[int, Sequence[tuple[bool, Limit]]] = {
    1: (
        (True, (45, AlertDirection.RISES_TO)),
        (True, (8, AlertDirection.FALLS_BELOW)),
    ),
    2: (
        (True, (12, AlertDirection.FALLS_BELOW)),
        (False, (30, AlertDirection.RISES_TO)),
    ),
}
"""The alerts that are set or removed in each app, in this order.

No alert is changed twice, so a copy of a request that arrives late has no effect.
"""


@dataclass(kw_only=True, slots=True)
class _Stored:
    """A policy that was stored on a primary.

    Attributes:
        policy: The policy.
        operation: The operation that stored it.
        since: When it was stored, on the journal's clock.
        replaced: Calls that begin at this time or later are decided with this policy or a later
            one; None: the simulation ended before that time.
    """

    policy: StoredPolicy
    operation: Operation
    since: int
    replaced: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """An answer with a policy, the times at which its call began and ended, and the request."""

    began: int
    ended: int
    policy: AppPolicy
    wanted: Mapping[str, object] | None
    stale: bool


class StoredPolicies:
    """Records the policies that are stored, which servers may apply until they are replaced.

    A policy that is lost with a primary may never be applied.
    """

    def __init__(self, cluster: Cluster, journal: Journal) -> None:
        """Prepare to record policies.

        Args:
            cluster: Where they are stored.
            journal: The journal whose clock is used.
        """
        self._cluster = cluster
        self._journal = journal
        self._stored: list[_Stored] = []
        self._grown = asyncio.Event()

    async def next(self) -> None:
        """Wait until a primary has another policy."""
        await self._grown.wait()

    def setting(self, policy: StoredPolicy) -> Operation:
        """Return the operation that stores a policy, and that records when the primary has it."""

        async def operation(node: Node) -> None:
            await node.set_policy(policy)
            if node is self._cluster.primary:
                self._add(_Stored(policy=policy, operation=operation, since=self._journal.now()))

        return operation

    def _add(self, stored: _Stored) -> None:
        def replace() -> None:
            stored.replaced = self._journal.now()

        self._stored.append(stored)
        self._grown.set()
        self._grown.clear()
        asyncio.get_running_loop().call_later(APPLIED_SECONDS, replace)

    def _applicable(self) -> Iterator[tuple[StoredPolicy, int, int | None]]:
        """Yield the policies that were not lost, with the times between which each may apply."""
        kept = [each for each in self._stored if self._cluster.keeps(each.operation)]
        for number, each in enumerate(kept):
            app_id = each.policy.app_id
            later = (other for other in kept[number + 1 :] if other.policy.app_id == app_id)
            following = next(later, None)
            yield each.policy, each.since, None if following is None else following.replaced

    def rules(self) -> Mapping[int, Sequence[AppRules]]:
        """Return the rules that servers may apply, by app."""
        found: dict[int, list[AppRules]] = {}
        for stored, since, until in self._applicable():
            caps = stored.policy.caps
            named = {"hour": caps.hour, "day": caps.day, "month": caps.month}
            rules = AppRules(
                caps={period: cap for period, cap in named.items() if cap is not None},
                allow_negative=stored.policy.allow_negative,
                since=since,
                until=until,
            )
            found.setdefault(stored.app_id, []).append(rules)
        return found

    def alerts(self, app_id: int, first: int, last: int) -> set[frozenset[Limit]]:
        """Return each set of alerts that a server may apply at some time in a period."""
        return {
            frozenset(
                (alert.credits, _DIRECTIONS[alert.direction]) for alert in stored.policy.alerts
            )
            for stored, since, until in self._applicable()
            if stored.app_id == app_id and since < last and (until is None or until > first)
        }


_DIRECTIONS = {
    Direction.FALLS_BELOW: AlertDirection.FALLS_BELOW,
    Direction.RISES_TO: AlertDirection.RISES_TO,
}


class PolicyChanges:
    """Changes policies, and records the answers."""

    def __init__(
        self,
        cluster: Cluster,
        trace: Trace,
        journal: Journal,
        connect: Callable[[], Caller],
    ) -> None:
        """Prepare to change policies.

        Args:
            cluster: The replica set.
            trace: Receives a line for each answer.
            journal: The journal whose clock is used. It does not record the changes.
            connect: Returns a client of the SDK.
        """
        self._cluster = cluster
        self._trace = trace
        self._journal = journal
        self._connect = connect
        self._shown: list[Shown] = []
        self._later = {app_id: list(changes) for app_id, changes in _LATER_ALERTS.items()}
        self._alerts: dict[tuple[int, Limit], bool] = {}

    async def change(self, random: Random, capped: int, apps: Sequence[int]) -> None:
        """Change policies with several calls at once.

        Args:
            random: Decides the changes.
            capped: The app with caps.
            apps: All apps.
        """
        fields: dict[str, Any] = {"created_by": random.randint(1, 9)}
        app_id = random.choice(apps)
        calls = [self._set_negative(app_id, allow=random.random() < 0.5, **fields)]
        if random.random() < 0.7:
            calls.append(self._set_caps(capped, random.choice(_CAPS), **fields))
        if random.random() < 0.5 and self._later[app_id]:
            calls.append(self._change_alert(app_id, *self._later[app_id].pop(0), **fields))
        await asyncio.gather(*calls)

    async def change_back(self, random: Random, app_id: int, fail_over: Callable[[], None]) -> None:
        """Change a policy, change the primary, and restore the policy.

        An old primary may return the policy from before the second change. A server that uses this
        policy finds nothing to restore.
        """
        allow = random.random() < 0.5
        for each in (allow, not allow):
            await self._set_negative(app_id, allow=each, created_by=1)
        fail_over()
        await self._set_negative(app_id, allow=allow, created_by=1)

    async def cap(self, app_id: int, per_hour: int) -> None:
        """Set the caps of an app."""
        await self._set_caps(app_id, {"per_hour": per_hour}, created_by=1)

    async def read(self, apps: Sequence[int]) -> None:
        """Read the policies."""
        for app_id in apps:
            await self._ask(methods.APP_POLICY, {"app_id": app_id}, None)

    async def _set_negative(self, app_id: int, *, allow: bool, **fields: Any) -> None:
        values = {"app_id": app_id, "allow_negative": allow, **fields}
        await self._ask(methods.SET_APP_POLICY, values, {"allow_negative": allow})

    async def _set_caps(self, app_id: int, caps: Mapping[str, int], **fields: Any) -> None:
        values = {"app_id": app_id, "caps": caps, **fields}
        await self._ask(methods.SET_SPENDING_CAP, values, {"caps": caps})

    # Any: the messages of any call.
    async def _ask(
        self,
        method: Method[Any, Any],
        values: Mapping[str, Any],
        wanted: Mapping[str, object] | None,
    ) -> None:
        """Make a call that returns a policy. A failed call is not audited."""
        began, began_at = self._journal.now(), self._cluster.time()
        try:
            answer, _ = await self._connect().unary(method, values)
        except CreditError:
            return
        policy = answer.reply.policy
        self._trace("policies", f"{values} ->", policy)
        self._shown.append(
            Shown(
                began=began,
                ended=self._journal.now(),
                policy=policy,
                wanted=wanted,
                stale=wanted is None and self._cluster.stale_until >= began_at,
            )
        )

    async def _change_alert(self, app_id: int, sets: bool, limit: Limit, **fields: Any) -> None:
        values = {"app_id": app_id, "credits": limit[0], "direction": limit[1], **fields}
        method: Method[Any, Any] = methods.SET_ALERT if sets else methods.REMOVE_ALERT
        try:
            answer, _ = await self._connect().unary(method, values)
        except CreditError:
            return
        self._trace("policies", f"{values} ->", answer.reply.alerts)
        self._alerts[app_id, limit] = sets

    def findings(self, last: Mapping[int, StoredPolicy]) -> Iterator[str]:
        """Yield answers that no order of the changes explains.

        Args:
            last: The policies that are stored at the end, by app.
        """
        contents: dict[tuple[int, int], AppPolicy] = {}
        for shown in self._shown:
            policy = shown.policy
            same = contents.setdefault((policy.app_id, policy.revision), policy)
            if same != policy:
                yield f"policies: a revision has two different contents: {same} and {policy}"
            if policy.revision > last[policy.app_id].revision:
                yield f"policies: {policy} was lost, and {last[policy.app_id]} is stored"
            yield from self._answer_findings(shown)
        for (app_id, (credits_, direction)), sets in self._alerts.items():
            found = {
                (alert.credits, _DIRECTIONS[alert.direction])
                for alert in last[app_id].policy.alerts
            }
            if ((credits_, direction) in found) is not sets:
                yield f"policies: an alert of app {app_id} was lost: {credits_} {direction}"

    def _answer_findings(self, shown: Shown) -> Iterator[str]:
        policy = shown.policy
        before = [
            each.policy.revision
            for each in self._shown
            if each.policy.app_id == policy.app_id and each.ended < shown.began
        ]
        if not shown.stale and policy.revision < max(before, default=0):
            yield f"policies: {policy} is older than revision {max(before)} of an earlier answer"
        caps = {
            period: cap
            for period in ("per_hour", "per_day", "per_month")
            if policy.caps is not None and (cap := getattr(policy.caps, period)) is not None
        }
        there: dict[str, object] = {"allow_negative": policy.allow_negative, "caps": caps}
        for name, value in (shown.wanted or {}).items():
            if there[name] != value:
                yield f"policies: a change to {value} returned {policy}"
