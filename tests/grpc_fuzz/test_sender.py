"""A sender spaces calls evenly, and lets one worker send alone."""

import threading

import pytest
from grpc_fuzz import sender
from grpc_fuzz.sender import RateLimit, SharedExclusiveLock

ROUNDS = 200


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sender, "time", clock)
    return clock


def test_calls_are_spaced_evenly(clock: Clock) -> None:
    limit = RateLimit(4)
    times = []
    for _ in range(3):
        limit.wait()
        times.append(clock.now)

    assert times == [100.0, 100.25, 100.5]


def test_unused_time_does_not_allow_a_burst(clock: Clock) -> None:
    limit = RateLimit(4)
    limit.wait()
    clock.now += 10
    limit.wait()
    limit.wait()

    assert clock.now == 110.25


def test_without_a_limit_calls_do_not_wait(clock: Clock) -> None:
    limit = RateLimit(None)
    for _ in range(100):
        limit.wait()

    assert clock.now == 100.0


def test_a_thread_with_exclusive_access_runs_alone() -> None:
    lock = SharedExclusiveLock()
    inside: list[str] = []
    seen: list[list[str]] = []

    def shared() -> None:
        for _ in range(ROUNDS):
            with lock.shared():
                inside.append("shared")
                inside.remove("shared")

    def exclusive() -> None:
        for _ in range(ROUNDS):
            with lock.exclusive():
                inside.append("exclusive")
                seen.append([*inside])
                # A thread with exclusive access sends like all others.
                with lock.shared():
                    seen.append([*inside])
                inside.remove("exclusive")

    threads = [threading.Thread(target=work) for work in (shared, shared, exclusive, exclusive)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [["exclusive"]] * ROUNDS * 4


def test_threads_with_shared_access_run_at_the_same_time() -> None:
    lock = SharedExclusiveLock()
    met = threading.Barrier(2)

    def share() -> None:
        with lock.shared():
            met.wait()

    thread = threading.Thread(target=share)
    thread.start()
    share()
    thread.join()
