"""Run one batch: try it, retry or split it, and answer its callers, all within one time limit.

`RetryPolicy` decides whether another attempt is made, and after which pause. `BatchRun` makes the
attempts, splits the batch and answers the callers.

The limit is set when the batch begins. It applies to the batch and all its parts together, however
often they are split: after it no attempt begins. The first attempt is always made.

A batch is split for two reasons. After repeated conflicts, because smaller parts meet fewer other
writers. After an unexpected error, such as a bug or a document that cannot be read or written,
because one faulty command must not fail the others. Halving isolates one of n commands within
log2(n) + 1 failures. If single commands of several users fail in a row, every command is expected
to fail, and the rest of the batch is not tried.

Documents that cannot be read need no search: the error has their users, however many they are. The
writes of these users fail, and the others are retried together.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import structlog
from credit_models.ledger import Command, Outcome

from credit_server.commit.errors import ClockSkewed
from credit_server.commit.observer import CommitObserver
from credit_server.commit.pending import PendingWrite, fail, log_fields
from credit_server.commit.policies import apps_of
from credit_server.store.port import (
    CommitUnknown,
    Conflict,
    Interrupted,
    StoreUnavailable,
    Unreadable,
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


@dataclass(kw_only=True, slots=True)
class RetryPolicy:
    """Decides, for one batch and all its parts, whether and when another attempt is made.

    Attributes:
        limits: The limits on attempts.
        random: The source of jitter.
        deadline: The loop's time after which only the first attempt may begin.
    """

    limits: RetryLimits
    random: Random
    deadline: float
    _unavailable: bool = field(default=False, init=False)
    # The users of the commands that failed alone, in a transaction of their own, since the last
    # success.
    _streak: list[int] = field(default_factory=list, init=False)

    def succeeded(self) -> None:
        """Note that an attempt had a result, so the store and this program work."""
        self._unavailable = False
        self._streak.clear()

    def failed(self, error: Exception) -> None:
        """Note why an attempt failed."""
        if isinstance(error, StoreUnavailable | ClockSkewed):
            self._unavailable = True

    def failed_alone(self, user_id: int) -> None:
        """Note that a command failed although it was tried alone."""
        self._streak.append(user_id)

    def is_exhausted(self, *, uncertain: bool) -> bool:
        """Return whether no attempt may begin any more.

        Args:
            uncertain: Whether an earlier attempt may have taken effect. An unavailable store is
                retried only to learn the result of such an attempt.
        """
        return (
            asyncio.get_running_loop().time() >= self.deadline
            or len(set(self._streak)) >= _STREAK_MAX
            or (self._unavailable and not uncertain)
        )

    def fails_user(self, user_id: int) -> bool:
        """Return whether all commands of this user are expected to fail."""
        return self._streak.count(user_id) >= _STREAK_MAX

    def pause_seconds(self, retries: int) -> float:
        """Return the pause before a retry: exponential backoff with full jitter.

        See https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.

        Args:
            retries: The number of retries, this one included, at least 1.
        """
        longest = self.limits.backoff_initial_seconds * 2.0 ** min(retries - 1, 60)
        pause = self.random.uniform(0, min(longest, self.limits.backoff_max_seconds))
        return min(pause, max(0.0, self.deadline - asyncio.get_running_loop().time()))


class Attempt(Protocol):
    """Tries to commit commands in one transaction, as many of the first ones as fit in it."""

    def __call__(
        self, commands: Sequence[Command], *, verify_first: bool
    ) -> Awaitable[list[Outcome]]:
        """Return the outcomes of the first commands, at least of one, once they are certain.

        The other commands were not tried.

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
        retries: How often the part was retried, with the same writes or fewer.
        conflicts: How many of its attempts ended in a conflict.
    """

    writes: Sequence[PendingWrite]
    reason: Exception | None = None
    uncertain: bool = False
    retries: int = 0
    conflicts: int = 0

    def after(self, count: int) -> "_Part":
        """Return the part without its first writes, which have an answer."""
        reason = self.reason if self.uncertain else None
        return _Part(self.writes[count:], reason, self.uncertain)

    def halves(self) -> "tuple[_Part, _Part]":
        """Return two parts that keep the order of each user's commands; the first is run first.

        The commands of a user are side by side, unless one is for two users: its place is after the
        earlier commands of both and before the later ones.
        """
        writes = self.writes
        if all(len(write.command.users) == 1 for write in writes):
            writes = sorted(writes, key=lambda write: write.command.user_id)
        middle = len(writes) // 2
        return (
            _Part(writes[:middle], self.reason, self.uncertain),
            _Part(writes[middle:], self.reason, self.uncertain),
        )


@dataclass(kw_only=True, slots=True)
class BatchRun:
    """Runs one batch until each of its writes has an answer.

    Attributes:
        attempt: Tries to commit commands.
        policy: Decides whether another attempt is made.
        observer: Receives retries, conflicts and unknown commits; None: no observer.
        divisible: Whether the batch may be split; not if it is atomic.
        attempts: How many attempts have begun.
    """

    attempt: Attempt
    policy: RetryPolicy
    observer: CommitObserver | None = None
    divisible: bool = True
    attempts: int = field(default=0, init=False)

    async def run(self, batch: Sequence[PendingWrite]) -> None:
        """Try the batch until its result is certain or its time is over, and answer its callers."""
        parts = [_Part(batch)]
        while parts:
            part = parts.pop()
            # Callers that no longer wait need no answer.
            if not part.uncertain and any(write.answer.done() for write in part.writes):
                part.writes = self._wanted(part.writes)
            if not part.writes or (part.reason is not None and self._gives_up(part, part.reason)):
                continue
            self.attempts += 1
            commands = [write.command for write in part.writes]
            try:
                outcomes = await self.attempt(commands, verify_first=part.reason is not None)
            except Exception as error:  # noqa: BLE001 - `_retried` distinguishes the errors
                parts.extend(reversed(await self._retried(part, error)))
                continue
            if self.attempts > 1:  # an earlier attempt may have failed
                self.policy.succeeded()
            for write, outcome in zip(part.writes[: len(outcomes)], outcomes, strict=True):
                write.resolve(outcome)
            if len(outcomes) < len(part.writes):
                parts.append(part.after(len(outcomes)))

    def _wanted(self, writes: Sequence[PendingWrite]) -> Sequence[PendingWrite]:
        """Return the writes whose callers still wait; of an atomic batch, all or none.

        When the task of a caller is cancelled, the answer that it awaits is cancelled at once, and
        the task cancels the other answers only when it runs again.
        """
        if not self.divisible and any(write.answer.cancelled() for write in writes):
            for write in writes:
                write.answer.cancel()
        return [write for write in writes if write.is_wanted()]

    async def _retried(self, part: _Part, error: Exception) -> Sequence[_Part]:
        """Return the parts to attempt after a failure, in order. Answer all other writes."""
        part.reason = error
        self.policy.failed(error)
        if isinstance(error, Conflict):
            part.conflicts += 1
            if self.observer is not None:
                self.observer.conflict()
        elif isinstance(error, CommitUnknown):
            part.uncertain = True
            if self.observer is not None:
                self.observer.commit_unknown()
        if isinstance(error, Unreadable) and self.divisible and self._drops(part, error):
            return (part,)
        unexpected = not isinstance(error, _EXPECTED)
        splits = self.divisible and len(part.writes) > 1
        if unexpected and not splits:
            self._fail_alone(part, error)
            return ()
        if splits and (unexpected or part.conflicts > _CONFLICTS_BEFORE_SPLIT):
            self._note_retry()
            return part.halves()
        if self._gives_up(part, error):
            return ()
        part.retries += 1
        self._note_retry()
        await asyncio.sleep(self.policy.pause_seconds(part.retries))
        return (part,)

    def _note_retry(self) -> None:
        if self.observer is not None:
            self.observer.retried()

    def _gives_up(self, part: _Part, reason: Exception) -> bool:
        """Fail the writes of a failed part that are not retried; return whether these are all."""
        if self.policy.is_exhausted(uncertain=part.uncertain):
            fail(part.writes, reason, uncertain=part.uncertain)
            return True
        users = {write.command.user_id for write in part.writes}
        failing = {user_id for user_id in users if self.policy.fails_user(user_id)}
        if failing:
            hopeless = [write for write in part.writes if write.command.user_id in failing]
            part.writes = [write for write in part.writes if write.command.user_id not in failing]
            fail(hopeless, reason, uncertain=part.uncertain, at_fault=True)
        return not part.writes

    def _drops(self, part: _Part, reason: Unreadable) -> bool:
        """Fail the writes that need the documents; return whether there are any."""
        faulty: list[PendingWrite] = []
        others: list[PendingWrite] = []
        for write in part.writes:
            command = write.command
            concerned = not (
                reason.user_ids.isdisjoint(command.users)
                and reason.app_ids.isdisjoint(apps_of([command]))
            )
            (faulty if concerned else others).append(write)
        if not faulty:
            return False
        log.error(
            "documents cannot be read; the writes of their users fail",
            user_ids=sorted(reason.user_ids),
            app_ids=sorted(reason.app_ids),
            reason=str(reason),
            **log_fields(faulty),
        )
        fail(faulty, reason, uncertain=part.uncertain, at_fault=True)
        part.writes = others
        if others:
            self._note_retry()
        return True

    def _fail_alone(self, part: _Part, reason: Exception) -> None:
        """Answer the caller of a part that cannot be split and failed with an unexpected error."""
        self.policy.failed_alone(part.writes[0].command.user_id)
        if isinstance(reason, Unreadable):
            log.error(
                "documents cannot be read or changed; the writes that need them fail",
                reason=str(reason),
                **log_fields(part.writes),
            )
        else:
            log.error(
                "a write could not be decided or written",
                exc_info=reason,
                **log_fields(part.writes),
            )
        fail(part.writes, reason, uncertain=part.uncertain, at_fault=True)
