"""A write that waits for its batch, and its result."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from credit_server.ledger import Command, Receipt, Refusal

# The result of a write. None: it was dropped and had no effect.
WriteResult = Receipt | Refusal | BaseException | None


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
    answer: "asyncio.Future[Receipt | Refusal]"
    context: object = None
    deadline: float | None = None
    request_id: str | None = None
    after: Callable[[WriteResult], None] | None = None

    def resolve(self, result: Receipt | Refusal | Exception) -> None:
        """Answer the caller, unless it has an answer already."""
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
