"""Lets the pages of all lists be made in turns, so that a hundred lists at once hold up nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from credit_server.transport import refusal

_RETRY_SECONDS = 1.0


class PageTurns:
    """Bounds how many pages are read and made into bytes at the same time. Shared by all lists.

    While it is made, a page is held three times over: as documents, as entries and as bytes. And
    who waits for the store has one of the driver's few threads. A turn ends before anything is
    sent, so that no client can keep one.
    """

    def __init__(self, *, at_once: int = 4, wait_seconds_max: float = 5.0) -> None:
        """Make turns.

        Args:
            at_once: How many pages may be made at once, from 1.
            wait_seconds_max: How long a list waits for its turn, above 0.
        """
        self._free = asyncio.Semaphore(at_once)
        self._wait_seconds_max = wait_seconds_max

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it for as long as the context lasts.

        Raises:
            GRPCError: None came in time; UNAVAILABLE.
        """
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await self._free.acquire()
        except TimeoutError:
            raise refusal.too_many_lists(_RETRY_SECONDS) from None
        try:
            yield
        finally:
            self._free.release()
