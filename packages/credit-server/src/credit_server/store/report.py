"""Report the state of a database and its servers, for `credit-server doctor`.

The inspection changes nothing, except for one majority write that does not touch the ledger. What
the user of the connection string may not ask is left out of the report.
"""

import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bson.codec_options import CodecOptions
from credit_models.timeouts import Timeout
from pydantic import ValidationError
from pymongo.errors import (
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)
from pymongo.read_preferences import Nearest
from pymongo.write_concern import WriteConcern

from credit_server.store import schema
from credit_server.store.connection import open_clients
from credit_server.store.driver import Client, Database
from credit_server.store.errors import all_translated, explain_unreachable
from credit_server.store.mongo import reading_of
from credit_server.store.port import ClockOffset, StoreMisconfigured, StoreUnavailable

# The collection for the majority write, if the user may not append a note to the oplog.
SCRATCH = "credit_doctor_scratch"

_HELLOS = 3

# `Any`: what the driver decodes has no narrower type.
_Answer = dict[str, Any]

# A set without a primary must be inspected too.
_ANY_MEMBER = Nearest()


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


@asynccontextmanager
async def connected(uri: str, *, timeout_seconds: float) -> AsyncIterator[Client]:
    """Connect for an inspection.

    Args:
        uri: A MongoDB connection string.
        timeout_seconds: How long to look for a server, and to wait for each answer; at least 0.1.

    Raises:
        StoreMisconfigured: The connection string is not valid.
    """
    clients = open_clients(uri, name="credit-server doctor", timeout_seconds=timeout_seconds)
    try:
        yield clients.reading
    finally:
        await clients.close()


async def inspect(client: Client, *, database: str, timeout_seconds: float) -> StoreReport:
    """Return a report of a store.

    Args:
        client: A client of `connected`.
        database: The name of the ledger's database.
        timeout_seconds: How long to wait for a majority to acknowledge a write.

    Raises:
        StoreUnavailable: No server can be reached.
        StoreMisconfigured: The connection string cannot be used.
        StoreError: A server rejects a command that every user may run.
    """
    with all_translated():
        began = time.perf_counter()
        hello = await _first_hello(client)
        connect_seconds = time.perf_counter() - began
        topology = _topology(hello)
        has_primary = await _has_primary(client, topology)
        writable = has_primary and topology.has_transactions
        build = await _ask(client, "buildInfo")
        configuration = await _set_answer(client, topology, "replSetGetConfig")
        state = await _set_answer(client, topology, "replSetGetStatus")
        status = await _permitted(_ask(client, "serverStatus"))
        options = await _permitted(_ask(client, "getCmdLineOpts"))
        compatibility = await _parameter(client, "featureCompatibilityVersion")
        return StoreReport(
            connect_seconds=connect_seconds,
            topology=topology,
            has_primary=has_primary,
            version=str(build["version"]),
            clock=await _clock(client),
            members=_members(configuration, state),
            majority_journaled=_path(configuration, "config", "writeConcernMajorityJournalDefault"),
            compatibility_version=_path(compatibility, "version"),
            storage_engine=_path(status, "storageEngine", "name"),
            journal=_path(options, "parsed", "storage", "journal", "enabled"),
            transaction_lifetime_seconds=await _parameter(
                client, "transactionLifetimeLimitSeconds"
            ),
            majority_write=(
                await _majority_write(client, database, timeout_seconds) if writable else None
            ),
            schema=await _schema(client, database) if writable else None,
            privileges=await _privileges(client),
        )


async def _ask(client: Client, command: str, **options: object) -> _Answer:
    document = {command: 1, **options}
    answer: _Answer = await client.admin.command(document, read_preference=_ANY_MEMBER)
    return answer


async def _first_hello(client: Client) -> _Answer:
    """Send the command that every user may send. The server does not know a user that may not."""
    try:
        return await _ask(client, "hello")
    except ServerSelectionTimeoutError as error:
        raise StoreUnavailable(explain_unreachable(client.topology_description)) from error
    except OperationFailure as error:
        reason = (error.details or {}).get("errmsg", "no reason")
        raise StoreMisconfigured(
            f"MongoDB rejects the user that CREDIT_MONGODB_URI names: {reason}"
        ) from error


async def _permitted(question: Awaitable[_Answer]) -> _Answer | None:
    """Return the answer; None if the command does not exist or the user may not run it."""
    try:
        return await question
    except OperationFailure:
        return None


def _topology(hello: _Answer) -> Topology:
    if hello.get("msg") == "isdbgrid":
        return Topology.SHARDED
    if "setName" in hello:
        return Topology.REPLICA_SET
    return Topology.UNINITIATED if hello.get("isreplicaset") else Topology.STANDALONE


async def _has_primary(client: Client, topology: Topology) -> bool:
    if topology is not Topology.REPLICA_SET:
        return True
    try:
        hello: _Answer = await client.admin.command("hello")
    except ServerSelectionTimeoutError:
        return False
    return bool(hello.get("isWritablePrimary", False))


async def _set_answer(client: Client, topology: Topology, command: str) -> _Answer | None:
    if topology is not Topology.REPLICA_SET:
        return None
    return await _permitted(_ask(client, command))


def _members(configuration: _Answer | None, state: _Answer | None) -> tuple[Member, ...] | None:
    if configuration is None or state is None:
        return None
    # 1, 2 and 7: https://www.mongodb.com/docs/manual/reference/replica-states/.
    up = {
        entry["name"]: entry.get("health") == 1 and entry.get("state") in (1, 2, 7)
        for entry in state["members"]
    }
    return tuple(
        Member(
            host=entry["host"],
            votes=int(entry.get("votes", 1)),
            arbiter=bool(entry.get("arbiterOnly", False)),
            up=up.get(entry["host"], False),
        )
        for entry in configuration["config"]["members"]
    )


# Any: a parameter is a number, a string or a document.
async def _parameter(client: Client, name: str) -> Any:
    answer = await _permitted(_ask(client, "getParameter", **{name: 1}))
    return None if answer is None else answer.get(name)


# Any: the value at the end of the path has the type that the server returns.
def _path(document: _Answer | None, *names: str) -> Any:
    found: Any = document
    for name in names:
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


async def _clock(client: Client) -> ClockOffset:
    """Compare the clocks, like the server; of several answers the quickest is the most precise."""
    offsets = []
    for _ in range(_HELLOS):
        asked_at = time.monotonic()
        hello = await _ask(client, "hello")
        reading = reading_of(hello, asked_at=asked_at, answered_at=time.monotonic())
        before = time.monotonic()
        wall = time.time()
        offsets.append(reading.offset(wall, before, time.monotonic()))
    return min(offsets, key=lambda offset: offset.most_seconds - offset.least_seconds)


async def _majority_write(client: Client, database: str, timeout_seconds: float) -> MajorityWrite:
    concern = WriteConcern("majority", wtimeout=int(timeout_seconds * 1000))
    began = time.perf_counter()
    error = ""
    try:
        async with Timeout(2 * timeout_seconds):
            if not await _note(client, concern):
                await _scratch(client, database, concern)
    except (PyMongoError, TimeoutError) as failure:
        error = str(failure) or type(failure).__name__
    return MajorityWrite(seconds=time.perf_counter() - began, error=error)


async def _note(client: Client, concern: WriteConcern) -> bool:
    """Append a note to the oplog, which touches no collection; return whether it is permitted."""
    try:
        answer: _Answer = await client.admin.command(
            {
                "appendOplogNote": 1,
                "data": {"credit-server": "doctor"},
                "writeConcern": concern.document,
            }
        )
    except OperationFailure:
        return False
    # The driver raises this error for its helpers only, not for a command.
    late = answer.get("writeConcernError")
    if late is not None:
        raise WriteConcernError(late["errmsg"], late.get("code"), late)
    return True


async def _scratch(client: Client, database: str, concern: WriteConcern) -> None:
    collection = client[database].get_collection(SCRATCH, write_concern=concern)
    try:
        await collection.insert_one({"written_by": "credit-server doctor"})
    finally:
        await collection.drop()


async def _schema(client: Client, database: str) -> SchemaState | None:
    found: Database = client.get_database(database, codec_options=CodecOptions(tz_aware=True))
    try:
        version = await schema.stored_version(found)
        drift = await schema.verify(found)
    except OperationFailure:
        return None
    except ValidationError:
        unreadable = f"the document in {schema.VERSION} cannot be read"
        return SchemaState(version=0, drift=(unreadable,), newer=False)
    return SchemaState(version=version, drift=tuple(drift), newer=version > schema.SCHEMA_VERSION)


async def _privileges(client: Client) -> tuple[Privilege, ...] | None:
    answer = await _permitted(_ask(client, "connectionStatus", showPrivileges=True))
    information = _path(answer, "authInfo") or {}
    if not information.get("authenticatedUsers"):
        return None
    return tuple(
        Privilege(
            database=entry["resource"].get("db", ""),
            collection=entry["resource"].get("collection", ""),
            actions=frozenset(entry["actions"]),
        )
        for entry in information.get("authenticatedUserPrivileges", [])
        # Privileges on the whole cluster have other resources.
        if "db" in entry["resource"] or entry["resource"].get("anyResource")
    )
