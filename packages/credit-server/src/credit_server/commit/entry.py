"""A command that waits for its batch, and who is told what comes of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from credit_server.ledger import Command, Receipt, Refusal

Ending = Receipt | Refusal | BaseException | None
"""What came of a command; None: it was dropped, and had no effect."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that waits.

    Attributes:
        command: What to decide.
        answer: Where its answer goes; the caller cancels it by leaving.
        context: What its batch's observer is told.
        deadline: The loop's time from which its caller waits no more; None where it waits for ever.
        request_id: Names its call in what is logged of its batch.
        after: Is told what came of it where the caller has left; see `Committer.submit`.
    """

    command: Command
    answer: "asyncio.Future[Receipt | Refusal]"
    context: object = None
    deadline: float | None = None
    request_id: str | None = None
    after: Callable[[Ending], None] | None = None

    def settle(self, ending: Receipt | Refusal | Exception) -> None:
        """Answer the caller; one who has been answered is not answered again."""
        if self.answer.cancelled():
            self._tell(ending)
        elif self.answer.done():
            return
        elif isinstance(ending, Exception):
            self.answer.set_exception(ending)
        else:
            self.answer.set_result(ending)

    def waits(self) -> bool:
        """Say whether the caller waits still; where not, the command is dropped, and that told."""
        if self.answer.done():
            self._tell(None)
            return False
        return True

    def _tell(self, ending: Ending) -> None:
        if self.after is not None:
            # Not here: what fails in it, such as a log's full disk, must not end the lane.
            self.answer.get_loop().call_soon(self.after, ending)
