"""Create and update the collections, their validators and indexes, step by step."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from pymongo.errors import OperationFailure

from credit_server.store import schema, sharding
from credit_server.store.alert_events import EventGap
from credit_server.store.documents import EventGapDocument, SchemaVersionDocument
from credit_server.store.driver import Database
from credit_server.store.leases import held
from credit_server.store.mongo_alert_events import newest_position
from credit_server.store.port import StoreMisconfigured

_INDEX_NOT_FOUND = 27
_NAMESPACE_EXISTS = 48


class Step(NamedTuple):
    """A step of a migration. It can be repeated.

    Attributes:
        sentence: A description of the step.
        run: Runs the step.
    """

    sentence: str
    run: Callable[[], Awaitable[object]]


async def migrate(
    database: Database, *, shards: bool = True, on_wait: Callable[[], None] = lambda: None
) -> int:
    """Create or update everything that `schema.verify` checks. Safe to repeat.

    Every step can be repeated, and the version is written last, so an interrupted migration
    continues where it stopped. An obsolete index is dropped after the indexes that replace it are
    built, so that keys are unique at every moment, also while servers of the previous release
    write. Building an index does not block writes. A lease lets one migration run at a time.
    Otherwise, a migration of an earlier release could restore its validators.

    Args:
        database: The database. Its client must not limit the time of an answer: building an index
            on a large collection takes minutes.
        shards: Whether to shard collections if MongoDB is a sharded cluster.
        on_wait: Called once if another process migrates the database. This one waits.

    Returns:
        The version of the database after the migration.

    Raises:
        StoreMisconfigured: An import is not complete, a later release has migrated the database
            (SchemaTooNew), or the collections of a sharded cluster cannot be sharded.
        StoreError: Another process has taken over, because this one paused.
    """
    if await plan(database, shards=shards):
        async with held(database[schema.LEASES], "migration", on_wait=on_wait) as lease:
            # Plan again, because another process may have migrated the database.
            for step in await plan(database, shards=shards):
                await lease.extend()
                await step.run()
    return schema.SCHEMA_VERSION


async def plan(database: Database, *, shards: bool = True) -> list[Step]:
    """Return the steps of a migration; empty if there is nothing to do. Nothing is changed.

    Args:
        database: The database.
        shards: See `migrate`.

    Raises:
        StoreMisconfigured: See `migrate`.
    """
    if await database[schema.IMPORT_PROGRESS].find_one() is not None:
        raise StoreMisconfigured(schema.IMPORT_INCOMPLETE)
    version = await schema.stored_version(database)
    if version > schema.SCHEMA_VERSION:
        raise schema.SchemaTooNew(database.name, version)
    steps = [*await _creations(database), *await _index_steps(database)]
    # A collection is sharded by an index, so after the indexes are built.
    for name in await sharding.unsharded(database) if shards else ():
        sentence = f"shard the collection {name} by user_id"
        steps.append(Step(sentence, partial(sharding.shard, database, name)))
    if version != schema.SCHEMA_VERSION:
        sentence = (
            f"set the schema version to {schema.SCHEMA_VERSION}; it is {version or 'not set'}"
        )
        steps.append(Step(sentence, partial(_write_version, database)))
    return steps


async def _creations(database: Database) -> list[Step]:
    """Return the steps for collections and validators."""
    found = await schema.collection_options(database)
    steps = []
    for name, document in schema.DOCUMENTS.items():
        options = {"validator": schema.validator_of(document), **schema.VALIDATION}
        if name not in found:
            sentence = f"create the collection {name}"
            steps.append(Step(sentence, partial(_create, database, name, options)))
        elif any(
            found[name].get(option, schema.VALIDATION.get(option)) != value
            for option, value in options.items()
        ):
            change = {"collMod": name, **options}
            sentence = f"replace the validator of {name}"
            steps.append(Step(sentence, partial(database.command, change)))
    return steps


async def _create(database: Database, name: str, options: dict[str, Any]) -> None:
    try:
        await database.command({"create": name, **options})
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise
        await database.command({"collMod": name, **options})


async def _index_steps(database: Database) -> list[Step]:
    """Return the steps for indexes. Those of a collection are built in one scan of it."""
    steps = []
    for name, indexes in schema.INDEXES.items():
        present = await database[name].index_information()
        wanted = {index.document["name"]: index for index in indexes}
        if missing := [index for each, index in wanted.items() if schema.differs(present, index)]:
            names = ", ".join(index.document["name"] for index in missing)
            sentence = f"build indexes of {name}: {names}"
            steps.append(Step(sentence, partial(database[name].create_indexes, missing)))
        for obsolete in schema.OBSOLETE_INDEXES.get(name, []):
            if obsolete in present:
                sentence = f"drop the index {obsolete} of {name}"
                steps.append(Step(sentence, partial(_drop_index, database, name, obsolete)))
    return steps


async def _drop_index(database: Database, name: str, index: str) -> None:
    try:
        await database[name].drop_index(index)
    except OperationFailure as error:
        if error.code != _INDEX_NOT_FOUND:
            raise


async def _write_version(database: Database, gaps: Sequence[EventGap] = ()) -> None:
    stored = SchemaVersionDocument(
        version=schema.SCHEMA_VERSION,
        event_gaps=[EventGapDocument(last=gap.last, next=gap.next) for gap in gaps] or None,
    ).to_bson()
    # Keep the other fields, which an import has written.
    await database[schema.VERSION].update_one(
        {"_id": stored.pop("_id")}, {"$set": stored}, upsert=True
    )


# Any: a coroutine may receive any value.
ImportStep = Callable[[Database], Coroutine[Any, Any, int]]
"""A step of an import. It can be repeated."""


async def prepare_import(database: Database) -> int:
    """Create the collections without indexes and without a version: no server starts on them."""
    for step in await _creations(database):
        await step.run()
    await database[schema.VERSION].delete_many({})
    return 0


async def complete_import(database: Database) -> int:
    """Build the indexes of an imported ledger."""
    for step in await _index_steps(database):
        await step.run()
    return 0


async def finish_import(database: Database, *, gaps: Sequence[EventGap]) -> int:
    """Write the version of an imported ledger, on which servers may start.

    Readers may have stored the positions of events that the backup lacks. So the positions of new
    events begin with the time in microseconds. They are greater than all earlier positions, because
    positions grow by one for each event, and no ledger has a million events per second.

    Args:
        database: The database.
        gaps: The gaps that the exported database had. This import adds one.
    """
    last = await newest_position(database[schema.ALERT_EVENTS])
    hello = await database.client.admin.command("hello")
    now: datetime = hello["localTime"].replace(tzinfo=UTC)
    await _write_version(database, [*gaps, EventGap(last, int(now.timestamp() * 1_000_000))])
    return schema.SCHEMA_VERSION
