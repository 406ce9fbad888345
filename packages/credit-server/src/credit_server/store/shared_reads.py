"""Reads that share queries: reads that arrive while queries run join the next one.

A read returns what was acknowledged before it began. So it never joins a query that was already
sent, only one that is sent later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextvars import Context
from itertools import islice
from typing import Any, Generic, TypeVar

from credit_server.store.port import StoreUnavailable

LATE = "MongoDB did not answer in time"

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")
_Answer = asyncio.Future[_Value | None]


class SharedReads(Generic[_Key, _Value]):
    """Reads values by key. A lone read is sent at once; under load many reads share a query.

    One query runs at a time, so that as many reads as possible share the next one. With two at a
    time, queries are smaller, and a read costs a quarter more CPU (128 callers). Only while a query
    is slow, a second one runs at the same time, because the connection of the first may hang.
    """

    def __init__(
        self,
        query: Callable[[Sequence[_Key]], Awaitable[Mapping[_Key, _Value]]],
        *,
        seconds_max: float,
        slow_seconds: float = 0.02,
        at_once: int = 2,
        keys_max: int = 128,
    ) -> None:
        """Prepare to read.

        Args:
            query: Returns the values of some keys, without those that have none. It ends in a
                limited time.
            seconds_max: How long a read may take, above 0.
            slow_seconds: How long a query runs until another one may start beside it, from 0.
            at_once: The number of queries that may run at once, from 1.
            keys_max: The most keys of a query, from 1. It limits the memory of a query.
        """
        self._query = query
        self._seconds_max = seconds_max
        self._slow_seconds = slow_seconds
        self._at_once = at_once
        self._keys_max = keys_max
        self._tasks: set[asyncio.Task[None]] = set()
        # The reads whose query is slow.
        self._slow: set[asyncio.Task[None]] = set()
        # The reads that no query was sent for, in the order of arrival. Each has its own future:
        # the cancellation of one read must not end the others.
        self._waiting: dict[_Key, list[_Answer[_Value]]] = {}

    async def read(self, key: _Key) -> _Value | None:
        """Return the value of a key, as it is now or later; None if there is none.

        Raises:
            StoreUnavailable: The read took too long.
            Exception: The query raised it.
        """
        loop = asyncio.get_running_loop()
        answer: _Answer[_Value] = loop.create_future()
        self._waiting.setdefault(key, []).append(answer)
        self._start()
        # A timer, because `asyncio.timeout` takes 14 µs per read.
        timer = loop.call_later(self._seconds_max, _expire, answer)
        try:
            return await answer
        finally:
            timer.cancel()

    def _start(self) -> None:
        """Start to send queries if reads wait and all running queries are slow."""
        if self._waiting and len(self._tasks) == len(self._slow) < self._at_once:
            # The query belongs to no single call, so it does not run in the context of this one.
            task = asyncio.get_running_loop().create_task(self._run(), context=Context())
            self._tasks.add(task)

    async def _run(self) -> None:
        """Send queries until no read waits, or another task sends them."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        try:
            while self._waiting and len(self._tasks) - len(self._slow) <= 1:
                keys = list(islice(self._waiting, self._keys_max))
                timer = task.get_loop().call_later(self._slow_seconds, self._is_slow, task)
                try:
                    await self._ask({key: self._waiting.pop(key) for key in keys})
                finally:
                    timer.cancel()
                    self._slow.discard(task)
        finally:
            # Not in a done callback: a read that arrives before it runs would wait for this task.
            self._tasks.discard(task)

    def _is_slow(self, task: asyncio.Task[None]) -> None:
        self._slow.add(task)
        self._start()

    async def _ask(self, reads: Mapping[_Key, Sequence[_Answer[_Value]]]) -> None:
        """Answer reads with one query."""
        answers = [(key, answer) for key, some in reads.items() for answer in some]
        # A read whose caller has left needs no query.
        wanted = list(dict.fromkeys(key for key, answer in answers if not answer.done()))
        if not wanted:
            return
        try:
            found = await self._query(wanted)
            for key, answer in answers:
                if not answer.done():
                    answer.set_result(found.get(key))
        except Exception as error:  # noqa: BLE001 - the reads raise it
            for _, answer in answers:
                if not answer.done():
                    answer.set_exception(error)
        finally:
            for _, answer in answers:
                answer.cancel()  # no effect unless this task was cancelled


# Any: a future of any value.
def _expire(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(StoreUnavailable(LATE))
