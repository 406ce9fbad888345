"""How the workers of a run send cases: within one rate limit, shared or one worker alone."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from grpc_fuzz.client import Client
from grpc_fuzz.model import Case, Reply
from grpc_fuzz.schema import Schema
from grpc_fuzz.settings import Settings
from grpc_fuzz.wire.play import play


class Sender:
    """Sends cases to the server under test. Safe to share between threads.

    Attributes:
        client: Makes ordinary calls and health checks.
    """

    def __init__(self, settings: Settings, schema: Schema) -> None:
        self._settings = settings
        self._schema = schema
        self._rate_limit = RateLimit(settings.rate_limit)
        self._lock = SharedExclusiveLock()
        self.client = Client(settings.target, schema, settings.limits, settings.metadata_of)

    def send(self, case: Case) -> Reply:
        """Send a case, without the calls before it, and return the reply."""
        self._rate_limit.wait()
        settings = self._settings
        with self._lock.shared():
            if case.wire is None:
                return self.client.send(case)
            metadata = settings.metadata_of(case.presented)
            return play(case, settings.target, settings.limits, self._schema, metadata)

    def exclusive(self) -> AbstractContextManager[None]:
        """Return a context in which no other thread sends cases."""
        return self._lock.exclusive()


class RateLimit:
    """A limit on calls per second that spaces calls evenly. Safe to share between threads."""

    def __init__(self, per_second: float | None) -> None:
        self._interval = 0.0 if per_second is None else 1.0 / per_second
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next call may be made."""
        if not self._interval:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._interval
        time.sleep(start - now)


class SharedExclusiveLock:
    """A lock that many threads share, or that one thread holds alone.

    A thread that waits for exclusive access goes before threads that wait for shared access. The
    thread with exclusive access may also take the lock shared.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shared = 0
        self._exclusive_waiting = 0
        self._owner: int | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Wait until no other thread has exclusive access."""
        me = threading.get_ident()
        if self._owner == me:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._owner is None and not self._exclusive_waiting)
            self._shared += 1
        try:
            yield
        finally:
            with self._changed:
                self._shared -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until all other threads have released the lock, and make them wait."""
        with self._changed:
            self._exclusive_waiting += 1
            self._changed.wait_for(lambda: self._owner is None and not self._shared)
            self._exclusive_waiting -= 1
            self._owner = threading.get_ident()
        try:
            yield
        finally:
            with self._changed:
                self._owner = None
                self._changed.notify_all()
