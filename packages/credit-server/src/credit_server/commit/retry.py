"""Run one batch: try it, retry or split it, and answer its callers, all within one time limit.

The limit is set when the batch begins. It applies to the batch and all its parts together, however
often they are split: after it no attempt begins. The first attempt is always made.

A batch is split for two reasons. After repeated conflicts, because smaller parts meet fewer other
writers. After an unexpected error, such as a bug or a document that cannot be read or written,
because one faulty command must not fail the others. Halving isolates one of n commands within
log2(n) + 1 failures. If single commands of several users fail in a row, every command is expected
to fail (`FailureStreak`), and the rest of the batch is not tried.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import structlog

from credit_server.commit.errors import ClockSkewed, NotCommitted, ResultUnknown
from credit_server.commit.observer import CommitObserver
from credit_server.commit.pending import PendingWrite
from credit_server.ledger import Accepted, Command, Outcome, Receipt, Replayed
from credit_server.store.port import (
    CommitUnknown,
    Conflict,
    Interrupted,
    StoreUnavailable,
)

log = structlog.get_logger("credit_server.commit")

_CONFLICTS_BEFORE_SPLIT = 2

_EXPECTED = (Conflict, Interrupted, CommitUnknown, StoreUnavailable, ClockSkewed)


# After this many single commands that failed in a row, the fault is not the commands'. A bug or a
# bad document fails one command or one user. What fails three users fails all.
_STREAK_MAX = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryLimits:
    """The limits on attempts.

    Attributes:
        retry_seconds: For how long a batch, with all its parts, is retried.
        backoff_initial_seconds: The longest pause before the first retry; doubled each time.
        backoff_max_seconds: The longest pause before any retry.
    """

    retry_seconds: float
    backoff_initial_seconds: float
    backoff_max_seconds: float


class Attempt(Protocol):
    """Tries to commit commands in one transaction."""

    def __call__(
        self, commands: Sequence[Command], *, verify_first: bool
    ) -> Awaitable[list[Outcome]]:
        """Return the outcomes, one for each command, once they are certain.

        Args:
            commands: What to commit.
            verify_first: Whether to read accounts and look up keys first, without the caches.
                Required after a failed attempt, which may have taken effect.

        Raises:
            CommitUnknown: The attempt may have taken effect, or may still do so.
            Exception: Any other error: the attempt had no effect and will have none.
        """


@dataclass(slots=True)
class _Part:
    """A part of a batch that is tried as one.

    Attributes:
        writes: Its writes.
        reason: Why its latest attempt failed; None before the first.
        uncertain: Whether an earlier attempt may have committed it.
    """

    writes: Sequence[PendingWrite]
    reason: Exception | None = None
    uncertain: bool = False

    def halves(self) -> "tuple[_Part, _Part]":
        """Return two parts, with the commands of a user side by side and in their order."""
        by_user = sorted(self.writes, key=lambda write: write.command.user_id)
        middle = len(by_user) // 2
        return (
            _Part(by_user[:middle], self.reason, self.uncertain),
            _Part(by_user[middle:], self.reason, self.uncertain),
        )


class FailureStreak:
    """Counts commands of one batch that fail alone, each in a transaction of its own."""

    def __init__(self) -> None:
        self._users: list[int] = []

    def succeeded(self) -> None:
        """Note that an attempt had a result, so the store and this program work."""
        self._users.clear()

    def failed_alone(self, user_id: int) -> None:
        """Note that a command failed although it was tried alone."""
        self._users.append(user_id)

    def fails_user(self, user_id: int) -> bool:
        """Return whether all commands of this user are expected to fail."""
        return self._users.count(user_id) >= _STREAK_MAX

    @property
    def fails_all(self) -> bool:
        """Whether every command is expected to fail."""
        return len(set(self._users)) >= _STREAK_MAX


class BatchRun:
    """Runs one batch until each of its writes has an answer.

    Attributes:
        attempts: How many attempts have begun.
    """

    def __init__(
        self,
        attempt: Attempt,
        limits: RetryLimits,
        *,
        random: Random,
        observer: CommitObserver,
    ) -> None:
        self._attempt = attempt
        self._limits = limits
        self._random = random
        self._observer = observer
        self._clock = asyncio.get_running_loop().time
        self._give_up_at = self._clock() + limits.retry_seconds
        self._streak = FailureStreak()
        self._unreachable = False
        self.attempts = 0

    async def run(self, batch: Sequence[PendingWrite]) -> None:
        """Try the batch until its result is certain or its time is over, and answer its callers."""
        parts = [_Part(batch)]
        while parts:
            parts.extend(reversed(await self._run_part(parts.pop())))

    async def _run_part(self, part: _Part) -> Sequence[_Part]:
        """Run a part, or return its halves if it must be split."""
        retries = conflicts = 0
        while True:
            if not part.uncertain:  # callers that no longer wait need no answer
                part.writes = [write for write in part.writes if write.is_wanted()]
            if not part.writes or self._has_given_up(part):
                return ()
            if await self._try(part):
                return ()
            conflicts += isinstance(part.reason, Conflict)
            unexpected = not isinstance(part.reason, _EXPECTED)
            if unexpected and len(part.writes) == 1:
                self._fail_alone(part)
                return ()
            if len(part.writes) > 1 and (unexpected or conflicts > _CONFLICTS_BEFORE_SPLIT):
                self._observer.retried()
                return part.halves()
            if self._has_given_up(part):
                return ()
            retries += 1
            self._observer.retried()
            await asyncio.sleep(self._pause(retries))

    async def _try(self, part: _Part) -> bool:
        """Make one attempt; return whether it answered the part's callers."""
        self.attempts += 1
        commands = [write.command for write in part.writes]
        try:
            outcomes = await self._attempt(commands, verify_first=part.reason is not None)
        except Exception as error:  # noqa: BLE001 - `_run_part` distinguishes the errors
            part.reason = error
            if isinstance(error, Conflict):
                self._observer.conflict()
            elif isinstance(error, CommitUnknown):
                part.uncertain = True
                self._observer.commit_unknown()
            elif isinstance(error, StoreUnavailable | ClockSkewed):
                self._unreachable = True
            return False
        self._unreachable = False
        self._streak.succeeded()
        _answer(part.writes, outcomes)
        return True

    def _has_given_up(self, part: _Part) -> bool:
        """Return whether a failed part is not retried; its callers are then answered."""
        if part.reason is None:
            return False
        if (
            self._clock() >= self._give_up_at
            or self._streak.fails_all
            # An unavailable store is retried only to learn the result of an earlier attempt.
            or (self._unreachable and not part.uncertain)
        ):
            fail(part.writes, part.reason, uncertain=part.uncertain)
            return True
        hopeless, part.writes = self._partition(part.writes)
        if hopeless:
            fail(hopeless, part.reason, uncertain=part.uncertain, at_fault=True)
        return not part.writes

    def _partition(
        self, writes: Sequence[PendingWrite]
    ) -> tuple[list[PendingWrite], list[PendingWrite]]:
        """Return the writes of users that are expected to fail, and the others."""
        failing = {
            user_id
            for user_id in {write.command.user_id for write in writes}
            if self._streak.fails_user(user_id)
        }
        return (
            [write for write in writes if write.command.user_id in failing],
            [write for write in writes if write.command.user_id not in failing],
        )

    def _fail_alone(self, part: _Part) -> None:
        """Answer the caller of a single command that failed with an unexpected error."""
        assert part.reason is not None  # noqa: S101 - for the type checker
        self._streak.failed_alone(part.writes[0].command.user_id)
        log.error(
            "a command could not be decided or written",
            exc_info=part.reason,
            **named(part.writes),
        )
        fail(part.writes, part.reason, uncertain=part.uncertain, at_fault=True)

    def _pause(self, retries: int) -> float:
        """Return a pause with full jitter.

        See https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
        """
        longest = self._limits.backoff_initial_seconds * 2.0 ** min(retries - 1, 60)
        pause = self._random.uniform(0, min(longest, self._limits.backoff_max_seconds))
        return min(pause, max(0.0, self._give_up_at - self._clock()))


def fail(
    writes: Sequence[PendingWrite], reason: Exception, *, uncertain: bool, at_fault: bool = False
) -> None:
    """Answer the callers of writes that failed.

    Args:
        writes: The writes; those that have an answer keep it.
        reason: Why the latest attempt failed.
        uncertain: Whether any attempt may have taken effect, or may still do so.
        at_fault: Whether the commands, or their user's documents, are at fault. A retry would fail
            again, so the caller gets the reason itself.
    """
    error: Exception
    if uncertain:
        error = ResultUnknown("the store did not report in time whether it has committed")
    elif isinstance(reason, ClockSkewed) or at_fault:
        error = reason
    else:
        error = NotCommitted(str(reason))
    log.warning("a batch failed", reason=str(reason), **named(writes))
    for write in writes:
        write.resolve(error)


def named(writes: Sequence[PendingWrite]) -> Mapping[str, int | Sequence[str]]:
    """Return the fields of a log line that identify the requests of some writes."""
    ids = [write.request_id for write in writes if write.request_id is not None]
    return {"writes": len(writes), "request_ids": ids}


def _answer(writes: Sequence[PendingWrite], outcomes: Sequence[Outcome]) -> None:
    for write, outcome in zip(writes, outcomes, strict=True):
        match outcome:
            case Accepted(transaction=transaction):
                write.resolve(Receipt(transaction=transaction, replayed=False))
            case Replayed(transaction=transaction):
                # The transaction of an earlier attempt at this command is not a replay.
                replayed = transaction.id != write.command.transaction_id
                write.resolve(Receipt(transaction=transaction, replayed=replayed))
            case refusal:
                write.resolve(refusal)
