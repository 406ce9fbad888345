"""Turns of the workers at the server: many together, or one alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that many threads share, or one holds alone.

    A thread that wants it alone goes before those that share it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._waiting = 0
        self._alone: int | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait until no other thread holds the lock alone."""
        me = threading.get_ident()
        if self._alone == me:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._alone is None and not self._waiting)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until all others have ended their turns, and keep them waiting."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._alone is None and not self._sharing)
            self._waiting -= 1
            self._alone = threading.get_ident()
        try:
            yield
        finally:
            with self._changed:
                self._alone = None
                self._changed.notify_all()
