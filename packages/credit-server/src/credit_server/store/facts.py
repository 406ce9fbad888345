"""What is learnt of a store: `inspection` asks for it, and `doctor` judges it."""

from dataclasses import dataclass
from enum import Enum

from credit_server.store.clock import ClockOffset


class Topology(Enum):
    """What is behind a connection string; the values are for people."""

    STANDALONE = "a standalone server"
    UNINITIATED = "a replica set that was never initiated"
    REPLICA_SET = "a replica set"
    SHARDED = "a sharded cluster"

    @property
    def has_transactions(self) -> bool:
        """Whether it can do what a ledger needs, once it has a primary."""
        return self in (Topology.REPLICA_SET, Topology.SHARDED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A member of a replica set.

    Attributes:
        host: Its host and port.
        votes: How many votes it has in elections, 0 or 1.
        arbiter: Whether it votes without keeping data.
        up: Whether it is primary, secondary or arbiter, and can be reached.
    """

    host: str
    votes: int
    arbiter: bool
    up: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class MajorityWrite:
    """A write that a majority was asked to acknowledge.

    Attributes:
        seconds: How long it took.
        error: Why it was not acknowledged; empty when it was.
    """

    seconds: float
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaState:
    """How the database's schema stands to what this server needs.

    Attributes:
        version: The version that it was migrated to; 0 when it never was.
        drift: One sentence for each difference.
        newer: Whether a later release has migrated it.
    """

    version: int
    drift: tuple[str, ...]
    newer: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Privilege:
    """What a user may do on some resource.

    Attributes:
        database: Of which database; empty for all but the system's.
        collection: On which collection; empty for all.
        actions: What, in MongoDB's words.
    """

    database: str
    collection: str
    actions: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreFacts:
    """What was learnt of a store. None: the user may not ask, or there is no such thing.

    Attributes:
        connect_seconds: How long it took to get the first answer.
        topology: What it is.
        has_primary: Whether there is a primary that takes writes.
        version: The server's version.
        clock: How this machine's clock stands to that of the server that was asked.
        members: The replica set's members.
        majority_journaled: The set's `writeConcernMajorityJournalDefault`.
        compatibility_version: The feature compatibility version.
        storage_engine: The storage engine's name.
        journal: Whether the journal is switched on; None where it cannot be switched off.
        transaction_lifetime_seconds: The server's `transactionLifetimeLimitSeconds`.
        majority_write: A write that was tried; None without a primary.
        schema: The state of the schema; None without a primary.
        privileges: What the user may do; None where no authentication is asked for.
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
