"""One shard commits the writes of its users, batch by batch.

A shard has one batch in flight. While it commits, the next one fills: batches grow with the load,
and a lone caller does not wait for others. Shards of one server never share a user, so they do not
conflict on accounts and history. An atomic batch is a batch of its own; if it has users of several
shards, these wait for each other: see `AtomicBatch`.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from random import Random

import structlog

from credit_server.admission.decision import Decision
from credit_server.admission.load import LatencyEstimate
from credit_server.commit.atomic import AtomicBatch
from credit_server.commit.batch import BatchWriter
from credit_server.commit.errors import Overloaded, ResultUnknown, Stopping
from credit_server.commit.observer import CommitObserver
from credit_server.commit.pending import Answer, PendingWrite, fail, log_fields
from credit_server.commit.retry import BatchRun, RetryLimits, RetryPolicy

log = structlog.get_logger("credit_server.commit")


# A context manager, entered for each batch. It waits while another process commits a batch of the
# same shard.
Turn = AbstractAsyncContextManager[None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardLimits:
    """A shard's limits.

    Attributes:
        batch_max: The most writes in one batch.
        waiting_max: The most writes without an answer.
        wait_seconds_max: The longest expected wait of a write that does not fit in the next batch.
        retry: The limits on attempts at a batch.
    """

    batch_max: int
    waiting_max: int
    wait_seconds_max: float
    retry: RetryLimits


class Shard:
    """Commits the writes of some users.

    Attributes:
        turn: Is held while the shard commits.
        ended: Whether the shard has stopped committing, so that no write may be offered.
        unanswered: The number of writes without an answer, those of the batch under way included.
    """

    def __init__(
        self,
        writer: BatchWriter,
        limits: ShardLimits,
        *,
        random: Random,
        observer: CommitObserver | None,
        turn: Turn,
    ) -> None:
        self.turn = turn
        self._writer = writer
        self._limits = limits
        self._observer = observer
        self._latency = LatencyEstimate(limits.batch_max)
        self._random = random
        self._waiting: deque[PendingWrite | AtomicBatch] = deque()
        self._arrived = asyncio.Event()
        self._under_way: Sequence[PendingWrite] = ()
        self._stopping = False
        self.unanswered = 0
        self.ended = False

    def admission(self, seconds_left: float | None, count: int = 1) -> Decision:
        """Decide whether writes that arrive now are admitted, all together.

        A write that fits in the next batch does not wait in the queue, and a write to an idle shard
        does not wait at all: these are not shed because earlier batches were slow.

        Args:
            seconds_left: How long their caller waits; None: forever.
            count: The number of writes.
        """
        if not self.has_room(count):
            return Decision.QUEUE
        fits = self.unanswered - self._latency.size + count <= self._limits.batch_max
        limit = seconds_left if self._latency.size else None
        if fits and limit is None:
            return Decision.ADMIT
        expected = self.expected_seconds()
        if not fits and expected > self._limits.wait_seconds_max:
            return Decision.LATENCY
        return Decision.DEADLINE if limit is not None and expected > limit else Decision.ADMIT

    def has_room(self, count: int = 1) -> bool:
        """Return whether the queue has room for some writes."""
        return self.unanswered + count <= self._limits.waiting_max

    def expected_seconds(self, queued: int | None = None) -> float:
        """Estimate how long a write that arrives now waits for its answer.

        Args:
            queued: The number of writes queued before it; None: as many as are queued now and
                whose callers still wait.
        """
        if queued is None:
            queued = max(0, self.unanswered - self._latency.size)
        return self._latency.seconds_until_settled(queued, asyncio.get_running_loop().time())

    @property
    def under_way(self) -> int:
        """The number of writes in the batch that is under way."""
        return self._latency.size

    def offer(self, write: PendingWrite) -> None:
        """Queue a write for the next batch."""
        self.unanswered += 1
        write.answer.add_done_callback(self._on_answer)
        if len(self._waiting) >= 2 * self._limits.waiting_max:
            # Most of these writes belong to callers that no longer wait, and are dropped. Atomic
            # batches stay, because other shards wait for this one to reach them.
            self._waiting = deque(
                each for each in self._waiting if isinstance(each, AtomicBatch) or each.is_wanted()
            )
        self._waiting.append(write)
        self._arrived.set()

    def offer_atomic(self, batch: AtomicBatch) -> None:
        """Queue an atomic batch.

        Its writes count as unanswered until it is settled, even if their caller leaves: it stays in
        the queue, because other shards wait for this one at it.
        """
        self.unanswered += batch.shares[self]
        self._waiting.append(batch)
        self._arrived.set()

    def _on_answer(self, _: Answer) -> None:
        self.unanswered -= 1

    def stop(self) -> None:
        """Make `run` return once every waiting write has its answer."""
        self._stopping = True
        self._arrived.set()

    async def run(self) -> None:
        """Commit batch after batch until stopped."""
        while self._waiting or not self._stopping:
            await self._arrived.wait()
            if not self._waiting:  # stopped; a shard needs no turn to stop
                break
            asked = asyncio.get_running_loop().time()
            if isinstance(self._waiting[0], AtomicBatch):
                await self._run_atomic(self._waiting[0])
                continue
            async with self.turn:
                # Taken after the turn, because the batch fills while another process commits.
                if batch := self._take():
                    await self._run_batch(batch, asked, divisible=True)

    def end(self, _: "asyncio.Task[None] | None" = None) -> None:
        """Answer all waiting callers. Call it when `run` has ended, for any reason.

        After a bug some writes are left, and no caller may wait for a shard that has ended.
        """
        self.ended = True
        for write in self._under_way:
            write.resolve(ResultUnknown("the server failed while it committed the write"))
        for each in self._waiting:
            for write in each.writes if isinstance(each, AtomicBatch) else (each,):
                write.resolve(Stopping("the server failed and shuts down"))
            if isinstance(each, AtomicBatch):
                each.settle()
        self._waiting.clear()

    async def _run_atomic(self, batch: AtomicBatch) -> None:
        """Commit the atomic batch that is next in the queue, together with its other shards."""
        loop = asyncio.get_running_loop()
        self._latency.begin(batch.shares[self], loop.time())
        if batch.arrive():
            try:
                # Shards that wait for the batch have no turn, and all processes take turns in one
                # order, so no two of them wait for each other.
                async with AsyncExitStack() as turns:
                    for shard in batch.shares:
                        await turns.enter_async_context(shard.turn)
                    self._take_atomic()  # last: if it gets no turn, `end` answers its writes
                    await self._run_batch(batch.writes, loop.time(), divisible=False)
            finally:
                batch.settle()
        else:
            self._take_atomic()
            await batch.settled()
            self._latency.end(loop.time())
        # The batch was committed by another shard, or has users of other shards.
        self._writer.forget_users(batch.commands)

    def _take_atomic(self) -> None:
        self._waiting.popleft()
        if not self._waiting and not self._stopping:
            self._arrived.clear()

    async def _run_batch(
        self, batch: Sequence[PendingWrite], asked: float, *, divisible: bool
    ) -> None:
        """Commit a batch and answer its callers.

        Args:
            batch: The writes.
            asked: When the shard began to wait for its turn. The latency estimate includes the
                wait, because later writes wait for as long.
            divisible: Whether the batch may be split.
        """
        loop = asyncio.get_running_loop()
        began, self._under_way = loop.time(), batch
        self._latency.begin(len(batch), asked)
        observer, limits = self._observer, self._limits.retry
        run = BatchRun(
            attempt=partial(self._writer.commit, atomic=not divisible),
            policy=RetryPolicy(
                limits=limits, random=self._random, deadline=began + limits.retry_seconds
            ),
            observer=observer,
            divisible=divisible,
        )
        try:
            if observer is None:
                await run.run(batch)
            else:
                with observer.batch([write.context for write in batch]):
                    await run.run(batch)
        except Exception as error:
            # The callers get an answer whatever the error is, and the shard continues.
            log.exception("a batch failed", **log_fields(batch))
            fail(batch, error, uncertain=True)
        ended = loop.time()
        self._latency.end(ended)
        if observer is not None:
            observer.batch_settled(len(batch), ended - began, run.attempts)
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
            if isinstance(write, AtomicBatch) or len(batch) == self._limits.batch_max:
                break
            taken += 1
            if not write.is_wanted():
                continue
            if batch and write.deadline is not None:
                answered_at = now + self._latency.seconds_until_settled(len(batch), now)
                if write.deadline < answered_at:
                    if self._observer is not None:
                        self._observer.shed(Decision.DEADLINE)
                    write.resolve(
                        Overloaded(
                            "the answer would come too late; no change was made",
                            decision=Decision.DEADLINE,
                        )
                    )
                    continue
            batch.append(write)
        for _ in range(taken):  # last: after a bug in this loop, `end` answers them
            self._waiting.popleft()
        if not self._waiting and not self._stopping:
            self._arrived.clear()
        return batch
