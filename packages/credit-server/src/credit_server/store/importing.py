"""Write the documents of a backup into an empty database, step by step, so that it can continue."""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from itertools import islice
from threading import Thread
from typing import Any, NoReturn, TypeVar

from bson.int64 import Int64
from pymongo import InsertOne, MongoClient, ReadPreference, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from credit_server.store import migration, schema
from credit_server.store.alert_events import EventGap
from credit_server.store.connection import open_clients
from credit_server.store.driver import Client
from credit_server.store.errors import all_translated
from credit_server.store.extended_json import Document
from credit_server.store.fields import DECODED
from credit_server.store.leases import Lease, held
from credit_server.store.port import StoreError, StoreMisconfigured

# The documents of one command. MongoDB limits a command to 48 MB.
_BATCH = 1000

# Servers that found an empty database may have written these.
_OF_SERVERS = (schema.VERSION, schema.LEASES)


_DUPLICATE_KEY = 11000

_Result = TypeVar("_Result")


@contextmanager
def open_writer(uri: str, *, database: str, timeout_seconds: float) -> "Iterator[LedgerWriter]":
    """Connect to a database, to write a ledger into it. One process at a time can.

    Args:
        uri: A MongoDB connection string.
        database: The name of the database.
        timeout_seconds: How long to look for a server.

    Raises:
        StoreMisconfigured: The database has documents, or another process imports into it.
        StoreError: The store cannot be reached, or rejects a command.
    """
    clients = open_clients(
        uri,
        name="credit-server import",
        timeout_seconds=timeout_seconds,
        answers_are_timed=False,  # building an index takes minutes
    )
    with all_translated(), _Loop() as loop:
        try:
            writer = LedgerWriter(clients.writing, clients.reading, database, loop)
            writer.check_usable()  # in another database not even the lease is written
            with writer.exclusive():
                yield writer
        finally:
            loop.run(clients.close())


class _Loop:
    """An event loop on a thread, which extends the lease while the import reads and writes."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="credit-import", daemon=True)

    def __enter__(self) -> "_Loop":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Any: a coroutine may receive any value.
    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Return the result of a coroutine. An interruption of this thread cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()


class LedgerWriter:
    """Writes a ledger. A document in `import_progress` has the number of complete chunks.

    The process that writes has a lease. A process that was paused may lose it, so each step
    confirms first that this process still has it and that the import is not complete: servers may
    have written since.
    """

    def __init__(
        self, client: MongoClient[Document], stepping: Client, database: str, loop: _Loop
    ) -> None:
        self._client = client
        self._loop = loop
        self._database = client.get_database(
            database,
            codec_options=DECODED,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=True),
            read_preference=ReadPreference.PRIMARY,
        )
        self._stepping = stepping.get_database(
            database,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        self._progress = self._database[schema.IMPORT_PROGRESS]
        self._lease: Lease | None = None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lease on imports into the database for as long as the context lasts.

        Raises:
            StoreMisconfigured: Another process has it.
        """
        stack = AsyncExitStack()
        lease = held(self._stepping[schema.LEASES], "import", on_wait=self._refuse)
        self._lease = self._loop.run(stack.enter_async_context(lease))
        try:
            yield
        finally:
            self._loop.run(stack.aclose())

    def _refuse(self) -> NoReturn:
        raise StoreMisconfigured(
            f"Another import into the database '{self._database.name}' is running, or was killed"
            " within the last 15 seconds. This one has written nothing: wait for the end of the"
            " other one; if it was killed, repeat the command after 15 seconds"
        )

    def check_usable(self) -> None:
        """Check that the database is empty or has an incomplete import.

        Raises:
            StoreMisconfigured: It has documents.
        """
        if self._progress.find_one({"_id": "import"}) is not None:
            return
        for name in schema.DOCUMENTS:
            if name not in _OF_SERVERS and self._database[name].find_one({}, {"_id": 1}):
                raise StoreMisconfigured(
                    f"The database '{self._database.name}' is not empty ({name}): an import needs"
                    " an empty one, so nothing was written"
                )

    def begin(self, digest: str) -> int:
        """Begin an import, or continue it. Servers do not start on the database until `finish`.

        Args:
            digest: The digest of the backup.

        Returns:
            The number of chunks that are complete.

        Raises:
            StoreMisconfigured: The database has documents, or an import of another backup.
        """
        self.check_usable()
        progress = self._progress.find_one({"_id": "import"})
        if progress is None:
            self._progress.insert_one({"_id": "import", "digest": digest, "chunks": Int64(0)})
        elif progress["digest"] != digest:
            raise StoreMisconfigured(
                f"The database '{self._database.name}' has an incomplete import of another backup,"
                f" with the digest {progress['digest']}: repeat that import, or drop the database"
            )
        self._step(migration.prepare_import)
        return 0 if progress is None else int(progress["chunks"])

    def confirm(self) -> None:
        """Check that this process may continue the import.

        Raises:
            StoreError: Another process has taken over or completed it.
        """
        if self._lease is not None:
            self._loop.run(self._lease.extend())
        if self._progress.find_one({"_id": "import"}) is None:
            raise _completed()

    def insert(
        self, collection: str, documents: Iterable[Document], *, may_exist: bool
    ) -> Iterator[int]:
        """Insert documents and yield the number of each batch.

        Args:
            collection: Their collection.
            documents: The documents, with their ids.
            may_exist: Whether an interrupted import may have inserted some of them. They are kept:
                if they differ, the comparison at the end finds it.

        Raises:
            StoreError: The database does not accept a document, or see `confirm`.
        """
        remaining = iter(documents)
        while batch := list(islice(remaining, _BATCH)):
            self.confirm()
            try:
                self._database[collection].bulk_write(
                    [InsertOne(each) for each in batch], ordered=False
                )
            except BulkWriteError as error:
                if not (may_exist and _only_existing(error)):
                    raise _rejected(collection, error) from error
            yield len(batch)

    def advance(self, chunks: int) -> None:
        """Record that some number of chunks is complete.

        Raises:
            StoreError: Another import has written to the database.
        """
        changed = self._progress.update_one(
            {"_id": "import", "chunks": Int64(chunks - 1)}, {"$set": {"chunks": Int64(chunks)}}
        )
        if not changed.matched_count:
            raise StoreError(
                "another import writes to the same database: wait until it ends. No data is"
                " damaged: both write the same documents"
            )

    def build(self) -> None:
        """Build the indexes, and the totals of apps from the balances.

        Raises:
            StoreError: See `confirm`.
        """
        self._step(migration.complete_import)
        sums = self._database[schema.USER_CREDITS].aggregate(
            [
                {"$unwind": "$balances"},
                {"$group": {"_id": "$balances.app_id", "total": {"$sum": "$balances.balance"}}},
            ]
        )
        totals = [
            UpdateOne(
                {"app_id": each["_id"], "slot": Int64(0)},
                {"$set": {"total": Int64(each["total"])}},
                upsert=True,
            )
            for each in sums
        ]
        self.confirm()
        with self._client.start_session() as session:
            session.with_transaction(
                lambda session: self._write_totals(totals, session),
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern("majority", j=True),
                read_preference=ReadPreference.PRIMARY,
            )

    def _write_totals(self, totals: list[UpdateOne], session: ClientSession) -> None:
        """Write totals, unless the import was completed: servers may have changed the balances."""
        changed = self._progress.update_one(
            {"_id": "import"}, {"$set": {"totals": True}}, session=session
        )
        if not changed.matched_count:
            raise _completed()
        if totals:
            self._database[schema.APP_TOTALS].bulk_write(totals, session=session)

    def finish(self, gaps: Sequence[EventGap]) -> int:
        """Let servers start on the database; return the version of its schema.

        Args:
            gaps: The gaps in the positions of events that the exported database had.

        Raises:
            StoreError: See `confirm`.
        """
        version = self._step(partial(migration.finish_import, gaps=gaps))
        self._progress.drop()
        return version

    def _step(self, step: migration.ImportStep) -> int:
        self.confirm()
        return self._loop.run(step(self._stepping))


def _completed() -> StoreError:
    return StoreError(
        "another process completed the import, because this one paused: nothing is damaged, and"
        " servers may use the database; run credit-server verify if in doubt"
    )


# Any: what the server returns.
def _write_errors(error: BulkWriteError) -> list[dict[str, Any]]:
    return (error.details or {}).get("writeErrors") or []


def _only_existing(error: BulkWriteError) -> bool:
    """Return whether nothing failed but inserts of documents whose ids exist."""
    if (error.details or {}).get("writeConcernErrors"):
        return False
    return all(
        each["code"] == _DUPLICATE_KEY and each.get("keyPattern") == {"_id": 1}
        for each in _write_errors(error)
    )


def _rejected(collection: str, error: BulkWriteError) -> StoreError:
    reason = next((each["errmsg"] for each in _write_errors(error)), str(error))
    return StoreError(f"the database does not accept a document of {collection}: {reason}")
