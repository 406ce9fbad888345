"""The sweeper writes what is due by time: grants start and end, and holds end.

Balances do not depend on it, because each read and each write settles what is due. It keeps
histories, totals of apps and accounts up to date for users that make no writes.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Protocol

import structlog
from cachetools import TTLCache
from credit_models.ledger import NothingDue, Receipt, Settle

from credit_server.commit.clock import Clock
from credit_server.commit.committer import Committer
from credit_server.commit.errors import CommitError
from credit_server.commit.pending import Submission
from credit_server.repeat import Pauses, repeat
from credit_server.store.port import DueAccount, Store, StoreError

log = structlog.get_logger("credit_server.commit")

_LEASE = "sweeper"

# The requester of a `Settle`. No entry shows it, because the entries have the requester of the
# grant or hold. The numbers of real requesters start at 1.
_NOBODY = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepLimits:
    """The limits of a sweeper. Times are in seconds.

    Attributes:
        per_second: The most apps of users that are settled in a second, above 0.
        chunk: The most apps of users that are settled at once, from 1. It is less than a batch, so
            that writes of callers fit in the same batch.
        entries: The most grants and holds that are settled at once, unless one app of a user alone
            has more, which can be 256 grants and 256 holds. All writes of a shard wait for its
            batch, and 512 entries take 0.15 s.
        interval_seconds: The pause between two sweeps.
        lease_seconds: For how long a process is the only one that sweeps. If it crashes, the next
            process sweeps after at most this time.
        backoff_seconds_max: The longest pause after failed sweeps. It doubles with each failure.
        skip_seconds: For how long an account that cannot be settled is skipped.
    """

    per_second: float = 200.0
    chunk: int = 64
    entries: int = 512
    interval_seconds: float = 1.0
    lease_seconds: float = 15.0
    backoff_seconds_max: float = 30.0
    skip_seconds: float = 600.0


class SweepObserver(Protocol):
    """Receives the progress of the sweeper. Its methods must be quick and must not raise."""

    def swept(self, settled: int, lag_seconds: float) -> None:
        """Note the progress of a sweep.

        Args:
            settled: How many apps of users were settled since the last call.
            lag_seconds: For how long the oldest entry that was found has been due; 0 if nothing is
                due, or if another process sweeps. After a failed search, the time since the latest
                successful one is added, because the oldest entry may be due for so long.
        """


class Sweeper:
    """Settles accounts through the committer, in the order in which they became due.

    A lease leaves the work to one process. If two processes sweep at once, no entry is written
    twice: the second one finds nothing due.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        clock: Clock,
        observer: SweepObserver,
        limits: SweepLimits | None = None,
        *,
        random: Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; `run` sweeps.

        Args:
            store: Returns what is due, and keeps the lease.
            committer: Commits the entries.
            clock: The clock for new entries.
            observer: Receives what was settled.
            limits: The limits; None: the defaults.
            random: For jitter; not for secrets.
            monotonic: A clock in seconds.
        """
        self._store = store
        self._committer = committer
        self._clock = clock
        self._observer = observer
        self._limits = limits or SweepLimits()
        self._random = random or Random()  # noqa: S311 - jitter needs no secrecy
        self._owner = store.new_id()
        self._monotonic = monotonic
        self._lag, self._searched_at = 0.0, monotonic()
        self._extend_at = monotonic()
        self._skipped: TTLCache[int, None] = TTLCache(
            10_000, ttl=self._limits.skip_seconds, timer=monotonic
        )

    async def run(self) -> None:
        """Sweep until cancelled.

        An error does not end the server. Otherwise each server that gets the lease next would end
        too.
        """
        await repeat(
            self._observed_sweep,
            Pauses(
                interval_seconds=self._limits.interval_seconds,
                backoff_seconds_max=self._limits.backoff_seconds_max,
            ),
            random=self._random,
            log=log,
            warning="the sweeper could not write due entries; it retries",
            expected=(StoreError, CommitError),
        )

    async def _observed_sweep(self) -> None:
        """Sweep. After a failure, report how long the search is overdue."""
        try:
            await self.sweep()
        except Exception:
            self._observer.swept(0, self._lag + self._monotonic() - self._searched_at)
            raise

    async def sweep(self) -> None:
        """Settle all accounts in which something is due, unless another process does.

        Raises:
            StoreError: The store cannot be reached.
            CommitError: The server is overloaded or stops, or the store is unavailable.
        """
        limits = self._limits
        after: DueAccount | None = None
        while await self._has_lease():
            now = self._clock.now().now
            found = await self._store.due_accounts(now, after=after, limit=limits.chunk)
            self._found((now - found[0].due_at) / timedelta(seconds=1) if found else 0.0)
            for some in self._chunks(found):
                if not await self._has_lease():
                    self._found(0.0)
                    return
                self._observer.swept(await self._submit(some), self._lag)
                await asyncio.sleep(len(some) / limits.per_second)
            if len(found) < limits.chunk:
                return
            after = found[-1]
        self._found(0.0)

    async def _has_lease(self) -> bool:
        """Return whether this process may sweep now.

        Half of the lease's time must be over before it is extended, because each extension is a
        write.
        """
        now = self._monotonic()
        if now < self._extend_at:
            return True
        seconds = self._limits.lease_seconds
        if not await self._store.lease(_LEASE, self._owner, seconds):
            return False
        self._extend_at = now + seconds / 2
        return True

    def _found(self, lag_seconds: float) -> None:
        """Note a successful search."""
        self._lag, self._searched_at = lag_seconds, self._monotonic()
        self._observer.swept(0, lag_seconds)

    def _chunks(self, found: Sequence[DueAccount]) -> Iterator[Sequence[Settle]]:
        """Yield the commands of accounts, as many at a time as the limits allow."""
        some: list[Settle] = []
        entries = 0
        for account in found:
            if account.user_id in self._skipped:
                continue
            if not account.due:
                self._skip(account.user_id, "no app of the account can be read")
            for app_id, due in account.due.items():
                full = len(some) == self._limits.chunk or entries + due > self._limits.entries
                if some and full:
                    yield some
                    some, entries = [], 0
                some.append(_settle(account.user_id, app_id))
                entries += due
        if some:
            yield some

    async def _submit(self, commands: Sequence[Settle]) -> int:
        """Settle accounts, and return how many commands have written something."""
        answers = self._committer.submit_all([Submission(command) for command in commands])
        results = await asyncio.gather(*answers, return_exceptions=True)
        unserved: CommitError | None = None
        for command, result in zip(commands, results, strict=True):
            if isinstance(result, CommitError):
                unserved = result
            elif not isinstance(result, Receipt | NothingDue):
                error = str(result) or type(result).__name__
                self._skip(command.user_id, error, app_id=command.app_id)
        if unserved is not None:
            raise unserved
        return sum(isinstance(result, Receipt) for result in results)

    def _skip(self, user_id: int, error: str, **fields: int) -> None:
        """Note that an account cannot be settled, so that it does not stop the others."""
        self._skipped[user_id] = None
        log.error(
            "the sweeper cannot write the due entries of an account, and skips the account",
            user_id=user_id,
            **fields,
            error=error,
            retry_seconds=self._limits.skip_seconds,
        )


def _settle(user_id: int, app_id: int) -> Settle:
    return Settle(user_id=user_id, app_id=app_id, created_by=_NOBODY, key="", transaction_id="")
