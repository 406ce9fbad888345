"""A simulated replica set: the data of its primary, and the data that a majority has.

Both are in-memory stores. The primary applies an operation at once. After a delay, a majority has
the operation too, and only then the primary confirms it. A failover drops some of the operations
that no majority has. Reads return the data of a majority. Right after a failover, some reads and
transactions reach the old primary, which has older data.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from credit_server.store.memory import MemoryStore
from credit_server.store.port import (
    Changes,
    CommitUnknown,
    Conflict,
    Interrupted,
    LogPage,
    LogPosition,
    LogTruncated,
    StoreUnavailable,
)

from credit_simulate.trace import Trace

_Value = TypeVar("_Value")

Operation = Callable[["Node"], Coroutine[Any, Any, Any]]
"""Changes a node, with the same result on each node. Any: the caller knows the type."""

_REPLICATION_SECONDS = (0.002, 0.05)
"""The mean times until a majority has an operation. Each cluster takes one of them."""

_ELECTION_SECONDS = 2.0
_STALE_SECONDS = 2.0
_BEHIND_MAX = 3
"""The most operations that a majority has and an old primary lacks."""
_OLD_SHARE = 0.5
"""The share of the reads right after a failover that reach the old primary."""
_ABANDONED_SECONDS = 3.0
"""How long a mongod keeps a transaction open; `transactionLifetimeLimitSeconds`."""

PAGE_SIZE = 3


class Node(MemoryStore):
    """One state of the data."""

    @property
    def log_end(self) -> int:
        """The number of entries in the log."""
        return len(self._tables.log)

    def page(self, after: int, end: int, app_id: int | None, limit: int) -> LogPage:
        """Return the entries of the log after a position, up to another one."""
        found = self._log_page(after, app_id, self.log_end)
        entries = [entry for entry in found.entries if entry.position.time <= end]
        if len(entries) > limit:
            return LogPage(entries[:limit], entries[limit - 1].position, at_end=False)
        return LogPage(entries, position(end), at_end=True)


def position(place: int) -> LogPosition:
    """Return a position of the log."""
    return LogPosition(place, place.to_bytes(8, "big"))


@dataclass(eq=False, slots=True)
class OpenTransaction:
    """A transaction that is not committed.

    Attributes:
        writer: The session that it belongs to.
        number: Its number in the session; a later one ends it.
        term: The primary on which it began.
        seen: How many operations the primary had when it began.
        node: The node whose data it reads.
        changes: The changes that it writes.
    """

    writer: int
    number: int
    term: int
    seen: int
    node: Node
    changes: list[Changes] = field(default_factory=list)


class Cluster:
    """The replica set that all servers share.

    Attributes:
        primary: The data of the primary.
        majority: The data of a majority.
        term: The number of the primary.
        stale_until: The time until which reads may return older data.
    """

    def __init__(self, random: Random, trace: Trace, wall: Callable[[], float]) -> None:
        """Create an empty replica set.

        Args:
            random: Decides delays, and the operations that a failover loses.
            trace: Receives a line for each event.
            wall: The store's clock, in seconds since 1970.
        """
        self._random = random
        self._trace = trace
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self.primary, self.majority = self._node(), self._node()
        self._old = self.majority
        self._replication_seconds = random.choice(_REPLICATION_SECONDS)
        self.term = 0
        self.stale_until = 0.0
        self._away_until = 0.0
        self._isolated = False
        self._applied: list[Operation] = []
        self._log_ends = [0]  # the length of the log, by the number of operations
        self._replicated = self._prepared = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._sessions: dict[int, int] = {}
        self._locks: dict[int, tuple[OpenTransaction, float]] = {}
        self._grown = asyncio.Event()

    @property
    def wall(self) -> float:
        """The store's time, in seconds since 1970."""
        return self._wall()

    def time(self) -> float:
        """Return the time of the simulation, in seconds."""
        return self._loop.time()

    def check_available(self) -> None:
        """Raise an error while there is no primary.

        Raises:
            StoreUnavailable: There is none.
        """
        if self._loop.time() < self._away_until:
            raise StoreUnavailable("there is no primary")

    def prepare(self, operation: Operation) -> None:
        """Apply an operation on all nodes at once, without a delay."""
        self.apply(operation)
        self._prepared = len(self._applied)
        self._replicate(self._prepared, self.term)

    def apply(self, operation: Operation) -> tuple[int, Any]:
        """Apply an operation on the primary; return how many it has now, and the result."""
        result = complete(operation(self.primary))
        self._applied.append(operation)
        self._log_ends.append(self.primary.log_end)
        number, term = len(self._applied), self.term
        delay = self._random.expovariate(1 / self._replication_seconds)
        self._loop.call_later(delay, self._replicate, number, term)
        return number, result

    def begin(self, writer: int) -> OpenTransaction:
        """Begin a transaction of a session, and end the session's previous one.

        Soon after a failover, it may begin on the old primary, which cannot commit it.
        """
        number = self._sessions[writer] = self._sessions.get(writer, 0) + 1
        if self._reaches_old():
            return OpenTransaction(writer, number, self.term - 1, 0, self._old)
        return OpenTransaction(writer, number, self.term, len(self._applied), self.primary)

    def leave_open(self, transaction: OpenTransaction) -> None:
        """Leave a transaction open, which blocks other writes of its documents for some time."""
        until = self._loop.time() + _ABANDONED_SECONDS
        for changes in transaction.changes:
            for _, account in changes.accounts:
                self._locks[account.user_id] = (transaction, until)

    def check_readable(self, transaction: OpenTransaction) -> None:
        """Check that a transaction can read.

        Raises:
            StoreUnavailable: There is no primary.
            Interrupted: The transaction has ended.
        """
        if transaction.node is not self._old or self._loop.time() >= self.stale_until:
            self.check_available()
            self.check_open(transaction)

    def check_open(self, transaction: OpenTransaction) -> None:
        """Check that a transaction has not ended.

        Raises:
            Interrupted: It has ended.
        """
        later = self._sessions[transaction.writer] != transaction.number
        if transaction.term != self.term or later:
            raise Interrupted("the transaction has ended")

    def commit(self, transaction: OpenTransaction, answer: "asyncio.Future[None]") -> None:
        """Commit, and return when a majority has all that was read and written."""
        number = transaction.seen
        try:
            self.check_available()
            self.check_open(transaction)
            if transaction.changes:
                self._check_locks(transaction)
                number, _ = self.apply(_writing(transaction.changes))
        except (Conflict, Interrupted, StoreUnavailable) as error:
            if not answer.done():
                answer.set_exception(error)
            return
        self.confirm(number, answer)

    def confirm(self, number: int, answer: "asyncio.Future[None]") -> None:
        """Return when a majority has the given number of operations."""
        if self._replicated >= number:
            if not answer.done():
                answer.set_result(None)
        else:
            self._waiting.append((number, answer))

    def isolate(self) -> None:
        """Cut off the primary from the other nodes, until the next failover."""
        self._isolated = True

    def fail_over(self) -> None:
        """Elect another primary, which has all operations that a majority has."""
        latest = self._replicated if self._isolated else len(self._applied)
        kept = self._random.randint(self._replicated, latest)
        self._isolated = False
        self._trace("store", f"failover: {len(self._applied) - kept} operations are lost")
        self.term += 1
        del self._applied[kept:], self._log_ends[kept + 1 :]
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            if not answer.done():
                answer.set_exception(CommitUnknown("the primary has changed"))
        self._locks.clear()
        self.primary = self._replayed(kept)
        now = self._loop.time()
        self._away_until = now + self._random.uniform(0, _ELECTION_SECONDS)
        self.stale_until = self._away_until + self._random.uniform(0, _STALE_SECONDS)
        behind = self._replicated - self._random.randint(0, _BEHIND_MAX)
        self._old = self._replayed(max(self._prepared, behind))
        self._loop.call_at(self._away_until, self._replicate, kept, self.term)

    def readable(self) -> Node:
        """Return the data for a read. Soon after a failover, it is that of either primary.

        Raises:
            StoreUnavailable: The read goes to the new primary, which is not elected yet.
        """
        if self._reaches_old():
            return self._old
        self.check_available()
        return self.majority

    def keeps(self, operation: Operation) -> bool:
        """Return whether the primary has an operation."""
        return operation in self._applied

    @property
    def log_end(self) -> int:
        """The position up to which a majority has the log."""
        return self._log_ends[self._replicated]

    async def log_grows(self, after: int) -> None:
        """Wait until the log has more than a position."""
        while self.log_end <= after:
            self._grown.clear()
            await self._grown.wait()

    def read_log(self, after: int, app_id: int, limit: int) -> LogPage:
        """Return a page of the log. Soon after a failover, it is that of either primary.

        Raises:
            LogTruncated: The log of the new primary does not have the position.
            StoreUnavailable: The read goes to the new primary, which is not elected yet.
        """
        if self._reaches_old():
            # mongod also reads from a position that it does not have yet.
            return self._old.page(after, max(after, self._old.log_end), app_id, limit)
        self.check_available()
        return self.log_page(after, app_id, limit)

    def log_page(self, after: int, app_id: int | None, limit: int) -> LogPage:
        """Return a page of the log that a majority has.

        Raises:
            LogTruncated: The log does not have the position.
        """
        if after > self.log_end:
            raise LogTruncated("the log does not have the position")
        return self.primary.page(after, self.log_end, app_id, limit)

    def _reaches_old(self) -> bool:
        return self._loop.time() < self.stale_until and self._random.random() < _OLD_SHARE

    def _node(self) -> Node:
        return Node(page_size=PAGE_SIZE, clock=self._wall)

    def _replayed(self, count: int) -> Node:
        node = self._node()
        for operation in self._applied[:count]:
            complete(operation(node))
        return node

    def _replicate(self, number: int, term: int) -> None:
        """Let a majority have the first operations."""
        if term != self.term or self._isolated:
            return
        for operation in self._applied[self._replicated : number]:
            complete(operation(self.majority))
        self._replicated = max(self._replicated, number)
        self._grown.set()
        waiting, self._waiting = self._waiting, []
        for waited, answer in waiting:
            self.confirm(waited, answer)

    def _check_locks(self, transaction: OpenTransaction) -> None:
        for changes in transaction.changes:
            for _, account in changes.accounts:
                holder, until = self._locks.get(account.user_id, (transaction, 0.0))
                current = self._sessions[holder.writer] == holder.number
                if holder is not transaction and current and until > self._loop.time():
                    raise Conflict(f"another transaction has written user {account.user_id}")


def complete(work: Coroutine[Any, Any, _Value]) -> _Value:
    """Return the result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        value: _Value = end.value
        return value
    work.close()
    raise AssertionError("an operation of the memory store waits")


def _writing(changes: list[Changes]) -> Operation:
    async def write(node: Node) -> None:
        async with node.begin() as transaction:
            for each in changes:
                await transaction.write(each)
            await transaction.commit()

    return write
