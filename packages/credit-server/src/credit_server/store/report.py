"""The report of an inspection of a store: `inspection` makes it, and `doctor` judges it."""

from dataclasses import dataclass
from enum import Enum

from credit_server.store.clock import ClockOffset


class Topology(Enum):
    """The kind of server behind a connection string; the values are for people."""

    STANDALONE = "a standalone server"
    UNINITIATED = "a replica set that was never initiated"
    REPLICA_SET = "a replica set"
    SHARDED = "a sharded cluster"

    @property
    def has_transactions(self) -> bool:
        """Whether it supports transactions, once it has a primary."""
        return self in (Topology.REPLICA_SET, Topology.SHARDED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A member of a replica set.

    Attributes:
        host: Its host and port.
        votes: The number of its votes in elections, 0 or 1.
        arbiter: Whether it votes without holding data.
        up: Whether it is primary, secondary or arbiter, and reachable.
    """

    host: str
    votes: int
    arbiter: bool
    up: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class MajorityWrite:
    """A write with the write concern majority.

    Attributes:
        seconds: How long it took.
        error: Why it was not acknowledged; empty if it was.
    """

    seconds: float
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaState:
    """The database's schema, compared with the one that this server needs.

    Attributes:
        version: The version that it was migrated to; 0 if it never was.
        drift: One sentence for each difference.
        newer: Whether a later release has migrated it.
    """

    version: int
    drift: tuple[str, ...]
    newer: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Privilege:
    """What a user may do on a resource.

    Attributes:
        database: The database; empty for all but the system's.
        collection: The collection; empty for all.
        actions: The actions, as MongoDB names them.
    """

    database: str
    collection: str
    actions: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreReport:
    """The findings about a store. None: the user may not ask, or it does not exist.

    Attributes:
        connect_seconds: The time to the first answer.
        topology: The kind of server.
        has_primary: Whether a primary accepts writes.
        version: The server's version.
        clock: The offset of this machine's clock from that of the server.
        members: The replica set's members.
        majority_journaled: The set's `writeConcernMajorityJournalDefault`.
        compatibility_version: The feature compatibility version.
        storage_engine: The storage engine's name.
        journal: Whether the journal is on; None if it cannot be switched off.
        transaction_lifetime_seconds: The server's `transactionLifetimeLimitSeconds`.
        majority_write: The result of a test write; None without a primary.
        schema: The state of the schema; None without a primary.
        privileges: What the user may do; None if authentication is off.
    """

    connect_seconds: float
    topology: Topology
    has_primary: bool
    version: str
    clock: ClockOffset
    members: tuple[Member, ...] | None = None
    majority_journaled: bool | None = None
    compatibility_version: str | None = None
    storage_engine: str | None = None
    journal: bool | None = None
    transaction_lifetime_seconds: int | None = None
    majority_write: MajorityWrite | None = None
    schema: SchemaState | None = None
    privileges: tuple[Privilege, ...] | None = None
