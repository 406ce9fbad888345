"""The driver with which the server reads: motor, or PyMongo's own asyncio client, its successor.

Only this module imports motor, which gets critical fixes only. Its objects are used as those of
PyMongo's client: they have the same methods, and the differences end here.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from inspect import isawaitable
from typing import Any, cast

from bson.timestamp import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

# Any: what the driver decodes has no narrower type.
Document = dict[str, Any]
Client = AsyncMongoClient[Document]
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]
Session = AsyncClientSession


class Driver(StrEnum):
    """The driver with which the server reads."""

    MOTOR = "motor"
    PYMONGO = "pymongo"


class Clients:
    """A client for reads on the event loop, and one for writes on threads.

    Attributes:
        reading: The client for reads.
        writing: The blocking client. With motor both are one client, and share its connections.
    """

    # Any: the options of PyMongo's clients.
    def __init__(self, uri: str, driver: Driver, **options: Any) -> None:
        """Make the clients; their first operations connect.

        Args:
            uri: A MongoDB connection string.
            driver: The driver of `reading`.
            options: Options of PyMongo's clients.

        Raises:
            PyMongoError: The connection string or an option is not valid.
            ValueError: The same.
        """
        self.writing: MongoClient[Document]
        self.reading: Client
        if driver is Driver.MOTOR:
            client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(uri, **options)
            self.reading, self.writing = cast(Client, client), client.delegate
        else:
            self.reading = AsyncMongoClient(uri, **options)
            self.writing = MongoClient(uri, connect=False, **options)

    def snapshot(self) -> AbstractAsyncContextManager[Session]:
        """Open a session whose reads see one snapshot."""
        return self._session(snapshot=True)

    @asynccontextmanager
    async def causal(self, *, since: Timestamp | None = None) -> AsyncIterator[Session]:
        """Open a session whose reads see at least what its earlier operations saw or wrote.

        Args:
            since: A time of the cluster. The first read sees at least what was committed by then.
        """
        async with self._session(causal_consistency=True) as session:
            if since is not None:
                session.advance_operation_time(since)
            yield session

    @asynccontextmanager
    async def _session(
        self, *, causal_consistency: bool | None = None, snapshot: bool | None = None
    ) -> AsyncIterator[Session]:
        opening: object = self.reading.start_session(
            causal_consistency=causal_consistency, snapshot=snapshot
        )
        session = cast(Session, await opening if isawaitable(opening) else opening)
        async with session:
            yield session

    async def close(self) -> None:
        """Close all connections."""
        closing: object = self.reading.close()
        if isawaitable(closing):
            await closing
        self.writing.close()


async def aggregate(
    collection: Collection, stages: Sequence[Document], *, hint: str, session: Session | None
) -> list[Document]:
    """Return all documents of an aggregation.

    Args:
        collection: The collection.
        stages: The stages of the aggregation.
        hint: The name of the index that the first stage uses.
        session: The session; None: none.
    """
    opening: object = collection.aggregate(stages, hint=hint, session=session)
    # Any: motor's cursor has the methods of PyMongo's.
    cursor: Any = await opening if isawaitable(opening) else opening
    return cast(list[Document], await cursor.to_list(None))
