"""Turns of shards: of all workers of a machine, one at a time commits a batch of a shard.

Without turns, transactions of several workers conflict on users and run twice, and each batch is
smaller, because it holds the writes of one worker alone.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Sequence
from threading import Thread
from types import TracebackType

# One lock is the turn, the other is the right to take it next: without the second lock, the worker
# that returns a turn would take it again before the waiting workers have woken up.
_LOCKS = 2

# The longest wait for a turn: many times the duration of a batch.
_WAIT_SECONDS_MAX = 1.0


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

    The kernel releases the locks of a process that ends, however it ends. A turn saves work and
    protects nothing: if its holder is stalled, the others go on without it.
    """

    def __init__(self, turn: int, queue: int) -> None:
        """Prepare to take the turn.

        Args:
            turn: A descriptor of the file whose lock is the turn. Locks belong to open files, so
                each process must have opened it itself.
            queue: A descriptor, opened in the same way, of the file whose lock is the right to take
                the turn next.
        """
        self._turn = turn
        self._queue = queue
        self._has = False
        self._is_late = False  # a thread still waits, for a batch that went on without the turn

    async def __aenter__(self) -> None:
        self._has = not self._is_late and self.take_if_free()
        if self._has or self._is_late:
            return
        taken = self._take_in_thread()
        try:
            await asyncio.wait({taken}, timeout=_WAIT_SECONDS_MAX)
            self._has = taken.done()
        finally:  # a cancelled wait keeps no turn either
            if not self._has:
                self._is_late = True
                taken.add_done_callback(self._return_late)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._has:
            self._has = False
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def take_if_free(self) -> bool:
        """Take the turn if nothing else has it or waits for it; return whether it was taken."""
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

    def take(self) -> None:
        """Wait for the turn, in a thread that may block."""
        fcntl.flock(self._queue, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)

    def _take_in_thread(self) -> "asyncio.Future[None]":
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[None] = loop.create_future()

        def run() -> None:
            self.take()
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(taken.set_result, None)

        # A daemon: the end of the process must not wait for another process.
        Thread(target=run, name="turn", daemon=True).start()
        return taken

    def _return_late(self, _: "asyncio.Future[None]") -> None:
        self._is_late = False
        fcntl.flock(self._turn, fcntl.LOCK_UN)
