"""Settles one batch: retries it, splits it, and answers its callers, all within one time limit.

The limit is fixed when the batch begins. It holds for the batch and all its parts together, however
often they are split: once it has passed, no attempt begins. The first attempt is always made.

A batch is split for two reasons. Repeated conflicts: smaller parts meet fewer other writers. An
error that is not foreseen, such as a bug or a document that cannot be read or written: the command
at fault must not take the others with it. Halving isolates one of n within log2(n) + 1 failures.
Where commands of several users fail alone in a row, the error hits everything (`Suspicion`): the
rest of the batch is not tried.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import structlog

from credit_server.commit.entry import Entry
from credit_server.commit.errors import ClockSkewed, NotCommitted, ResultUnknown
from credit_server.commit.observer import CommitObserver
from credit_server.commit.suspicion import Suspicion
from credit_server.ledger import Accepted, Command, Outcome, Receipt, Replayed
from credit_server.store.port import (
    CommitUnknown,
    Conflict,
    Interrupted,
    StoreUnavailable,
)

log = structlog.get_logger("credit_server.commit")

_CONFLICTS_BEFORE_SPLIT = 2

_FORESEEN = (Conflict, Interrupted, CommitUnknown, StoreUnavailable, ClockSkewed)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryLimits:
    """The limits on attempts.

    Attributes:
        retry_seconds: For how long a batch, with all its parts, is retried.
        backoff_initial_seconds: The longest pause before the first retry; doubled each time.
        backoff_max_seconds: The longest pause at all.
    """

    retry_seconds: float
    backoff_initial_seconds: float
    backoff_max_seconds: float


class Attempt(Protocol):
    """Tries to commit commands in one unit of work."""

    def __call__(self, commands: Sequence[Command], *, careful: bool) -> Awaitable[list[Outcome]]:
        """Return the outcomes, one for each command, once they are certain.

        Args:
            commands: What to commit.
            careful: Whether to trust nothing that is remembered. Required where an earlier attempt
                failed: it may have taken effect.

        Raises:
            CommitUnknown: The attempt may have taken effect, or may still do so.
            Exception: Anything else: the attempt had no effect and will have none.
        """


@dataclass(slots=True)
class _Part:
    """A part of a batch that is tried as one.

    Attributes:
        entries: The commands.
        reason: Why its latest attempt failed; None before the first.
        uncertain: Whether an earlier attempt may have committed it.
    """

    entries: Sequence[Entry]
    reason: Exception | None = None
    uncertain: bool = False

    def halves(self) -> "tuple[_Part, _Part]":
        """Return two parts, with the commands of a user side by side and in their order."""
        by_user = sorted(self.entries, key=lambda entry: entry.command.user_id)
        middle = len(by_user) // 2
        return (
            _Part(by_user[:middle], self.reason, self.uncertain),
            _Part(by_user[middle:], self.reason, self.uncertain),
        )


class Settlement:
    """Settles one batch.

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
        self._suspicion = Suspicion()
        self._unreachable = False
        self.attempts = 0

    async def settle(self, batch: Sequence[Entry]) -> None:
        """Try a batch until its result is certain or its time is over, and answer its callers."""
        parts = [_Part(batch)]
        while parts:
            parts.extend(reversed(await self._settle_part(parts.pop())))

    async def _settle_part(self, part: _Part) -> Sequence[_Part]:
        """Settle a part, or return the halves of one that must be split."""
        retries = conflicts = 0
        while True:
            if not part.uncertain:  # who has left need not be served
                part.entries = [entry for entry in part.entries if entry.waits()]
            if not part.entries or self._is_given_up(part):
                return ()
            if await self._try(part):
                return ()
            conflicts += isinstance(part.reason, Conflict)
            unforeseen = not isinstance(part.reason, _FORESEEN)
            if unforeseen and len(part.entries) == 1:
                self._blame(part)
                return ()
            if len(part.entries) > 1 and (unforeseen or conflicts > _CONFLICTS_BEFORE_SPLIT):
                self._observer.retried()
                return part.halves()
            if self._is_given_up(part):
                return ()
            retries += 1
            self._observer.retried()
            await asyncio.sleep(self._pause(retries))

    async def _try(self, part: _Part) -> bool:
        """Make one attempt; return whether it answered the part's callers."""
        self.attempts += 1
        commands = [entry.command for entry in part.entries]
        try:
            outcomes = await self._attempt(commands, careful=part.reason is not None)
        except Exception as error:  # noqa: BLE001 - `_settle_part` tells apart what it is
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
        self._suspicion.succeeded()
        _answer(part.entries, outcomes)
        return True

    def _is_given_up(self, part: _Part) -> bool:
        """Return whether nothing of a failed part is tried again; its callers are answered."""
        if part.reason is None:
            return False
        if (
            self._clock() >= self._give_up_at
            or self._suspicion.hits_all
            # A store that is away is waited for only where it must tell what it has done.
            or (self._unreachable and not part.uncertain)
        ):
            fail(part.entries, part.reason, uncertain=part.uncertain)
            return True
        hopeless, part.entries = self._sorted_out(part.entries)
        if hopeless:
            fail(hopeless, part.reason, uncertain=part.uncertain, culprit=True)
        return not part.entries

    def _sorted_out(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
        """Return the commands whose users are expected to fail, and the others."""
        hit = {
            user_id
            for user_id in {entry.command.user_id for entry in entries}
            if self._suspicion.hits_user(user_id)
        }
        return (
            [entry for entry in entries if entry.command.user_id in hit],
            [entry for entry in entries if entry.command.user_id not in hit],
        )

    def _blame(self, part: _Part) -> None:
        """Answer the caller of a command that failed alone for a reason that was not foreseen."""
        assert part.reason is not None  # noqa: S101 - for the type checker
        self._suspicion.failed_alone(part.entries[0].command.user_id)
        log.error(
            "a command could not be decided or written",
            exc_info=part.reason,
            **named(part.entries),
        )
        fail(part.entries, part.reason, uncertain=part.uncertain, culprit=True)

    def _pause(self, retries: int) -> float:
        """Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/."""
        longest = self._limits.backoff_initial_seconds * 2.0 ** min(retries - 1, 60)
        pause = self._random.uniform(0, min(longest, self._limits.backoff_max_seconds))
        return min(pause, max(0.0, self._give_up_at - self._clock()))


def fail(
    entries: Sequence[Entry], reason: Exception, *, uncertain: bool, culprit: bool = False
) -> None:
    """Answer the callers of commands that cannot be settled, with what is known of them.

    Args:
        entries: The commands; those that have an answer keep it.
        reason: Why the latest attempt failed.
        uncertain: Whether any attempt may have taken effect, or may still do so.
        culprit: Whether the reason is a fault of the commands or of their user's documents. A retry
            would fail again, so the caller gets the reason itself.
    """
    error: Exception
    if uncertain:
        error = ResultUnknown("the store did not report in time whether it has committed")
    elif isinstance(reason, ClockSkewed) or culprit:
        error = reason
    else:
        error = NotCommitted(str(reason))
    log.warning("a batch was not settled", reason=str(reason), **named(entries))
    for entry in entries:
        entry.settle(error)


def named(entries: Sequence[Entry]) -> Mapping[str, int | Sequence[str]]:
    """Return the fields of a log line that name the requests it is about: all of them."""
    ids = [entry.request_id for entry in entries if entry.request_id is not None]
    return {"writes": len(entries), "request_ids": ids}


def _answer(entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
    for entry, outcome in zip(entries, outcomes, strict=True):
        match outcome:
            case Accepted(transaction=transaction):
                entry.settle(Receipt(transaction=transaction, replayed=False))
            case Replayed(transaction=transaction):
                # An earlier attempt at this very command is no replay.
                replayed = transaction.id != entry.command.transaction_id
                entry.settle(Receipt(transaction=transaction, replayed=replayed))
            case refusal:
                entry.settle(refusal)
