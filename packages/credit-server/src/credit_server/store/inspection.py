"""Inspect a database and its servers, for `credit-server doctor`.

The inspection changes nothing, except for one majority write that does not touch the ledger. What
the user of the connection string may not ask is left out of the report.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from bson.codec_options import CodecOptions
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
from credit_server.store.clock import ClockOffset, reading_of
from credit_server.store.connection import (
    Client,
    StoreMisconfigured,
    explain_unreachable,
    open_client,
    translated,
)
from credit_server.store.port import StoreError, StoreUnavailable
from credit_server.store.report import (
    MajorityWrite,
    Member,
    Privilege,
    SchemaState,
    StoreReport,
    Topology,
)

# The collection for the majority write, if the user may not append a note to the oplog.
SCRATCH = "credit_doctor_scratch"

_HELLOS = 3

# `Any`: what the driver decodes has no narrower type.
_Answer = dict[str, Any]

# A set without a primary must be inspected too.
_ANY_MEMBER = Nearest()


@asynccontextmanager
async def connected(uri: str, *, timeout_seconds: float) -> AsyncIterator[Client]:
    """Connect for an inspection.

    Args:
        uri: A MongoDB connection string.
        timeout_seconds: How long to look for a server, and to wait for each answer; at least 0.1.

    Raises:
        StoreMisconfigured: The connection string is not valid.
    """
    client = open_client(uri, name="credit-server doctor", timeout_seconds=timeout_seconds)
    try:
        yield client
    finally:
        client.close()


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
    with errors_as_findings():
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


@contextmanager
def errors_as_findings() -> Iterator[None]:
    """Translate every error of the driver, because in an inspection none of them is a bug."""
    try:
        with translated():
            yield
    except PyMongoError as error:
        raise StoreError(f"MongoDB rejects a command: {error}") from error


async def _ask(client: Client, command: str, **options: object) -> _Answer:
    document = {command: 1, **options}
    answer: _Answer = await client.admin.command(document, read_preference=_ANY_MEMBER)
    return answer


async def _first_hello(client: Client) -> _Answer:
    """Send the command that every user may send. The server does not know a user that may not."""
    try:
        return await _ask(client, "hello")
    except ServerSelectionTimeoutError as error:
        raise StoreUnavailable(explain_unreachable(client.delegate.topology_description)) from error
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
        async with asyncio.timeout(2 * timeout_seconds):
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
    found: schema.Database = client.get_database(
        database, codec_options=CodecOptions(tz_aware=True)
    )
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
