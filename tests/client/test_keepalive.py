"""Keepalive: when a server is asked, what counts as its answer, and when it is given up."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from credit_client.keepalive import Keepalive, KeepaliveTimes


class Timer:
    """A timer that is due when the test sets it off."""

    def __init__(self, due_seconds: float, action: Callable[[], None]) -> None:
        self.due_seconds = due_seconds
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass(kw_only=True)
class Clock:
    """The event loop's `call_later`, in a time that the test moves on."""

    now_seconds: float = 0.0
    timers: list[Timer] = field(default_factory=list)

    def call_later(self, seconds: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        self.timers.append(Timer(self.now_seconds + seconds, action))
        return self.timers[-1]  # type: ignore[return-value] # a TimerHandle needs a loop

    @property
    def running(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def pass_until(self, seconds: float) -> None:
        while due := [timer for timer in self.running if timer.due_seconds <= seconds]:
            timer = min(due, key=lambda one: one.due_seconds)
            self.timers.remove(timer)
            self.now_seconds = timer.due_seconds
            timer.action()
        self.now_seconds = seconds


@dataclass(kw_only=True)
class RecordingPeer:
    """Notes when it was asked and given up."""

    clock: Clock
    awaited: bool = True
    asked_at: list[float] = field(default_factory=list)
    given_up_at: list[float] = field(default_factory=list)

    def was_awaited(self) -> bool:
        return self.awaited

    def ping(self) -> None:
        self.asked_at.append(self.clock.now_seconds)

    def give_up(self) -> None:
        self.given_up_at.append(self.clock.now_seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def peer(clock: Clock) -> RecordingPeer:
    return RecordingPeer(clock=clock)


def _keepalive(peer: RecordingPeer, *, timeout_seconds: float = 5.0) -> Keepalive:
    times = KeepaliveTimes(period_seconds=10.0, timeout_seconds=timeout_seconds)
    return Keepalive(times, peer, call_later=peer.clock.call_later)


def test_a_server_that_answers_gets_a_ping_in_each_period_and_is_never_given_up(
    clock: Clock, peer: RecordingPeer
) -> None:
    keepalive = _keepalive(peer)
    for seconds in (11, 21, 31):
        clock.pass_until(seconds)
        keepalive.heard()
    clock.pass_until(39)
    assert peer.asked_at == [10, 20, 30]
    assert not peer.given_up_at


def test_a_server_that_does_not_answer_is_given_up_after_the_timeout(
    clock: Clock, peer: RecordingPeer
) -> None:
    _keepalive(peer)
    clock.pass_until(14)
    assert not peer.given_up_at
    clock.pass_until(15)
    assert peer.given_up_at == [15]


def test_a_server_that_no_call_waits_for_gets_no_ping(clock: Clock, peer: RecordingPeer) -> None:
    peer.awaited = False
    _keepalive(peer)
    clock.pass_until(100)
    assert not peer.asked_at
    assert not peer.given_up_at
    peer.awaited = True
    clock.pass_until(110)
    assert peer.asked_at == [110]


def test_a_ping_without_an_answer_so_far_is_not_sent_twice(
    clock: Clock, peer: RecordingPeer
) -> None:
    _keepalive(peer, timeout_seconds=35)
    clock.pass_until(44)
    assert peer.asked_at == [10]
    clock.pass_until(45)
    assert peer.given_up_at == [45]


def test_nothing_runs_once_it_is_stopped(clock: Clock, peer: RecordingPeer) -> None:
    keepalive = _keepalive(peer)
    clock.pass_until(11)
    assert len(clock.running) == 2
    keepalive.stop()
    keepalive.stop()
    assert not clock.running
