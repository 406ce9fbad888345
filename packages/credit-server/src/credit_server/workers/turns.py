"""Turns of shards: of all workers of a machine, one at a time commits a batch of a shard.

Without turns, transactions of several workers conflict on users and are done twice, and each batch
is smaller, because it holds the writes of one worker alone.
"""

import asyncio
import fcntl
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

# A lock to take the turn, and one to be the next: the worker that returns a turn would otherwise
# take it again before those that wait have woken up.
_LOCKS = 2


def make_turns(count: int) -> list[int]:
    """Return the descriptors of files in memory, for the turns of a number of shards."""
    return [os.memfd_create("credit-server-turn") for _ in range(count * _LOCKS)]


def open_turns(descriptors: Sequence[int]) -> list["Turn"]:
    """Return the turns whose files `make_turns` has made, in a process that has inherited them."""
    own = [os.open(f"/proc/self/fd/{each}", os.O_RDWR | os.O_CLOEXEC) for each in descriptors]
    for each in descriptors:
        os.close(each)
    return [Turn(*own[at : at + _LOCKS]) for at in range(0, len(own), _LOCKS)]


class Turn:
    """The turn of one shard, as an async context manager.

    The kernel releases the locks of a process that ends, however it ends.
    """

    def __init__(self, turn: int, queue: int) -> None:
        """Prepare to take the turn.

        Args:
            turn: A descriptor of the file whose lock is the turn. Locks belong to open files, so
                each process must have opened it itself.
            queue: The same for the place behind it.
        """
        self._turn = turn
        self._queue = queue
        self._thread = ThreadPoolExecutor(1, "turn")

    async def __aenter__(self) -> None:
        # A lock that is free takes 2 µs. A thread that waits takes about 100 µs of CPU.
        if not self._take_if_free():
            await asyncio.get_running_loop().run_in_executor(self._thread, self._take)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _take_if_free(self) -> bool:
        try:
            fcntl.flock(self._queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)
        return True

    def _take(self) -> None:
        fcntl.flock(self._queue, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)
