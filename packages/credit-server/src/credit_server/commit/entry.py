"""A command that waits for its batch."""

import asyncio
from dataclasses import dataclass

from credit_server.ledger import Command, Receipt, Refusal


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that waits.

    Attributes:
        command: What to decide.
        answer: Where its answer goes.
        context: What its batch's observer is told.
        deadline: The loop's time from which its caller waits no more; None where it waits for ever.
        request_id: Names its call in what is logged of its batch.
    """

    command: Command
    answer: "asyncio.Future[Receipt | Refusal]"
    context: object = None
    deadline: float | None = None
    request_id: str | None = None
