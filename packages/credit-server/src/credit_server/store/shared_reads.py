"""Reads that share queries: reads that arrive while queries run join the next one.

A read returns what was acknowledged before it began. So it never joins a query that was already
sent, only one that is sent later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from itertools import islice
from typing import Generic, TypeVar

_Value = TypeVar("_Value")
_Answer = asyncio.Future[_Value | None]


class SharedReads(Generic[_Value]):
    """Reads values by key. A lone read is sent at once; under load many reads share a query."""

    def __init__(
        self,
        query: Callable[[Sequence[int]], Awaitable[Mapping[int, _Value]]],
        *,
        at_once: int = 2,
        keys_max: int = 128,
    ) -> None:
        """Prepare to read.

        Args:
            query: Returns the values of some keys, without those that have none. It ends in a
                limited time.
            at_once: The number of queries that may run at once, from 1. With 1, all reads would
                wait while its connection hangs.
            keys_max: The most keys of a query, from 1. It limits the memory of a query.
        """
        self._query = query
        self._at_once = at_once
        self._keys_max = keys_max
        self._tasks: set[asyncio.Task[None] | None] = set()
        self._starting = False
        # The reads that no query was sent for, in the order of arrival. Each has its own future:
        # the cancellation of one read must not end the others.
        self._waiting: dict[int, list[_Answer[_Value]]] = {}

    async def read(self, key: int) -> _Value | None:
        """Return the value of a key, as it is now or later; None if there is none.

        Raises:
            Exception: The query raised it.
        """
        loop = asyncio.get_running_loop()
        answer: _Answer[_Value] = loop.create_future()
        self._waiting.setdefault(key, []).append(answer)
        if not self._starting and len(self._tasks) < self._at_once:
            self._starting = True
            # The query belongs to no single call, so it does not run in the context of this one.
            self._tasks.add(loop.create_task(self._run(), context=Context()))
        return await answer

    async def _run(self) -> None:
        """Send queries until no read waits."""
        self._starting = False
        try:
            while self._waiting:
                keys = list(islice(self._waiting, self._keys_max))
                await self._ask({key: self._waiting.pop(key) for key in keys})
        finally:
            # Not in a done callback: a read that arrives before it runs would wait for this task.
            self._tasks.discard(asyncio.current_task())

    async def _ask(self, reads: Mapping[int, Sequence[_Answer[_Value]]]) -> None:
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
