"""Callers that write all the time, and what they experience while something breaks.

The interpreter of an earlier release runs this file as a program: see `main`. So it may import
only what that release of the SDK has.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, TypeVar

from aiohappyeyeballs import AddrInfoType, addr_to_addr_infos
from credit_client import ClientSettings, CreditClient, CreditError, Outcome
from credit_client.grpc_transport import GrpcTransport, connect
from credit_client.target import Target

CALLERS = 8
APP_ID = 1

_PAUSE_SECONDS = 0.02
_POLL_SECONDS = 0.05
_GRANT_LIFE = timedelta(days=1)

_TIMES = {Outcome.APPLIED: (1,), Outcome.NO_CHANGE: (0,), Outcome.UNKNOWN: (0, 1)}
"""How often a write may be in the history, by its outcome."""

_ResultT = TypeVar("_ResultT")


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
    """A write that ended.

    Attributes:
        user_id: The user.
        key: The idempotency key of the write.
        began: When the write began, in seconds of `time.monotonic`.
        ended: When the write ended.
        error: The reason of the failure; None: the write was acknowledged.
        outcome: What the write did to the ledger.
    """

    user_id: int
    key: str
    began: float
    ended: float
    error: str | None
    outcome: Outcome


class Callers:
    """Callers that share a client. Each writes for a user of its own, one write after another."""

    def __init__(self, client: CreditClient, users: Sequence[int], *, kinds: bool) -> None:
        """Write nothing yet.

        Args:
            client: The client.
            users: A user for each caller.
            kinds: Whether they make grants, holds, purchases and refunds besides additions.
        """
        self._client = client
        self._users = users
        self._kinds = kinds
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
        while len(self._served_since(now)) < len(self._users):  # noqa: ASYNC110 - called a few times
            await asyncio.sleep(_POLL_SECONDS)

    async def unexplained(self) -> list[str]:
        """Return each write that is in the history of its user too often, or not often enough.

        A write that was acknowledged must be there once, and a write without an effect must not be
        there. A write with an unknown outcome may be there once. The last write was cancelled, so
        its outcome is unknown too.
        """
        found: list[str] = []
        for user_id in self._users:
            history = self._client.transactions(user_id=user_id)
            # An entry that was due by time, or that belongs to another entry, has no key.
            times = Counter([entry.idempotency_key async for entry in history])
            del times[""]
            for write in self._writes:
                if write.user_id == user_id:
                    count = times.pop(write.key, 0)
                    if count not in _TIMES[write.outcome]:
                        found.append(f"{write} is in the history {count} times")
            found += [f"no caller of user {user_id} has made the write {key}" for key in times]
        return found

    async def write(self, user_id: int) -> None:
        """Write for a user until cancelled."""
        # Any: the arguments of a call have no common type.
        who: dict[str, Any] = {"user_id": user_id, "app_id": APP_ID, "created_by": 1}
        while True:
            await self._done(self._client.add, credits=1, **who)
            await asyncio.sleep(_PAUSE_SECONDS)
            if self._kinds:
                await self._write_each_kind(who)

    # Any: see `write`.
    async def _write_each_kind(self, who: dict[str, Any]) -> None:
        """Grant a credit, hold and capture it, and buy a report with another one and return it."""
        client = self._client
        await self._done(client.grant, credits=1, expires_after=_GRANT_LIFE, **who)
        hold = await self._done(client.place_hold, credits=1, **who)
        report: dict[str, Any] = {"report_id": client.new_key(), "report_name": "Report"}
        if hold is not None:
            await self._done(client.capture_hold, hold_id=hold.transaction_id, **report, **who)
        bought = await self._done(client.use, credits=1, **report, **who)
        if bought is not None:
            await self._done(client.refund, bought, **who)

    async def _done(
        self, write: Callable[..., Awaitable[_ResultT]], *of: object, **fields: Any
    ) -> _ResultT | None:
        """Make a write, record its outcome, and return its result, if any. Any: see `write`."""
        key, began = self._client.new_key(), time.monotonic()
        error: str | None = "cancelled"
        outcome = Outcome.UNKNOWN
        try:
            result = await write(*of, idempotency_key=key, **fields)
            error, outcome = None, Outcome.APPLIED
            return result
        except CreditError as failure:
            error, outcome = f"{type(failure).__name__}: {failure}", failure.outcome
            return None
        finally:
            self._writes.append(
                _Write(
                    user_id=fields["user_id"],
                    key=key,
                    began=began,
                    ended=time.monotonic(),
                    error=error,
                    outcome=outcome,
                )
            )

    def _served_since(self, moment: float) -> set[int]:
        return {
            write.user_id for write in self._writes if write.began >= moment and write.error is None
        }


@asynccontextmanager
async def calling(
    settings: ClientSettings,
    *,
    hosts: Sequence[str] = (),
    first_user_id: int = 1,
    kinds: bool = False,
) -> AsyncIterator[Callers]:
    """Let callers write during the context.

    Args:
        settings: Of their client.
        hosts: The IP addresses of the target's name; none: a resolver finds them.
        first_user_id: The user of the first caller; the others have the users after it.
        kinds: See `Callers`.

    Raises:
        Damaged: At the end, the writes in a history are not those that it must have.
    """
    users = range(first_user_id, first_user_id + CALLERS)
    transport = _transport(settings, hosts) if hosts else None
    async with CreditClient(settings=settings, transport=transport) as client:
        callers = Callers(client, users, kinds=kinds)
        writing = [asyncio.create_task(callers.write(user_id)) for user_id in users]
        try:
            yield callers
        finally:
            for each in writing:
                each.cancel()
            await asyncio.gather(*writing, return_exceptions=True)
        if unexplained := await callers.unexplained():
            raise Damaged("; ".join(unexplained))


def _transport(settings: ClientSettings, hosts: Sequence[str]) -> GrpcTransport:
    """Return connections to a name that has these addresses, as a headless Service has."""

    async def resolve(_: str, port: int) -> Sequence[AddrInfoType]:
        return [each for host in hosts for each in addr_to_addr_infos((host, port)) or ()]

    return connect(
        Target.parse(settings.target),
        channels=settings.channels,
        resolver=resolve,
        streams=settings.streams == "auto",
    )


async def main(target: str, first_user_id: str, *hosts: str) -> None:
    """Write with the default settings until the input ends, and print the experience as JSON.

    The first line of the output is printed when all callers are served.
    """

    async def something_breaks() -> None:
        print("all callers are served", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.read)

    settings = ClientSettings(target=target)
    first = int(first_user_id)
    async with calling(settings, hosts=hosts, first_user_id=first, kinds=True) as callers:
        experience = await callers.through(something_breaks())
    print(json.dumps(asdict(experience)))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
