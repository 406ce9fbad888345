"""What is measured: the systems and the list of workloads."""

from dataclasses import dataclass
from enum import StrEnum

from credit_models.ledger import GRANTS_MAX


class System(StrEnum):
    """A system that is measured."""

    OURS = "ours"
    OURS_H2 = "ours on h2"
    OURS_WORKERS = "ours, workers"
    OURS_UNINDEXED = "ours without the index by time"
    OURS_UNHASHED = "ours without hashes"
    EARLIER = "earlier release"
    PEER = "peer"
    PEER_WORKERS = "peer, processes"
    SDK = "ours, SDK"
    SDK_SYNC = "ours, synchronous SDK"
    PEER_CLIENT = "peer, grpcio's client"
    MEDICI = "medici"
    INSERT_MANY = "insert_many"
    LAYERS = "all layers"
    LAYERS_H2 = "all layers on h2"
    TRANSPORT = "transport"
    TRANSPORT_H2 = "transport on h2"
    GRPCLIB = "grpclib"
    GRPCIO = "grpcio.aio"


class Users(StrEnum):
    """The users that the calls concern."""

    RANDOM = "random"
    HOT = "one hot"


class Operation(StrEnum):
    """The kind of call."""

    WRITE = "write"
    BATCH = "batch"
    READ = "read"
    LIST = "list"
    BALANCE = "balance"
    LATEST = "last 20"
    STATEMENT = "statement"
    EVENT = "write to event"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """What a database holds before the measurement.

    Attributes:
        users: The number of users, with the ids from 1.
        history: The number of transactions of each user, at least 1.
        grants: The number of live grants of each user. Each is one more transaction.
    """

    users: int = 10_000
    history: int = 1
    grants: int = 0

    @property
    def transactions(self) -> int:
        """Return the number of all transactions."""
        return self.users * (self.history + self.grants)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A load that is offered to several systems in turn.

    Attributes:
        group: The group; its workloads share servers, a table and a chart.
        systems: The systems that are measured.
        callers: The number of callers, each of which sends its next call when its last one ended.
        operation: The kind of call.
        users: The users that the calls concern.
        batch: The number of operations of a call.
        ledger: What the database holds before.
        watchers: The number of watchers in a separate process. Each watches one user.
    """

    group: str
    systems: tuple[System, ...]
    callers: int
    operation: Operation = Operation.WRITE
    users: Users = Users.RANDOM
    batch: int = 1
    ledger: Ledger = Ledger()
    watchers: int = 0

    @property
    def title(self) -> str:
        """Return the description, unique in the group."""
        of = f" of {self.batch:,}" if self.operation is Operation.BATCH else ""
        parts = [
            f"{self.operation}{of}",
            f"{self.users} users" if self.users is Users.RANDOM else f"{self.users} user",
            counted(self.callers, "caller"),
        ]
        if self.ledger != Ledger():
            parts.append(
                f"{counted(self.ledger.users, 'user')} with"
                f" {counted(self.ledger.history, 'transaction')}"
                + (f" and {counted(self.ledger.grants, 'grant')}" if self.ledger.grants else "")
            )
        if self.watchers:
            parts.append(counted(self.watchers, "watcher"))
        return ", ".join(parts)

    @property
    def name(self) -> str:
        """Return the name, unique in the list of workloads."""
        return f"{self.group}: {self.title}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


_SERVERS = (System.OURS, System.OURS_WORKERS, System.PEER, System.PEER_WORKERS)
_CALLS = (
    System.LAYERS,
    System.LAYERS_H2,
    System.TRANSPORT,
    System.TRANSPORT_H2,
    System.GRPCLIB,
    System.GRPCIO,
)
# The transactions of a statement, in the middle of a history.
STATEMENT_ROWS = 1000
USERS_MANY = Ledger(users=1_000_000, history=10)
USERS_FEW = Ledger(users=1_000, history=10)

WORKLOADS: tuple[Workload, ...] = (
    *(
        Workload(group="writes", systems=_SERVERS, callers=callers)
        for callers in (1, 4, 16, 64, 128, 256, 1024)
    ),
    *(
        Workload(group="writes", systems=_SERVERS, callers=callers, users=Users.HOT)
        for callers in (1, 16, 128)
    ),
    Workload(
        group="engines", systems=(System.OURS, System.OURS_H2, System.EARLIER), callers=128
    ),
    Workload(group="engines", systems=(System.OURS, System.OURS_H2, System.EARLIER), callers=1),
    *(
        Workload(group="calls", systems=_CALLS, callers=callers, operation=Operation.BALANCE)
        for callers in (1, 64)
    ),
    *(
        Workload(
            group="batches",
            systems=(System.OURS, System.INSERT_MANY),
            callers=callers,
            operation=Operation.BATCH,
            batch=batch,
        )
        # Several batches of 1,000 would wait longer than a busy server allows.
        for batch, callers in ((10, 16), (100, 4), (1000, 1))
    ),
    Workload(group="batches", systems=(System.OURS, System.MEDICI), callers=16),
    *(
        Workload(group="reads", systems=_SERVERS, callers=callers, operation=Operation.READ)
        for callers in (1, 16, 128)
    ),
    Workload(group="clients", systems=(System.SDK, System.PEER_CLIENT), callers=128),
    *(
        Workload(
            group="clients",
            systems=(System.SDK, System.SDK_SYNC),
            callers=16,
            operation=operation,
        )
        for operation in (Operation.WRITE, Operation.READ)
    ),
    *(
        Workload(
            group="lists",
            systems=(System.OURS, System.PEER),
            callers=4,
            operation=Operation.LIST,
            ledger=Ledger(users=100_000 // history, history=history),
        )
        for history in (100, 10_000)
    ),
    *(
        Workload(group="users", systems=(System.OURS,), callers=128, operation=operation,
                 ledger=ledger)
        for operation in (Operation.WRITE, Operation.READ)
        for ledger in (
            USERS_FEW,
            Ledger(users=10_000, history=10),
            Ledger(users=100_000, history=10),
            USERS_MANY,
        )
    ),
    *(
        Workload(group="grants", systems=systems, callers=callers, ledger=ledger)
        for callers in (1, 64)
        for ledger, systems in (
            (Ledger(users=20), (System.OURS, System.EARLIER)),
            (Ledger(users=20, grants=GRANTS_MAX), (System.OURS,)),
        )
    ),
    *(
        Workload(
            group="histories",
            systems=(System.OURS,),
            callers=callers,
            operation=operation,
            users=Users.HOT,
            ledger=Ledger(users=1, history=history),
        )
        for operation, callers in ((Operation.WRITE, 16), (Operation.LIST, 1))
        for history in (100, 10_000, 1_000_000)
    ),
    *(
        Workload(
            group="history",
            systems=(System.OURS,),
            callers=1,
            operation=operation,
            users=Users.HOT,
            ledger=Ledger(users=1, history=history),
        )
        for history in (100, 10_000, 1_000_000)
        for operation in (
            Operation.BALANCE,
            Operation.LATEST,
            *((Operation.LIST, Operation.STATEMENT) if history >= STATEMENT_ROWS else ()),
        )
    ),
    Workload(
        group="history",
        systems=(System.OURS, System.OURS_UNINDEXED, System.OURS_UNHASHED),
        callers=128,
        ledger=USERS_FEW,
    ),
    *(
        Workload(group="watch", systems=(System.SDK,), callers=callers, operation=operation)
        for callers in (1, 16)
        for operation in (Operation.WRITE, Operation.EVENT)
    ),
    *(
        Workload(
            group="watch",
            systems=(System.OURS,),
            callers=128,
            ledger=ledger,
            watchers=watchers,
        )
        for ledger in (USERS_FEW, Ledger())
        for watchers in (0, USERS_FEW.users)
    ),
)  # fmt: skip

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(workload.group for workload in WORKLOADS))
# The group that has no workloads in this list: a run searches for its loads.
OVERLOAD = "overload"


def find(
    *,
    group: str,
    operation: Operation | None = None,
    users: Users | None = None,
    callers: int | None = None,
    batch: int | None = None,
    user_count: int | None = None,
    history: int | None = None,
    grants: int | None = None,
    watchers: int | None = None,
) -> Workload:
    """Return the one workload that the arguments describe; None matches any value.

    Raises:
        ValueError: None matches, or more than one does.
    """
    asked = (group, operation, users, callers, batch, user_count, history, grants, watchers)
    (found,) = (
        workload
        for workload in WORKLOADS
        if all(
            expected in (None, value)
            for expected, value in zip(asked, _properties(workload), strict=True)
        )
    )
    return found


def _properties(workload: Workload) -> tuple[object, ...]:
    return (
        workload.group,
        workload.operation,
        workload.users,
        workload.callers,
        workload.batch,
        workload.ledger.users,
        workload.ledger.history,
        workload.ledger.grants,
        workload.watchers,
    )
