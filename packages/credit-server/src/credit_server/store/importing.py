"""Write the documents of a backup into an empty database, step by step, so that it can continue."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from bson.int64 import Int64
from pymongo import InsertOne, MongoClient, ReplaceOne
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from credit_server.store import migration, schema
from credit_server.store.connection import open_clients
from credit_server.store.errors import all_translated
from credit_server.store.extended_json import Document
from credit_server.store.fields import DECODED
from credit_server.store.port import StoreError, StoreMisconfigured

# The documents of one command. MongoDB limits a command to 48 MB.
_BATCH = 1000

# Servers that found an empty database may have written these.
_OF_SERVERS = (schema.VERSION, schema.LEASES)


@contextmanager
def open_writer(uri: str, *, database: str, timeout_seconds: float) -> "Iterator[LedgerWriter]":
    """Connect to a database, to write a ledger into it.

    Args:
        uri: A MongoDB connection string.
        database: The name of the database.
        timeout_seconds: How long to look for a server.

    Raises:
        StoreError: The store cannot be reached, or rejects a command.
    """
    with all_translated():
        client: MongoClient[Document] = MongoClient(
            uri,
            appname="credit-server import",
            serverSelectionTimeoutMS=int(timeout_seconds * 1000),
        )
        with client:
            yield LedgerWriter(client, uri, database, timeout_seconds)


class LedgerWriter:
    """Writes a ledger. A document in `import_progress` has the number of complete chunks."""

    def __init__(
        self, client: MongoClient[Document], uri: str, database: str, timeout_seconds: float
    ) -> None:
        self._uri = uri
        self._timeout_seconds = timeout_seconds
        self._database = client.get_database(
            database,
            codec_options=DECODED,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=True),
        )
        self._progress = self._database[schema.IMPORT_PROGRESS]

    def begin(self, digest: str) -> int:
        """Begin an import, or continue it. Servers do not start on the database until `finish`.

        Args:
            digest: The digest of the backup.

        Returns:
            The number of chunks that are complete.

        Raises:
            StoreMisconfigured: The database has documents, or an import of another backup.
        """
        progress = self._progress.find_one({"_id": "import"})
        if progress is None:
            self._check_empty()
            self._progress.insert_one({"_id": "import", "digest": digest, "chunks": Int64(0)})
        elif progress["digest"] != digest:
            raise StoreMisconfigured(
                f"The database '{self._database.name}' has an incomplete import of another backup,"
                f" with the digest {progress['digest']}: repeat that import, or drop the database"
            )
        self._migrate(migration.prepare_import)
        return 0 if progress is None else int(progress["chunks"])

    def _check_empty(self) -> None:
        for name in schema.DOCUMENTS:
            if name not in _OF_SERVERS and self._database[name].find_one({}, {"_id": 1}):
                raise StoreMisconfigured(
                    f"The database '{self._database.name}' is not empty ({name}): an import needs"
                    " an empty one, so nothing was written"
                )

    def insert(
        self, collection: str, documents: Iterable[Document], *, may_exist: bool
    ) -> Iterator[int]:
        """Insert documents and yield the number of each batch.

        Args:
            collection: Their collection.
            documents: The documents, with their ids.
            may_exist: Whether an interrupted import may have inserted some of them.

        Raises:
            StoreError: The database does not accept a document.
        """
        remaining = iter(documents)
        while batch := list(islice(remaining, _BATCH)):
            writes: Sequence[InsertOne[Document] | ReplaceOne[Document]] = [
                ReplaceOne({"_id": each["_id"]}, each, upsert=True)
                if may_exist
                else InsertOne(each)
                for each in batch
            ]
            try:
                self._database[collection].bulk_write(writes, ordered=False)
            except BulkWriteError as error:
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
        """Build the indexes, and the totals of apps from the balances."""
        self._migrate(migration.complete_import)
        sums = self._database[schema.USER_CREDITS].aggregate(
            [
                {"$unwind": "$balances"},
                {"$group": {"_id": "$balances.app_id", "total": {"$sum": "$balances.balance"}}},
            ]
        )
        for each in sums:
            self._database[schema.APP_TOTALS].update_one(
                {"app_id": each["_id"], "slot": Int64(0)},
                {"$set": {"total": Int64(each["total"])}},
                upsert=True,
            )

    def finish(self) -> int:
        """Let servers start on the database; return the version of its schema."""
        version = self._migrate(migration.finish_import)
        self._progress.drop()
        return version

    def _migrate(self, step: migration.ImportStep) -> int:
        """Run a step of the schema, without a time limit: to build an index takes minutes."""

        async def run() -> int:
            clients = open_clients(
                self._uri,
                name="credit-server import",
                timeout_seconds=self._timeout_seconds,
                answers_are_timed=False,
            )
            try:
                return await step(
                    clients.reading.get_database(
                        self._database.name, write_concern=WriteConcern("majority")
                    )
                )
            finally:
                await clients.close()

        return asyncio.run(run())


def _rejected(collection: str, error: BulkWriteError) -> StoreError:
    details = (error.details or {}).get("writeErrors") or [{}]
    reason = details[0].get("errmsg", str(error))
    return StoreError(f"the database does not accept a document of {collection}: {reason}")
