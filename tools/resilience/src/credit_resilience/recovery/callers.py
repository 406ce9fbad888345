"""Callers that write continuously, and what they experience while something breaks."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from credit_client import ClientSettings, CreditClient, CreditError

CALLERS = 8
APP_ID = 1

_PAUSE_SECONDS = 0.02
_POLL_SECONDS = 0.05


class Damaged(Exception):
    """The ledger lost a write, or applied one twice; the message has the findings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experience:
    """What the callers experienced from a fault until all of them were served again.

    Attributes:
        longest_seconds: The longest time that a write waited for its answer after the fault.
        acknowledged: How many writes were acknowledged.
        failed: The errors of the writes that failed, after the SDK's own retries.
    """

    longest_seconds: float
    acknowledged: int
    failed: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Write:
    """A write that ended. Times are from `time.monotonic`. Without an error it was acknowledged."""

    user_id: int
    began: float
    ended: float
    error: str | None


class Callers:
    """Callers that share a client. Each sends one write after another for its own user."""

    def __init__(self, client: CreditClient) -> None:
        self._client = client
        self._writes: list[_Write] = []

    async def through(self, fault: Awaitable[object]) -> Experience:
        """Cause a fault while all callers write, and wait until all of them are served again."""
        await self.served()
        since = time.monotonic()
        await fault
        await self.served()
        writes = [write for write in self._writes if write.ended >= since]
        return Experience(
            longest_seconds=max(write.ended - max(write.began, since) for write in writes),
            acknowledged=sum(write.error is None for write in writes),
            failed=[write.error for write in writes if write.error is not None],
        )

    async def served(self) -> None:
        """Wait until each caller has an answer to a write that begins after this call."""
        now = time.monotonic()
        while len(self._served_since(now)) < CALLERS:  # noqa: ASYNC110 - called a few times
            await asyncio.sleep(_POLL_SECONDS)

    async def unexplained(self) -> list[str]:
        """Return each user whose balance is not the sum of the acknowledged writes.

        A write that failed, and the last one, which was cancelled, may have been applied.
        """
        found: list[str] = []
        for user_id in _users():
            own = [write for write in self._writes if write.user_id == user_id]
            acknowledged = sum(write.error is None for write in own)
            balance = await self._client.balance(app_id=APP_ID, user_id=user_id)
            if not acknowledged <= balance <= len(own) + 1:
                found.append(f"user {user_id}: {acknowledged} acknowledged, balance {balance}")
        return found

    async def write(self, user_id: int) -> None:
        """Write for a user until cancelled."""
        while True:
            began, error = time.monotonic(), None
            try:
                await self._client.add(user_id=user_id, app_id=APP_ID, credits=1, created_by=1)
            except CreditError as failure:
                error = f"{type(failure).__name__}: {failure}"
            self._writes.append(
                _Write(user_id=user_id, began=began, ended=time.monotonic(), error=error)
            )
            await asyncio.sleep(_PAUSE_SECONDS)

    def _served_since(self, moment: float) -> set[int]:
        return {
            write.user_id for write in self._writes if write.began >= moment and write.error is None
        }


@asynccontextmanager
async def calling(settings: ClientSettings) -> AsyncIterator[Callers]:
    """Run callers that write during the context.

    Raises:
        Damaged: At the end a balance is not the sum of the acknowledged writes.
    """
    async with CreditClient(settings=settings) as client:
        callers = Callers(client)
        writing = [asyncio.create_task(callers.write(user_id)) for user_id in _users()]
        try:
            yield callers
        finally:
            for each in writing:
                each.cancel()
            await asyncio.gather(*writing, return_exceptions=True)
        if unexplained := await callers.unexplained():
            raise Damaged("; ".join(unexplained))


def _users() -> range:
    return range(1, CALLERS + 1)
