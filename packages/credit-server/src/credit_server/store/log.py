"""Read the log of committed transactions: a change stream of MongoDB.

A change stream has the committed inserts in the order of their commits. It runs in a thread, on the
blocking driver, which is the same for both drivers of reads. The thread passes everything that has
arrived to the event loop in one step. See https://www.mongodb.com/docs/manual/changeStreams/.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from bson.timestamp import Timestamp
from pymongo import MongoClient
from pymongo.change_stream import CollectionChangeStream
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from credit_server.store import schema
from credit_server.store.errors import translate, translated
from credit_server.store.fields import TEXT_ERRORS
from credit_server.store.port import (
    LogEntry,
    LogPage,
    LogPosition,
    LogTruncated,
    StoreUnavailable,
)
from credit_server.store.rows import transaction_row

# How long mongod waits for a transaction before it returns an empty part of the log. A follower
# that is stopped ends after this time at the latest.
_AWAIT_SECONDS = 0.5

# The same time for a read that searches for the end of the log.
_AWAIT_END_MILLISECONDS = 20

# A follower reads for this long, and then pauses for this long. Under load, one read then has the
# transactions of several commits. Reading each commit alone takes a third of the CPU of a write.
_PAUSE_SECONDS = 0.015

# The most entries that wait for the event loop. A thread pauses when it has this many.
_WAITING_MAX = 4096

# Rows have times in milliseconds. Decoding whole documents takes 12 µs an entry, and decoding only
# what is read takes 17 µs: PyMongo's raw documents are Python (2-core machine).
_LISTED = CodecOptions[dict[str, Any]](
    datetime_conversion=DatetimeConversion.DATETIME_MS, unicode_decode_error_handler=TEXT_ERRORS
)

# The first byte of a resume token, which is the type of the time after it, and where the time ends.
_TIME_TYPE, _TIME_END = 0x82, 9

_NOT_NEEDED = {
    "fullDocument.request": False,
    "documentKey": False,
    "lsid": False,
    "ns": False,
    "operationType": False,
    "txnNumber": False,
    "wallTime": False,
}


_Stream = CollectionChangeStream[dict[str, Any]]


class MongoLog:
    """The log of a database."""

    def __init__(
        self, client: MongoClient[dict[str, Any]], database: str, *, timeout_seconds: float
    ) -> None:
        """Prepare to read; nothing is sent yet.

        Args:
            client: The blocking client.
            database: The name of the database.
            timeout_seconds: How long the client waits for an answer.
        """
        self._collection = client[database].get_collection(
            schema.CREDIT_TRANSACTIONS, codec_options=_LISTED, read_concern=ReadConcern("majority")
        )
        self._await_milliseconds = int(min(_AWAIT_SECONDS, timeout_seconds / 2) * 1000)
        self._followers: set[_Follower] = set()

    async def follow(self) -> AsyncGenerator[LogPage, None]:
        """Iterate over what is committed from now on: see the port."""
        follower = _Follower(partial(self._open, self._await_milliseconds))
        self._followers.add(follower)
        follower.start()
        try:
            while True:
                yield await follower.next_page()
        finally:
            follower.stop()
            self._followers.discard(follower)

    def page(self, after: bytes, app_id: int, *, limit: int) -> LogPage:
        """Return the transactions in an app after a position: see the port. It blocks."""
        with translated(), self._open(_AWAIT_END_MILLISECONDS, after, app_id) as stream:
            entries: list[LogEntry] = []
            while len(entries) < limit:
                entry = _next_entry(stream)
                if entry is None:
                    return LogPage(entries, _end_of(stream), at_end=True)
                if entry.position.token > after:
                    entries.append(entry)
            return LogPage(entries, entries[-1].position, at_end=False)

    async def close(self) -> None:
        """End all threads."""
        for follower in list(self._followers):
            follower.stop()
            await asyncio.to_thread(follower.join)

    @contextmanager
    def _open(
        self, await_milliseconds: int, after: bytes | None = None, app_id: int | None = None
    ) -> Iterator[_Stream]:
        """Open a change stream.

        Raises:
            LogTruncated: The log does not have the position.
        """
        match: dict[str, Any] = {"operationType": "insert"}
        if app_id is not None:
            match["fullDocument.app_id"] = app_id
        # The stream starts at a time, because mongod does not find the transaction of a token if
        # the filter excludes it. The time is one tick early: until mongod has read an entry, it
        # returns this time as its position, which then does not include the token's own time.
        start = None if after is None else _timestamp_before(after)
        try:
            changes = self._collection.watch(
                [{"$match": match}, {"$project": _NOT_NEEDED}],
                start_at_operation_time=start,
                max_await_time_ms=await_milliseconds,
                # The driver has the position of the start only after an empty first batch. Without
                # this, opening the log failed in 69 of 300 attempts on a busy database.
                batch_size=0 if start is None else None,
            )
        except OperationFailure as error:
            # mongod has several errors for a time that is before the begin of its log.
            if after is None or translate(error) is not None:
                raise
            raise LogTruncated(f"the log does not have the position: {error}") from error
        with changes:
            yield changes


class _Follower(threading.Thread):
    """A thread that reads a change stream until it is stopped."""

    def __init__(self, open_: Callable[[], AbstractContextManager[_Stream]]) -> None:
        super().__init__(name="credit-log", daemon=True)
        self._open = open_
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = threading.Lock()
        self._room = threading.Event()
        self._stopped = False
        # What has arrived and was not taken.
        self._entries: list[LogEntry] = []
        self._end = LogPosition(0, b"")
        self._error: Exception | None = None

    def run(self) -> None:
        """Read until the follower is stopped, or reading fails."""
        try:
            with translated(), self._open() as stream:
                start = _start_of(stream)
                self._put(None, start)
                paused_at = time.monotonic()
                while not self._stopped:
                    entry = _next_entry(stream)
                    end = _end_of(stream) if entry is None else entry.position
                    # While the token is that of the start, mongod has read nothing.
                    self._put(entry, start if end.token == start.token else end)
                    if time.monotonic() - paused_at > _PAUSE_SECONDS:
                        time.sleep(_PAUSE_SECONDS)
                        paused_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - the follower raises it
            self._error = error
            self._notify()

    def stop(self) -> None:
        """End the thread soon."""
        self._stopped = True
        self._room.set()

    async def next_page(self) -> LogPage:
        """Return everything that has arrived, once something has."""
        await self._arrived.wait()
        self._arrived.clear()
        with self._lock:
            entries, self._entries = self._entries, []
            # Read together: the end must not be after an entry that is not in this page.
            end = entries[-1].position if entries else self._end
        self._room.set()
        if not entries and self._error is not None:
            raise self._error
        if self._error is not None:
            self._arrived.set()  # the error is raised next
        return LogPage(entries, end, at_end=True)

    def _put(self, entry: LogEntry | None, end: LogPosition) -> None:
        with self._lock:
            if entry is not None:
                self._entries.append(entry)
            self._end = end
            waiting = len(self._entries)
        # One notification for all entries that arrive before the event loop takes them.
        if waiting <= 1:
            self._notify()
        while waiting >= _WAITING_MAX and not self._stopped:
            self._room.clear()
            with self._lock:
                waiting = len(self._entries)
            # Tested again: clearing the event may have hidden that the follower was stopped.
            if waiting >= _WAITING_MAX and not self._stopped:
                self._room.wait()

    def _notify(self) -> None:
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._arrived.set)


def _next_entry(stream: _Stream) -> LogEntry | None:
    """Return the next entry; None if there is none yet."""
    change = stream.try_next()
    if change is None:
        if not stream.alive:
            raise StoreUnavailable("MongoDB has ended the stream of changes")
        return None
    document = change["fullDocument"]
    position = LogPosition(_time(change["clusterTime"]), bytes.fromhex(change["_id"]["_data"]))
    row = partial(transaction_row, document)
    return LogEntry(position, _number(document, "user_id"), _number(document, "app_id"), row)


# Any: values of BSON.
def _number(document: dict[str, Any], name: str) -> int:
    """Return a number of an entry, or 0, which no watch selects, if it is no number."""
    value = document.get(name)
    return value if isinstance(value, int) else 0


def _start_of(stream: _Stream) -> LogPosition:
    """Return a position after which a new change stream misses nothing.

    mongod starts the stream one tick after its latest time. On an idle database, it writes nothing
    at that tick for up to 10 s, so a read that requires this time would wait or fail. The tick
    before is enough: the stream has all later entries.
    """
    end = _end_of(stream)
    return LogPosition(end.time - 1, end.token)


def _end_of(stream: _Stream) -> LogPosition:
    """Return the position up to which a change stream was read.

    An empty answer need not be the end of the log: mongod also sends one when its time is over. Its
    `operationTime` is the end of the log, so a catch-up that relied on it missed transactions.
    """
    token = stream.resume_token
    if token is None:
        raise StoreUnavailable("MongoDB has not returned its position in the log")
    data = bytes.fromhex(token["_data"])
    return LogPosition(_time_of(data), data)


def timestamp_of(position: LogPosition) -> Timestamp:
    """Return MongoDB's time of a position."""
    return Timestamp(*divmod(position.time, 1 << 32))


def _time_of(token: bytes) -> int:
    """Return the time in a resume token: a KeyString with the cluster time after its type.

    See https://github.com/mongodb/mongo/blob/v6.0/src/mongo/db/pipeline/resume_token.h.
    """
    return int.from_bytes(token[1:_TIME_END], "big")


def _timestamp_before(token: bytes) -> Timestamp:
    """Return MongoDB's time one tick before that of a resume token.

    Raises:
        LogTruncated: The token was never made.
    """
    # The tick before must be at least 1, because time 0 means now to mongod.
    if len(token) < _TIME_END or token[0] != _TIME_TYPE or _time_of(token) < 2:
        raise LogTruncated("the log does not have the position: it is no token of a log")
    return timestamp_of(LogPosition(_time_of(token) - 1, token))


def _time(timestamp: Timestamp) -> int:
    return (timestamp.time << 32) | timestamp.inc
