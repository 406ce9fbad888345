"""A write that waits for its batch, its result, and how its caller is answered."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from credit_models.ledger import Accepted, Command, Outcome, Receipt, Refusal, Replayed

from credit_server.commit.errors import ClockSkewed, NotCommitted, ResultUnknown

log = structlog.get_logger("credit_server.commit")

# The result of a write. None: it was dropped and had no effect.
WriteResult = Receipt | Refusal | BaseException | None

# The answer that the caller of a write waits for.
Answer = asyncio.Future[Receipt | Refusal]


@dataclass(frozen=True, slots=True)
class Submission:
    """A command, and what happens with its result if its caller leaves.

    Attributes:
        command: The command.
        after: If the caller cancels the answer, called once with the result as soon as it is
            certain, at the latest when the committer has stopped. It must be quick and must not
            raise. After a bug it may be called twice; the first call counts.
    """

    command: Command
    after: Callable[[WriteResult], None] | None = None


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """A write that waits for its batch.

    Attributes:
        command: The command.
        answer: The caller's future. The caller cancels it when it no longer waits.
        context: Passed to the observer of the batch.
        deadline: The loop's time at which the caller stops waiting; None: never.
        request_id: Identifies the call in log lines about the batch.
        after: Called with the result if the caller no longer waits; see `Committer.submit`.
    """

    command: Command
    answer: Answer
    context: object = None
    deadline: float | None = None
    request_id: str | None = None
    after: Callable[[WriteResult], None] | None = None

    def resolve(self, outcome: Outcome | Exception) -> None:
        """Answer the caller, unless it has an answer already.

        Args:
            outcome: The outcome, which is certain, or why there is none.
        """
        result: Receipt | Refusal | Exception
        match outcome:
            case Accepted(main=entry):
                validated = self.command.validate_only
                result = Receipt(transaction=entry, replayed=False, validated=validated)
            case Replayed(transaction=entry):
                # The transaction of an earlier attempt at this command is not a replay.
                replayed = entry.id != self.command.transaction_id
                result = Receipt(transaction=entry, replayed=replayed)
            case _:
                result = outcome
        if self.answer.cancelled():
            self._call_after(result)
        elif self.answer.done():
            return
        elif isinstance(result, Exception):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)

    def is_wanted(self) -> bool:
        """Return whether the caller is still waiting; otherwise report the write as dropped."""
        if self.answer.done():
            self._call_after(None)
            return False
        return True

    def _call_after(self, result: WriteResult) -> None:
        if self.after is not None:
            # Called later: an error in it, such as a full disk of a log, must not end the shard.
            self.answer.get_loop().call_soon(self.after, result)


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
    log.warning("a batch failed", reason=str(reason), **log_fields(writes))
    for write in writes:
        write.resolve(error)


def log_fields(writes: Sequence[PendingWrite]) -> Mapping[str, int | Sequence[str]]:
    """Return the fields of a log line that identify the requests of some writes."""
    # Each id is listed once: one request may have a thousand writes.
    ids = dict.fromkeys(write.request_id for write in writes if write.request_id is not None)
    return {"writes": len(writes), "request_ids": list(ids)}
