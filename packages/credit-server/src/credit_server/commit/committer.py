"""The way in for writes: spreads them over lanes and bounds how many wait."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Annotated, Any

from annotated_types import Ge, Le

from credit_server.admission.decision import Decision
from credit_server.admission.shed_ratio import ShedRatio
from credit_server.commit.clock import Clock
from credit_server.commit.entry import Ending, Entry
from credit_server.commit.errors import ClockSkewed, Overloaded, Stopping
from credit_server.commit.lane import Lane, LaneLimits
from credit_server.commit.observer import CommitObserver, NoObserver
from credit_server.commit.settlement import RetryLimits
from credit_server.ledger import Command, Receipt, Refusal
from credit_server.store.port import Store
from credit_server.units import Count, Seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitLimits:
    """The committer's limits. Times are in seconds."""

    # With 16 callers on random users 1, 2, 4 and 8 lanes gave 1.6, 1.3, 1 and 0.85 of the
    # throughput, with 128 callers 1.2, 1.2, 1 and 0.95 (2-core machine, medians of 4 runs in turn).
    lanes: int = 2
    """Batches that may be in flight at once. Fewer lanes make larger batches, more keep a slow
    batch from holding up other users."""

    waiting_max: Count = 4096
    """Writes that may be without an answer. The lanes share them equally, so that a lane that is
    held up does not reject the users of the others. More are rejected as OVERLOADED."""

    wait_seconds_max: Seconds = 0.5
    """Longest wait that may be expected of a write that does not fit in the next batch. A write
    that would wait longer is rejected as OVERLOADED."""

    batch_max: int = 256
    """The most writes in one batch."""

    retry_seconds: Seconds = 10.0
    """Time for which a batch, with all its parts, is retried while the store has conflicts or does
    not answer. An attempt that is under way then is waited for."""

    backoff_initial_seconds: float = 0.005
    """The longest pause before the first retry of a batch."""

    backoff_max_seconds: float = 0.5
    """The longest pause before any retry."""

    cache_max: Annotated[int, Ge(0), Le(100_000_000)] = 100_000
    """Accounts, and idempotency keys, that are kept in memory, over all lanes."""


StartPart = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Runs a coroutine, which is given a name, as a task."""


def _start_unsupervised(part: str, body: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    return asyncio.create_task(body, name=part)


class Committer:
    """Takes in writes and answers each when its result is certain. Use it with `async with`."""

    def __init__(
        self,
        store: Store,
        limits: CommitLimits | None = None,
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        observer: CommitObserver | None = None,
        start: StartPart = _start_unsupervised,
    ) -> None:
        """Prepare the lanes.

        Args:
            store: Where to commit.
            limits: All have defaults.
            clock: Gives the time of new entries; None: this machine's, compared with no other.
            random: For jitter and for the choice of slots; not for secrets.
            observer: Is told of batches and refusals; None where nobody watches.
            start: Starts the task of each lane, and supervises it where the server does.
        """
        self._observer: CommitObserver = observer or NoObserver()
        self._limits = limits or CommitLimits()
        lane_limits = LaneLimits(
            batch_max=self._limits.batch_max,
            waiting_max=max(1, self._limits.waiting_max // self._limits.lanes),
            wait_seconds_max=self._limits.wait_seconds_max,
            cache_max=self._limits.cache_max // self._limits.lanes,
            retry=RetryLimits(
                retry_seconds=self._limits.retry_seconds,
                backoff_initial_seconds=self._limits.backoff_initial_seconds,
                backoff_max_seconds=self._limits.backoff_max_seconds,
            ),
        )
        self._clock = clock or Clock()
        random = random or Random()  # noqa: S311 - jitter needs no secrecy
        self._shed_ratio = ShedRatio(random)
        self._lanes = [
            Lane(
                store.writer(),
                lane_limits,
                clock=self._clock,
                random=random,
                observer=self._observer,
            )
            for _ in range(self._limits.lanes)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._start = start
        self._stopping = False

    @property
    def waiting(self) -> int:
        """How many writes are without an answer, those under way included."""
        return sum(lane.unanswered for lane in self._lanes)

    def admission(self, writing: int) -> Decision:
        """Decide whether a write is admitted before anything is known of it.

        To find out which lane it is for costs as much as to serve it, so all lanes are taken
        together; those who hit one that is worse off are refused by `submit`.

        Args:
            writing: How many writes the server has taken in and not answered. Many of a burst may
                not have come as far as `submit`.

        Returns:
            The decision; the observer is not notified.
        """
        fits = self._queued(writing) < len(self._lanes) * self._limits.batch_max
        return Decision.ADMIT if fits or not self.is_overdue(writing) else Decision.LATENCY

    def is_overdue(self, writing: int) -> bool:
        """Return whether a write that comes now is expected to wait too long, refused or not.

        Args:
            writing: As for `admission`.
        """
        queued = max(0, self._queued(writing)) // len(self._lanes)
        expected = max(lane.expected_seconds(queued) for lane in self._lanes)
        return expected > self._limits.wait_seconds_max

    def _queued(self, writing: int) -> int:
        return writing - sum(lane.under_way for lane in self._lanes)

    async def submit(
        self,
        command: Command,
        context: object | None = None,
        *,
        request_id: str | None = None,
        seconds_left: float | None = None,
        after: Callable[[Ending], None] | None = None,
    ) -> Receipt | Refusal:
        """Have a command decided and committed.

        If the caller is cancelled while the command waits, it is dropped; once its batch is under
        way, the batch goes on undisturbed.

        Args:
            command: What to decide.
            context: What the observer is given when the command's batch begins.
            request_id: Names the call in what is logged of the command's batch.
            seconds_left: How long the caller waits; None for ever.
            after: Where the caller is cancelled, it is told once what came of the command, as soon
                as that is settled: at the latest when the committer has stopped. It must be quick
                and must not raise. After a bug it may be told twice; the first time counts.

        Raises:
            ClockSkewed: The clocks of this machine and the store differ by too much.
            Overloaded: Too many writes are waiting, or the answer would come too late.
            Stopping: The server is shutting down.
            NotCommitted: The store is away, fails, or is contended for too long.
            ResultUnknown: It was not learnt in time whether the store has committed.
            Exception: A bug, or a document that cannot be read or written; the command had no
                effect.
        """
        # Users are numbers that somebody counts up: the remainder spreads them evenly.
        lane = self._lanes[command.user_id % len(self._lanes)]
        if self._stopping or lane.ended:
            self._observer.shed("stopping")
            raise Stopping("the server is shutting down")
        try:
            self._clock.now()
        except ClockSkewed:
            self._observer.shed("clock_skewed")
            raise
        decision = lane.admission(seconds_left)
        if decision is not Decision.ADMIT:
            self._observer.shed(decision)
            raise Overloaded(
                "the write would wait too long",
                retry_seconds=self._shed_ratio.shed(lane.expected_seconds()),
            )
        self._shed_ratio.admitted()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Receipt | Refusal] = loop.create_future()
        deadline = None if seconds_left is None else loop.time() + seconds_left
        lane.offer(Entry(command, answer, context, deadline, request_id, after))
        try:
            return await answer
        except asyncio.CancelledError:
            if after is not None and not answer.cancelled():  # the answer came at the same time
                after(answer.exception() or answer.result())
            raise

    async def __aenter__(self) -> "Committer":
        self._tasks = [
            self._start(f"lane {number} of the writes", lane.run())
            for number, lane in enumerate(self._lanes)
        ]
        for lane, task in zip(self._lanes, self._tasks, strict=True):
            # Not in the task: one that is cancelled before its first step runs none of its code.
            task.add_done_callback(lane.end)
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take in nothing more, settle all that waits, and stop."""
        self._stopping = True
        for lane in self._lanes:
            lane.stop()
        await asyncio.gather(*self._tasks)
