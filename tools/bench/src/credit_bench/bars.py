"""The bars: ratios that the results must reach."""

from dataclasses import dataclass

from credit_models.ledger import GRANTS_MAX

from credit_bench.summary import Cell, Measure, Spread, Summary
from credit_bench.workloads import (
    STATEMENT_ROWS,
    Operation,
    System,
    Users,
    Workload,
    counted,
    find,
)

_OURS, _PEER = System.OURS, System.PEER


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A ratio of two figures, and the value that it must reach.

    Attributes:
        text: What is compared.
        ours: The workload and the system of the numerator.
        other: Those of the denominator.
        goal: The lowest ratio that passes; of CPU times and latencies, the highest.
        measure: The figure that is compared.
        against: The figure of the denominator; None: the same.
    """

    text: str
    ours: Cell
    other: Cell
    goal: float
    measure: Measure = Measure.RATE
    against: Measure | None = None

    @property
    def condition(self) -> str:
        """Return the goal as text."""
        return f"{'≥' if self.measure is Measure.RATE else '≤'} {self.goal:g}"

    def ratio(self, summary: Summary) -> Spread | None:
        """Return the ratio; None if a part was not measured."""
        return summary.ratio(self.ours, self.other, self.measure, self.against)

    def by_cpu(self, summary: Summary) -> Spread | None:
        """Return the ratio of op/s that follows from the CPU times alone; None for other bars.

        It is what the ratio would be if the CPU were the only limit. On a busy machine, it varies
        less than the op/s.
        """
        if self.measure is not Measure.RATE:
            return None
        return summary.ratio(self.other, self.ours, Measure.CPU)

    def reached(self, ratio: Spread) -> bool:
        """Return whether the median of the ratio passes."""
        if self.measure is Measure.RATE:
            return ratio.median >= self.goal
        return ratio.median <= self.goal


def _against_peer(text: str, workload: Workload, goal: float) -> Bar:
    return Bar(text=text, ours=(workload, _OURS), other=(workload, _PEER), goal=goal)


def _watched(users: int, watchers: int) -> Workload:
    return find(group="watch", callers=128, user_count=users, watchers=watchers)


_ONE = find(group="writes", callers=1, users=Users.RANDOM)
_MANY = find(group="writes", callers=128, users=Users.RANDOM)
_HOT = find(group="writes", callers=128, users=Users.HOT)
_BATCH = find(group="batches", batch=1000)
_H2 = find(group="engines", callers=128)
_CALL = find(group="calls", callers=64)
_CLIENTS = find(group="clients", callers=128)
_LATEST = find(group="history", operation=Operation.LATEST, history=1_000_000)
_WATCHERS = 1_000

BARS: tuple[Bar, ...] = (
    _against_peer("writes, one caller, random users: ours / peer", _ONE, 1.0),
    _against_peer(
        "writes, one caller, one hot user: ours / peer",
        find(group="writes", callers=1, users=Users.HOT),
        1.0,
    ),
    _against_peer(
        "writes, 16 callers, random users: ours / peer",
        find(group="writes", callers=16, users=Users.RANDOM),
        1.8,
    ),
    _against_peer("writes, 128 callers, random users: ours / peer", _MANY, 3.0),
    _against_peer("writes, 128 callers, one hot user: ours / peer", _HOT, 60),
    Bar(
        text="writes, 128 callers: ours for one hot user / ours for random users",
        ours=(_HOT, _OURS),
        other=(_MANY, _OURS),
        goal=0.9,
    ),
    Bar(
        text="writes, 128 callers: ours through the SDK / the peer through grpcio's client",
        ours=(_CLIENTS, System.SDK),
        other=(_CLIENTS, System.PEER_CLIENT),
        goal=6,
    ),
    *(
        Bar(
            text=f"{operation}s: the synchronous SDK with 16 threads / the SDK with 16 tasks",
            ours=(find(group="clients", operation=operation, callers=16), System.SDK_SYNC),
            other=(find(group="clients", operation=operation, callers=16), System.SDK),
            goal=0.8,
        )
        for operation in (Operation.WRITE, Operation.READ)
    ),
    Bar(
        text="batches of 1,000: ours / `insert_many` of the same documents",
        ours=(_BATCH, _OURS),
        other=(_BATCH, System.INSERT_MANY),
        goal=0.5,
    ),
    Bar(
        text="batches of 1,000, ours / single writes, medici",
        ours=(_BATCH, _OURS),
        other=(find(group="batches", operation=Operation.WRITE), System.MEDICI),
        goal=20,
    ),
    Bar(
        text="CPU of the server per write, 128 callers: ours / the earlier release on h2",
        ours=(_H2, _OURS),
        other=(_H2, System.EARLIER),
        goal=0.4,
        measure=Measure.SERVER_CPU,
    ),
    Bar(
        text="CPU of a trivial call: all our layers / grpcio.aio without any",
        ours=(_CALL, System.LAYERS),
        other=(_CALL, System.GRPCIO),
        goal=1.0,
        measure=Measure.SERVER_CPU,
    ),
    _against_peer(
        "rows of a history of 10,000: ours / peer",
        find(group="lists", history=10_000),
        3.0,
    ),
    _against_peer("reads, 128 callers: ours / peer", find(group="reads", callers=128), 2.0),
    *(
        Bar(
            text=f"writes, {counted(callers, 'caller')}: users with {GRANTS_MAX} grants / without",
            ours=(find(group="grants", callers=callers, grants=GRANTS_MAX), _OURS),
            other=(find(group="grants", callers=callers, grants=0), _OURS),
            goal=0.5,
        )
        for callers in (1, 64)
    ),
    *(
        Bar(
            text=f"writes, {counted(callers, 'caller')}: users without grants / earlier release",
            ours=(find(group="grants", callers=callers, grants=0), _OURS),
            other=(find(group="grants", callers=callers, grants=0), System.EARLIER),
            goal=0.97,
        )
        for callers in (1, 64)
    ),
    *(
        Bar(
            text=f"{operation}s: 1,000,000 users with 10,000,000 transactions / 1,000 users",
            ours=(find(group="users", operation=operation, user_count=1_000_000), _OURS),
            other=(find(group="users", operation=operation, user_count=1_000), _OURS),
            goal=0.8,
        )
        for operation in (Operation.WRITE, Operation.READ)
    ),
    Bar(
        text="median latency: the last 20 of 1,000,000 transactions / the user's balance",
        ours=(_LATEST, _OURS),
        other=(find(group="history", operation=Operation.BALANCE, history=1_000_000), _OURS),
        goal=2,
        measure=Measure.P50,
    ),
    Bar(
        text="median latency: the last 20 of 1,000,000 transactions / of 100",
        ours=(_LATEST, _OURS),
        other=(find(group="history", operation=Operation.LATEST, history=100), _OURS),
        goal=1.2,
        measure=Measure.P50,
    ),
    Bar(
        text=f"median latency: a statement of {STATEMENT_ROWS:,} of 1,000,000 transactions / 50 ms"
        " and the time of a list for as many rows",
        ours=(find(group="history", operation=Operation.STATEMENT, history=1_000_000), _OURS),
        other=(find(group="history", operation=Operation.LIST, history=1_000_000), _OURS),
        goal=1,
        measure=Measure.P50,
        against=Measure.STATEMENT_LIMIT,
    ),
    *(
        Bar(
            text=f"99th percentile, {counted(callers, 'caller')}: write to event / write",
            ours=(find(group="watch", operation=Operation.EVENT, callers=callers), System.SDK),
            other=(find(group="watch", operation=Operation.WRITE, callers=callers), System.SDK),
            goal=3,
            measure=Measure.P99,
        )
        for callers in (1, 16)
    ),
    *(
        Bar(
            text=f"writes, 128 callers: with {counted(_WATCHERS, 'watcher')} of"
            f" {counted(users, 'user')} / without",
            ours=(_watched(users, _WATCHERS), _OURS),
            other=(_watched(users, 0), _OURS),
            goal=0.9,
        )
        for users in (10_000, 1_000)
    ),
)

# The share of the best goodput that must remain under ten times the load.
KEPT_GOAL = 0.95
KEPT_GOAL_BUSY = 0.8
