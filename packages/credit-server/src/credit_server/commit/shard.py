"""One shard commits the writes of its users, batch by batch.

A shard has one batch in flight. While it commits, the next one fills: batches grow with the load,
and a lone caller does not wait for others. Shards of one server never share a user, so they do not
conflict on accounts and history.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import structlog
from cachetools import LRUCache

from credit_server.admission.decision import Decision
from credit_server.admission.latency_estimate import LatencyEstimate
from credit_server.commit.clock import Clock
from credit_server.commit.errors import Overloaded, ResultUnknown, Stopping
from credit_server.commit.observer import CommitObserver
from credit_server.commit.pending import PendingWrite
from credit_server.commit.plan import DedupIndex, Plan, plan
from credit_server.commit.retry import BatchRun, RetryLimits, fail, named
from credit_server.ledger import Account, Command, Outcome, Receipt, Refusal, Transaction
from credit_server.store.port import (
    AppKey,
    Changes,
    CommitUnknown,
    Conflict,
    Interrupted,
    Rejected,
    StoreTransaction,
    StoreUnavailable,
    Writer,
)

log = structlog.get_logger("credit_server.commit")

# An app's total is split into this many counter shards, and each shard of a server picks one.
# Shards of all servers that pick the same one conflict, so there are many more than shards are
# usual. A read sums this many documents at most.
_COUNTER_SHARDS = 256

# A commit raises these if it certainly had no effect; see `StoreTransaction.commit`.
_NOTHING_WRITTEN = (Conflict, Interrupted, Rejected, StoreUnavailable)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardLimits:
    """A shard's limits.

    Attributes:
        batch_max: The most writes in one batch.
        waiting_max: The most writes without an answer.
        wait_seconds_max: The longest expected wait of a write that does not fit in the next batch.
        cache_max: How many accounts, and how many keys, are cached; 0: none.
        retry: The limits on attempts at a batch.
    """

    batch_max: int
    waiting_max: int
    wait_seconds_max: float
    cache_max: int
    retry: RetryLimits


@dataclass(slots=True)
class _Commit:
    """Whether the commit of a transaction was begun. Once begun, it may take effect."""

    begun: bool = False


class Shard:
    """Commits the writes of some users.

    Attributes:
        ended: Whether the shard has stopped committing, so that no write may be offered.
    """

    def __init__(
        self,
        writer: Writer,
        limits: ShardLimits,
        *,
        clock: Clock,
        random: Random,
        observer: CommitObserver,
    ) -> None:
        self._writer = writer
        self._limits = limits
        self._observer = observer
        self._latency = LatencyEstimate(limits.batch_max)
        self._clock = clock
        self._random = random
        self._counter_shard = random.randrange(_COUNTER_SHARDS)
        self._waiting: deque[PendingWrite] = deque()
        self._arrived = asyncio.Event()
        self._under_way: Sequence[PendingWrite] = ()
        self._stopping = False
        self._unanswered = 0
        self.ended = False
        # Both hold what this shard has committed, so it is durable. Accounts may be stale where
        # another server writes too; each write compares their revision.
        self._accounts: LRUCache[int, Account] = LRUCache(max(1, limits.cache_max))
        self._by_key: LRUCache[AppKey, Transaction] = LRUCache(max(1, limits.cache_max))

    @property
    def unanswered(self) -> int:
        """The number of writes without an answer, those of the batch under way included."""
        return self._unanswered

    def admission(self, seconds_left: float | None) -> Decision:
        """Decide whether a write that arrives now is admitted.

        A write that fits in the next batch does not wait in the queue, and a write to an idle shard
        does not wait at all: these are not shed because earlier batches were slow.

        Args:
            seconds_left: How long its caller waits; None: forever.
        """
        if self._unanswered >= self._limits.waiting_max:
            return Decision.QUEUE
        expected = self.expected_seconds()
        if self.queued >= self._limits.batch_max and expected > self._limits.wait_seconds_max:
            return Decision.LATENCY
        if seconds_left is not None and self._latency.size and expected > seconds_left:
            return Decision.DEADLINE
        return Decision.ADMIT

    def expected_seconds(self, queued: int | None = None) -> float:
        """Estimate how long a write that arrives now waits for its answer.

        Args:
            queued: The number of writes queued before it; None: as many as are queued now.
        """
        now = asyncio.get_running_loop().time()
        return self._latency.seconds_until_settled(self.queued if queued is None else queued, now)

    @property
    def under_way(self) -> int:
        """The number of writes in the batch that is under way."""
        return self._latency.size

    @property
    def queued(self) -> int:
        """The number of writes that wait for a batch and whose callers still wait."""
        return max(0, self._unanswered - self._latency.size)

    def offer(self, write: PendingWrite) -> None:
        """Queue a write for the next batch."""
        self._unanswered += 1
        write.answer.add_done_callback(self._on_answer)
        if len(self._waiting) >= 2 * self._limits.waiting_max:
            # Most of them belong to callers that no longer wait.
            self._waiting = deque(each for each in self._waiting if each.is_wanted())
        self._waiting.append(write)
        self._arrived.set()

    def _on_answer(self, _: "asyncio.Future[Receipt | Refusal]") -> None:
        self._unanswered -= 1

    def stop(self) -> None:
        """Make `run` return once every waiting write has its answer."""
        self._stopping = True
        self._arrived.set()

    async def run(self) -> None:
        """Commit batch after batch until stopped."""
        while self._waiting or not self._stopping:
            await self._arrived.wait()
            batch = self._take()
            if batch:
                await self._run_batch(batch)

    def end(self, _: "asyncio.Task[None] | None" = None) -> None:
        """Answer all waiting callers. Call it when `run` has ended, for any reason.

        After a bug some writes are left, and no caller may wait for a shard that has ended.
        """
        self.ended = True
        for write in self._under_way:
            write.resolve(ResultUnknown("the server failed while it committed the write"))
        for write in self._waiting:
            write.resolve(Stopping("the server failed and shuts down"))
        self._waiting.clear()

    async def _run_batch(self, batch: Sequence[PendingWrite]) -> None:
        loop = asyncio.get_running_loop()
        began, self._under_way = loop.time(), batch
        self._latency.begin(len(batch), began)
        run = BatchRun(
            self._attempt, self._limits.retry, random=self._random, observer=self._observer
        )
        try:
            with self._observer.batch([write.context for write in batch]):
                await run.run(batch)
        except Exception as error:
            # The callers get an answer whatever the error is, and the shard continues.
            log.exception("a batch failed", **named(batch))
            fail(batch, error, uncertain=True)
        ended = loop.time()
        self._latency.end(ended)
        self._observer.batch_settled(len(batch), ended - began, run.attempts)
        self._under_way = ()

    def _take(self) -> list[PendingWrite]:
        """Take the next batch off the queue.

        Writes whose callers no longer wait are left out, and so are those whose deadline is before
        the answer. Under load the batch would otherwise consist of callers that leave while it
        commits.
        """
        now = asyncio.get_running_loop().time()
        batch: list[PendingWrite] = []
        taken = 0
        for write in self._waiting:
            if len(batch) == self._limits.batch_max:
                break
            taken += 1
            if not write.is_wanted():
                continue
            answered_at = now + self._latency.seconds_until_settled(len(batch), now)
            if batch and write.deadline is not None and write.deadline < answered_at:
                self._observer.shed(Decision.DEADLINE)
                write.resolve(Overloaded("the answer would come too late"))
            else:
                batch.append(write)
        for _ in range(taken):  # last: after a bug in this loop, `end` answers them
            self._waiting.popleft()
        if not self._waiting and not self._stopping:
            self._arrived.clear()
        return batch

    async def _attempt(self, commands: Sequence[Command], *, verify_first: bool) -> list[Outcome]:
        """Try one transaction. If it fails, drop the cached accounts of its users.

        Raises:
            CommitUnknown: The transaction may have taken effect. An unexpected error of the commit
                counts as this, too.
            Exception: The transaction has no effect.
        """
        commit = _Commit()
        try:
            return await self._commit(commands, commit, verify_first=verify_first)
        except Exception as error:
            for command in commands:
                self._accounts.pop(command.user_id, None)
            if isinstance(error, Conflict):
                self._counter_shard = self._random.randrange(_COUNTER_SHARDS)
            if commit.begun and not isinstance(error, (*_NOTHING_WRITTEN, CommitUnknown)):
                raise CommitUnknown(f"the commit failed ({type(error).__name__})") from error
            raise

    async def _commit(
        self, commands: Sequence[Command], commit: "_Commit", *, verify_first: bool
    ) -> list[Outcome]:
        """Load, decide and write one batch within one transaction.

        The first attempt is optimistic: it uses cached accounts and does not look up keys, because
        the store's unique indexes and the comparison of revisions reject a wrong guess. A refusal
        writes nothing that could be rejected, so it is decided on what was read.
        """
        moment = self._clock.now()
        known = self._cached(commands)
        async with self._writer.begin() as transaction:
            accounts = await self._load(transaction, commands, fresh=verify_first)
            if verify_first:
                await self._look_up(transaction, commands, known)
            batch = plan(commands, accounts, known, moment.now, moment.latest)
            if batch.rests_on_balances and not verify_first:
                accounts = await self._load(transaction, commands, fresh=True)
                await self._look_up(transaction, commands, known)
                batch = plan(commands, accounts, known, moment.now, moment.latest)
            if batch.transactions:
                await transaction.write(self._changes(batch, accounts))
            # An answer that rests on what was read needs the commit too: only the commit proves
            # that a majority of the nodes has what was read.
            if verify_first or batch.transactions or batch.rests_on_balances:
                commit.begun = True
                await transaction.commit()
        self._cache(batch)
        return batch.outcomes

    async def _load(
        self, transaction: StoreTransaction, commands: Sequence[Command], *, fresh: bool
    ) -> dict[int, Account]:
        users = {command.user_id for command in commands}
        accounts: dict[int, Account] = {}
        if not fresh:
            for user_id in users:
                cached = self._accounts.get(user_id)
                if cached is not None:
                    accounts[user_id] = cached
        missing = users - accounts.keys()
        if missing:
            accounts.update(await transaction.accounts(missing))
        for user_id in users - accounts.keys():
            accounts[user_id] = Account.empty(user_id)
        return accounts

    async def _look_up(
        self, transaction: StoreTransaction, commands: Sequence[Command], known: DedupIndex
    ) -> None:
        unknown = [command for command in commands if known.find(command) is None]
        keys = {
            (command.user_id, command.app_id, command.key) for command in unknown if command.key
        }
        # The ids show whether an earlier attempt with an unknown result took effect.
        ids = {command.transaction_id for command in unknown}
        known.add(await transaction.transactions(keys, ids))

    def _cached(self, commands: Sequence[Command]) -> DedupIndex:
        known = DedupIndex()
        for command in commands:
            if command.key:
                entry = self._by_key.get((command.user_id, command.app_id, command.key))
                if entry is not None:
                    known.add([entry])
        return known

    def _cache(self, batch: Plan) -> None:
        if not self._limits.cache_max:
            return
        for user_id, account in batch.accounts.items():
            self._accounts[user_id] = account
        for entry in batch.transactions:
            if entry.key:
                self._by_key[entry.user_id, entry.app_id, entry.key] = entry

    def _changes(self, batch: Plan, accounts: dict[int, Account]) -> Changes:
        return Changes(
            accounts=[
                (accounts[user_id].revision, account) for user_id, account in batch.accounts.items()
            ],
            transactions=batch.transactions,
            purchases=batch.purchases,
            totals={app_id: delta for app_id, delta in batch.totals.items() if delta},
            counter_shard=self._counter_shard,
        )
