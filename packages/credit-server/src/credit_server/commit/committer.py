"""The committer spreads writes over shards and limits how many wait."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any

from credit_models.ledger import GENESIS, Command, Receipt, Refusal

from credit_server.admission.decision import Decision
from credit_server.admission.load import ShedRatio
from credit_server.commit.atomic import AtomicBatch
from credit_server.commit.batch import BatchWriter
from credit_server.commit.clock import Clock
from credit_server.commit.errors import ClockSkewed, CommitError, Overloaded, Stopping
from credit_server.commit.observer import CommitObserver
from credit_server.commit.pending import Answer, PendingWrite, Submission, WriteResult
from credit_server.commit.policies import PolicyCache
from credit_server.commit.retry import RetryLimits
from credit_server.commit.shard import Shard, ShardLimits, Turn
from credit_server.store.port import Store
from credit_server.units import Seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitLimits:
    """The committer's limits. Times are in seconds."""

    # With 16 callers on random users 1, 2, 4 and 8 shards gave 1.6, 1.3, 1 and 0.85 of the
    # throughput, with 128 callers 1.2, 1.2, 1 and 0.95 (2-core machine, medians of 4 runs in turn).
    shards: int = 2
    """Batches that may be in flight at once, at least 1. Fewer shards make larger batches;
    with more, a slow batch delays fewer users."""

    # Calls reach `wait_seconds_max` first, unless the server commits 8,192 writes a second. This
    # limit matters for messages with up to 1,000 operations: each shard has room for two of them.
    waiting_max: int = 4096
    """Writes that may wait for their answer at once, at least 1. Each shard has an equal part, so
    that a slow shard does not cause writes of other shards to be rejected. More writes are rejected
    as OVERLOADED. An atomic batch needs room for all its operations."""

    wait_seconds_max: Seconds = 0.5
    """Longest expected wait of a write that does not fit in the next batch. A write that would wait
    longer is rejected as OVERLOADED. All calls are rejected as OVERLOADED while the delay of the
    event loop is more than twice this time, and more than 1 s. The wait for other operations of the
    same message does not count: the queue at the first operation decides for all of them."""

    # Larger batches do not pay: with BatchWrite of 1,000 operations an operation took 194 to 201 µs
    # of the server's CPU with 256, and 207 to 238 with 1,000 (busy 2-core machine, 2 runs in turn).
    batch_max: int = 256
    """The most writes in one batch, at least 1. A batch is one transaction of the store, whose
    lifetime and memory are limited. An atomic batch is one transaction whatever its size."""

    retry_seconds: float = 10.0
    """Time, above 0, for which a batch, with all its parts, is retried while the store has
    conflicts or does not answer. An attempt that is under way then is completed. It bounds how long
    one batch delays the later writes of its shard."""

    backoff_initial_seconds: float = 0.005
    """The longest pause, above 0, before the first retry of a batch. It doubles with each retry."""

    backoff_max_seconds: float = 0.5
    """The longest pause before any retry, at least the initial one."""

    cache_max: int = 100_000
    """Accounts, and idempotency keys, that are kept in memory, over all shards; 0: none. It bounds
    the memory; an account that is kept need not be read from the store."""


StartPart = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Starts a coroutine as a task with a name."""


def _start_unsupervised(part: str, body: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    return asyncio.create_task(body, name=part)


class Committer:
    """Accepts writes and answers each when its result is certain. Use it with `async with`."""

    def __init__(
        self,
        store: Store,
        limits: CommitLimits | None = None,
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        observer: CommitObserver | None = None,
        start: StartPart = _start_unsupervised,
        turns: Sequence[Turn] = (),
        genesis: bytes | None = GENESIS,
        on_events: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare the shards.

        Args:
            store: Where to commit.
            limits: The limits; None: the defaults.
            clock: The clock for new entries; None: this machine's, compared with no other.
            random: For jitter and for the choice of counter shards; not for secrets.
            observer: Receives batches and rejected writes; None: no observer.
            start: Starts, and may supervise, the task of each shard.
            turns: One for each shard, if several processes of a machine commit; empty: this process
                does not wait for others.
            genesis: The `previous_hash` of the first entry of a new chain. None: no new chain
                begins, but existing chains continue.
            on_events: Called after events of alerts were committed.
        """
        self._observer = observer
        self._limits = limits or CommitLimits()
        self._clock = clock or Clock()
        random = random or Random()  # noqa: S311 - jitter needs no secrecy
        self._shed_ratio = ShedRatio(random)
        self._genesis = genesis
        self._on_events = on_events
        turns = turns or [nullcontext()] * self._limits.shards
        policies = PolicyCache(monotonic=self._clock.monotonic)
        self._shards = [self._shard(store, policies, random, turn) for turn in turns]
        self._tasks: list[asyncio.Task[None]] = []
        self._start = start
        self._stopping = False

    def _shard(self, store: Store, policies: PolicyCache, random: Random, turn: Turn) -> Shard:
        limits = self._limits
        return Shard(
            BatchWriter(
                store.writer(),
                policies,
                clock=self._clock,
                random=random,
                cache_max=limits.cache_max // limits.shards,
                genesis=self._genesis,
                on_events=self._on_events,
            ),
            ShardLimits(
                batch_max=limits.batch_max,
                waiting_max=max(1, limits.waiting_max // limits.shards),
                wait_seconds_max=limits.wait_seconds_max,
                retry=RetryLimits(
                    retry_seconds=limits.retry_seconds,
                    backoff_initial_seconds=limits.backoff_initial_seconds,
                    backoff_max_seconds=limits.backoff_max_seconds,
                ),
            ),
            random=random,
            observer=self._observer,
            turn=turn,
        )

    @property
    def clock(self) -> Clock:
        """The clock for new entries."""
        return self._clock

    @property
    def waiting(self) -> int:
        """The number of writes without an answer, those of batches under way included."""
        return sum(shard.unanswered for shard in self._shards)

    def admission(self, writing: int) -> Decision:
        """Decide whether a write is admitted before its message is read.

        To learn its shard costs as much as to serve it, so the decision is for all shards together.
        `submit` rejects a write to a shard with a longer queue.

        Args:
            writing: How many writes the server has admitted and not answered. In a burst, many of
                them have not reached `submit` yet.

        Returns:
            The decision; the observer is not notified.
        """
        fits = self._queued(writing) < len(self._shards) * self._limits.batch_max
        return Decision.ADMIT if fits or not self.is_overdue(writing) else Decision.LATENCY

    def is_overdue(self, writing: int) -> bool:
        """Return whether a write that arrives now would wait too long.

        Args:
            writing: As for `admission`.
        """
        queued = max(0, self._queued(writing)) // len(self._shards)
        expected = max(shard.expected_seconds(queued) for shard in self._shards)
        return expected > self._limits.wait_seconds_max

    def _queued(self, writing: int) -> int:
        # `writing` does not count operations of batches and streams, but `waiting` does.
        return max(writing, self.waiting) - sum(shard.under_way for shard in self._shards)

    async def submit(
        self,
        command: Command,
        context: object | None = None,
        *,
        request_id: str | None = None,
        seconds_left: float | None = None,
        after: Callable[[WriteResult], None] | None = None,
    ) -> Receipt | Refusal:
        """Decide and commit a command.

        If the caller is cancelled while the command waits, the command is dropped. Once its batch
        is under way, the batch continues.

        Args:
            command: The command.
            context: Passed to the observer when the command's batch begins.
            request_id: Identifies the call in log lines about the command's batch.
            seconds_left: How long the caller waits; None: forever.
            after: If the caller is cancelled, called with the result: see `Submission`.

        Raises:
            ClockSkewed: The clocks of this machine and the store differ by too much.
            Overloaded: Too many writes are waiting, or the answer would come too late.
            Stopping: The server is shutting down.
            NotCommitted: The store is unavailable, failed, or had conflicts for too long.
            ResultUnknown: The store did not report in time whether it has committed.
            Exception: A bug, or a document that cannot be read or written. The command had no
                effect.
        """
        submitted = self.submit_all(
            [Submission(command, after)], context, request_id=request_id, seconds_left=seconds_left
        )
        answer = submitted[0]
        try:
            return await answer
        except asyncio.CancelledError:
            if after is not None and not answer.cancelled():  # the answer came at the same time
                after(answer.exception() or answer.result())
            raise

    def submit_all(
        self,
        submissions: Sequence[Submission],
        context: object | None = None,
        *,
        request_id: str | None = None,
        seconds_left: float | None = None,
        atomic: bool = False,
    ) -> list[Answer]:
        """Decide and commit several commands; those of one user in their order.

        Args:
            submissions: The commands.
            context: Passed to the observer when a command's batch begins.
            request_id: Identifies the call in log lines about the commands' batches.
            seconds_left: How long the caller waits; None: forever.
            atomic: Whether all commands take effect together, in one transaction of the store, or
                none does. Otherwise each command is treated as `submit` treats it.

        Returns:
            The answers, in the order of the commands. What `submit` raises is the exception of an
            answer. Cancelling an answer drops its command, and in an atomic batch all commands,
            unless the batch is under way.
        """
        loop = asyncio.get_running_loop()
        deadline = None if seconds_left is None else loop.time() + seconds_left
        writes = [
            PendingWrite(
                each.command, loop.create_future(), context, deadline, request_id, each.after
            )
            for each in submissions
        ]
        if atomic:
            self._offer_atomic(writes, seconds_left)
            return [write.answer for write in writes]

        # Writes of one message do not count as load for each other: a shard that has admitted one
        # of them admits the later ones too, as long as it has room. Otherwise a slow machine would
        # reject the last operations of a large batch that is its only load. A write whose deadline
        # is too close is dropped when its turn comes.
        admitted: set[Shard] = set()
        for write in writes:
            shards = self._shards_of(write)
            if len(shards) == 1 and shards[0] in admitted and shards[0].has_room():
                self._shed_ratio.admitted += 1
                shards[0].offer(write)
                continue
            rejection = self._rejection(dict.fromkeys(shards, 1), seconds_left)
            if rejection is not None:
                self._reject(write, rejection)
            elif len(shards) == 1:
                admitted.add(shards[0])
                shards[0].offer(write)
            else:
                self._offer_shared([write], dict.fromkeys(shards, 1))
        return [write.answer for write in writes]

    def _offer_atomic(self, writes: Sequence[PendingWrite], seconds_left: float | None) -> None:
        counts = Counter(shard for write in writes for shard in self._shards_of(write))
        shares = {shard: counts[shard] for shard in self._shards if shard in counts}
        rejection = self._rejection(shares, seconds_left)
        if rejection is not None:
            for write in writes:
                self._reject(write, rejection)
            return
        self._offer_shared(writes, shares)

    def _offer_shared(self, writes: Sequence[PendingWrite], shares: Mapping[Shard, int]) -> None:
        batch = AtomicBatch(writes, shares)
        for shard in shares:
            shard.offer_atomic(batch)

    def _shards_of(self, write: PendingWrite) -> Sequence[Shard]:
        """Return the shards of the write's users, in the order of all shards."""
        # User ids are usually consecutive, so the remainder spreads them evenly.
        users, count = write.command.users, len(self._shards)
        if len(users) == 1:
            return (self._shards[users[0] % count],)
        return [self._shards[number] for number in sorted({user_id % count for user_id in users})]

    def _rejection(
        self, shares: Mapping[Shard, int], seconds_left: float | None
    ) -> CommitError | None:
        """Return why writes are rejected on arrival, all together; None: they are admitted.

        Args:
            shares: The number of writes for each of their shards.
            seconds_left: How long their caller waits.
        """
        if self._stopping or any(shard.ended for shard in shares):
            return Stopping("the server is shutting down; no change was made")
        try:
            self._clock.now()
        except ClockSkewed as skewed:
            return skewed
        for shard, count in shares.items():
            decision = shard.admission(seconds_left, count)
            if decision is not Decision.ADMIT:
                return Overloaded(
                    "the write would wait too long; no change was made",
                    decision=decision,
                    retry_seconds=self._shed_ratio.shed(shard.expected_seconds()),
                )
        self._shed_ratio.admitted += 1
        return None

    def _reject(self, write: PendingWrite, rejection: CommitError) -> None:
        """Answer a write that is rejected on arrival, and report it to the observer, if any."""
        if self._observer is not None:
            match rejection:
                case Overloaded(decision=cause):
                    self._observer.shed(cause)
                case ClockSkewed():
                    self._observer.shed("clock_skewed")
                case _:
                    self._observer.shed("stopping")
        write.answer.set_exception(rejection)

    async def __aenter__(self) -> "Committer":
        self._tasks = [
            self._start(f"shard {number} of the writes", shard.run())
            for number, shard in enumerate(self._shards)
        ]
        for shard, task in zip(self._shards, self._tasks, strict=True):
            # Not in the task: a task that is cancelled before its first step runs none of its code.
            task.add_done_callback(shard.end)
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Reject new writes, answer all waiting ones, and stop."""
        self._stopping = True
        for shard in self._shards:
            shard.stop()
        await asyncio.gather(*self._tasks)
