"""Lets the pages of all lists be made in turns, so that a hundred lists at once hold up nobody."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from credit_server.api import refusal

_RETRY_SECONDS = 1.0

_Lists = OrderedDict["asyncio.Future[None]", None]
"""The lists of one caller that wait for a turn, as the futures that grant it."""


class PageTurns:
    """Bounds how many pages are read and made into bytes at the same time. Shared by all lists.

    While a page is made, it is held three times over: as documents, as entries and as bytes. And
    a list that reads from the store has one of the driver's few threads. A turn ends before
    anything is sent, so that no client can keep one.

    Turns are shared round-robin between the callers that have lists waiting, not between lists: a
    caller with hundreds of lists waits for its own lists, and another caller's list is next.
    """

    def __init__(self, *, at_once: int = 4, wait_seconds_max: float = 5.0) -> None:
        """Make turns.

        Args:
            at_once: How many pages may be made at once, from 1.
            wait_seconds_max: How long a list waits for its turn, above 0.
        """
        self._free = at_once
        self._wait_seconds_max = wait_seconds_max
        # The callers in the order in which they are served, each with its lists in the order of
        # their arrival. No list waits while a turn is free.
        self._waiting: OrderedDict[str, _Lists] = OrderedDict()

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it for as long as the context lasts.

        Args:
            caller: Whose turn it is: lists of one caller wait for each other.

        Raises:
            GRPCError: No turn came in time; UNAVAILABLE.
        """
        await self._begin(caller)
        try:
            yield
        finally:
            self._end()

    async def _begin(self, caller: str) -> None:
        if self._free:
            self._free -= 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lists = self._waiting.setdefault(caller, OrderedDict())
        lists[granted] = None
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await granted
        except TimeoutError:
            self._give_up(granted, lists)
            raise refusal.too_many_lists(_RETRY_SECONDS) from None
        except BaseException:
            self._give_up(granted, lists)
            raise

    def _give_up(self, granted: "asyncio.Future[None]", lists: _Lists) -> None:
        if granted.done() and not granted.cancelled():
            self._end()  # the turn came at the same moment
        else:
            lists.pop(granted, None)

    def _end(self) -> None:
        """Give the turn to the next caller's oldest list that still waits, or back."""
        while self._waiting:
            caller, lists = self._waiting.popitem(last=False)
            while lists:
                granted, _ = lists.popitem(last=False)
                if granted.cancelled():
                    continue
                granted.set_result(None)
                if lists:
                    self._waiting[caller] = lists  # after all other callers
                return
        self._free += 1
