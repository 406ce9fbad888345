"""An atomic batch: writes of any users that take effect together or not at all.

A transfer between users of two shards is an atomic batch of one write.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from credit_models.ledger import Command

from credit_server.commit.pending import PendingWrite

if TYPE_CHECKING:  # `shard` imports this module
    from credit_server.commit.shard import Shard


class AtomicBatch:
    """Writes that are one transaction of the store, over the shards of all their users.

    The batch is in the queue of each of these shards. A shard that reaches it waits; the last one
    commits the batch. So a server never writes two batches for one user at once, and atomic batches
    for the same users do not conflict with each other. A batch is put in all its queues at once.
    All queues therefore have the batches in the same order, and no two shards wait for each other.

    Attributes:
        writes: The writes, in the order of the batch. If their caller cancels one of them, all are
            dropped.
        commands: Their commands.
        shares: The number of writes of each shard. A write for users of two shards is one of both.
    """

    def __init__(self, writes: Sequence[PendingWrite], shares: "Mapping[Shard, int]") -> None:
        self.writes = writes
        self.commands: Sequence[Command] = [write.command for write in writes]
        self.shares = shares
        self._missing = len(shares)
        self._settled = asyncio.Event()

    def arrive(self) -> bool:
        """Note that a shard has reached the batch; return whether it is the last one."""
        self._missing -= 1
        return not self._missing

    def settle(self) -> None:
        """Note that all writes have an answer, so that the waiting shards continue."""
        if self._settled.is_set():
            return
        self._settled.set()
        for shard, writes in self.shares.items():
            shard.unanswered -= writes

    async def settled(self) -> None:
        """Wait until all writes have an answer."""
        await self._settled.wait()
