"""Leases: at most one process does a kind of work. MongoDB's clock decides when a lease ends."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from bson.int64 import Int64
from pymongo import ReturnDocument
from pymongo.errors import PyMongoError

from credit_server.store.driver import Collection
from credit_server.store.port import StoreError

# A killed process blocks the next one for at most this time.
_SECONDS = 15.0
_RENEWAL_SECONDS = 3.0
_POLL_SECONDS = 0.5


async def take_lease(leases: Collection, name: str, owner: str, seconds: float) -> bool:
    """Take a lease, or extend it; return whether the owner has it.

    Args:
        leases: The collection of leases.
        name: The kind of work.
        owner: The process.
        seconds: How long the lease lasts, from 0. 0 releases it.
    """
    # A lease that was never taken counts as ended.
    ended = {"$lte": [{"$ifNull": ["$until", "$$NOW"]}, "$$NOW"]}
    free = {"$or": [{"$eq": ["$owner", {"$literal": owner}]}, ended]}
    until = {"$add": ["$$NOW", Int64(seconds * 1000)]}
    taken = {
        "owner": {"$cond": [free, {"$literal": owner}, "$owner"]},
        "until": {"$cond": [free, until, "$until"]},
    }
    lease = await leases.find_one_and_update(
        {"_id": name}, [{"$set": taken}], upsert=True, return_document=ReturnDocument.AFTER
    )
    return lease is not None and bool(lease["owner"] == owner)


class Lease:
    """A lease that a process has, until another one takes it after its end."""

    def __init__(self, leases: Collection, name: str, owner: str) -> None:
        self._leases = leases
        self._name = name
        self._owner = owner

    async def extend(self) -> None:
        """Extend the lease.

        Raises:
            StoreError: Another process has taken it, because this one was paused for too long.
        """
        if not await take_lease(self._leases, self._name, self._owner, _SECONDS):
            raise StoreError(
                f"another process has taken over the {self._name}, because this one was paused: no"
                " data is damaged; run the command again"
            )

    async def extend_always(self) -> None:
        """Extend the lease for as long as this runs, also while MongoDB does not answer."""
        while True:
            await asyncio.sleep(_RENEWAL_SECONDS)
            with suppress(PyMongoError):  # the next command of the work fails too
                await self.extend()


@asynccontextmanager
async def held(
    leases: Collection, name: str, *, on_wait: Callable[[], None]
) -> AsyncIterator[Lease]:
    """Hold a lease for as long as the context lasts; wait until it is free.

    Args:
        leases: The collection of leases.
        name: The kind of work.
        on_wait: Called once if another process has the lease.
    """
    owner = secrets.token_hex(8)
    if not await take_lease(leases, name, owner, _SECONDS):
        on_wait()
        # Another process, which may be on another machine, has the lease: nothing can be awaited.
        while not await take_lease(leases, name, owner, _SECONDS):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
    lease = Lease(leases, name, owner)
    extending = asyncio.create_task(lease.extend_always())
    try:
        yield lease
    finally:
        extending.cancel()
        with suppress(asyncio.CancelledError, StoreError):
            await extending
        with suppress(PyMongoError):  # the lease expires anyway
            await take_lease(leases, name, owner, 0)
