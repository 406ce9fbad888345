"""Slots for lists: a hundred lists at once must not hold up other calls."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from credit_models.timeouts import Timeout

from credit_server.admission.decision import Decision, NotAdmitted

LIST_WAIT_SECONDS_MAX = 5.0
"""The longest time that a list waits for a slot."""

_RETRY_SECONDS = 1.0

_Lists = OrderedDict["asyncio.Future[None]", None]
"""The lists of one caller that wait for a slot, as the futures that grant it."""


class ListSlots:
    """Bounds how many pages are read and encoded at the same time. Shared by all lists.

    While a page is made, it is held three times: as documents, as rows and as bytes. And a list
    that reads from the store occupies one of the driver's few threads. A slot is released before
    anything is sent, so that no client can keep one.

    Slots are shared round-robin between the callers that have lists waiting, not between lists: a
    caller with hundreds of lists waits for its own lists, and another caller's list is next.
    """

    def __init__(
        self, *, at_once: int = 4, wait_seconds_max: float = LIST_WAIT_SECONDS_MAX
    ) -> None:
        """Start with all slots free.

        Args:
            at_once: The number of slots, from 1.
            wait_seconds_max: How long a list waits for a slot, above 0.
        """
        self._free = at_once
        self._wait_seconds_max = wait_seconds_max
        # The callers in the order in which they are served, each with its lists in the order of
        # their arrival. No list waits while a slot is free.
        self._waiting: OrderedDict[str, _Lists] = OrderedDict()

    @asynccontextmanager
    async def slot(self, caller: str) -> AsyncIterator[None]:
        """Wait for a slot, and hold it while the context lasts.

        Args:
            caller: The caller of the list: lists of one caller wait for each other.

        Raises:
            NotAdmitted: No slot became free in time.
        """
        await self._acquire(caller)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, caller: str) -> None:
        if self._free:
            self._free -= 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lists = self._waiting.setdefault(caller, OrderedDict())
        lists[granted] = None
        try:
            async with Timeout(self._wait_seconds_max):
                await granted
        except TimeoutError:
            self._give_up(granted, lists)
            raise NotAdmitted(
                Decision.LIST_SLOTS,
                "more lists are requested than can be read in time",
                retry_seconds=_RETRY_SECONDS,
            ) from None
        except BaseException:
            self._give_up(granted, lists)
            raise

    def _give_up(self, granted: "asyncio.Future[None]", lists: _Lists) -> None:
        if granted.done() and not granted.cancelled():
            self._release()  # the slot was granted at the same moment
        else:
            lists.pop(granted, None)

    def _release(self) -> None:
        """Grant the slot to the next caller's oldest list that still waits, or free it."""
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


class CallerSlots:
    """Bounds how many lists of each caller run at once on one connection.

    A proxy sends many callers' calls over one connection: lists of one caller wait for each other
    only.
    """

    def __init__(self, lists_max: int) -> None:
        self._lists_max = lists_max
        # Each semaphore is kept alive by the lists that hold it or wait for it.
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, caller: str) -> asyncio.Semaphore:
        """Return a caller's slots; each of its running lists holds one."""
        slots = self._slots.get(caller)
        if slots is None:
            slots = self._slots[caller] = asyncio.Semaphore(self._lists_max)
        return slots
