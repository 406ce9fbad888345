"""The time limits of a connection pass at their second, and not a moment before."""

from collections.abc import Callable

import pytest
from credit_server.http2.limits import ConnectionLimits, TimeLimits

LIMITS = ConnectionLimits()
EPSILON = 0.001


def times(limits: ConnectionLimits = LIMITS) -> TimeLimits:
    return TimeLimits(limits, 0.0)


def with_ping() -> TimeLimits:
    pinged = times()
    pinged.ping_sent_at = 0.0
    return pinged


def in_header_block() -> TimeLimits:
    reading = times()
    reading.header_block_since = 0.0
    return reading


def closing() -> TimeLimits:
    ended = times()
    ended.close_at = LIMITS.closing_seconds
    return ended


@pytest.mark.parametrize(
    ("connection", "passed", "seconds"),
    [
        pytest.param(times(), TimeLimits.is_preface_late, LIMITS.handshake_seconds, id="preface"),
        pytest.param(
            in_header_block(),
            TimeLimits.is_header_block_late,
            LIMITS.handshake_seconds,
            id="header block",
        ),
        pytest.param(times(), TimeLimits.is_idle, LIMITS.idle_seconds, id="idle"),
        pytest.param(times(), TimeLimits.is_silent, LIMITS.stalled_seconds, id="silent"),
        pytest.param(times(), TimeLimits.is_keepalive_due, LIMITS.keepalive_seconds, id="PING"),
        pytest.param(
            with_ping(),
            TimeLimits.is_keepalive_unanswered,
            LIMITS.keepalive_timeout_seconds,
            id="no answer to a PING",
        ),
        pytest.param(
            times(),
            lambda connection, now: connection.is_stalled(now, 0.0),
            LIMITS.stalled_seconds,
            id="stalled",
        ),
        pytest.param(
            closing(),
            lambda connection, now: connection.is_close_due(now, unsent=False),
            LIMITS.closing_seconds,
            id="close",
        ),
        pytest.param(
            closing(),
            lambda connection, now: connection.is_close_due(now, unsent=True),
            LIMITS.closing_seconds + LIMITS.stalled_seconds,
            id="close with unsent data",
        ),
    ],
)
def test_a_limit_passes_at_its_time(
    connection: TimeLimits, passed: Callable[[TimeLimits, float], bool], seconds: float
) -> None:
    assert not passed(connection, seconds - EPSILON)
    assert passed(connection, seconds)


def test_what_has_not_begun_never_passes() -> None:
    connection = times()
    assert not connection.is_header_block_late(1e9)
    assert not connection.is_keepalive_unanswered(1e9)
    assert not connection.is_stalled(1e9, None)
    assert not connection.is_close_due(1e9, unsent=False)
    assert not with_ping().is_keepalive_due(1e9)  # one PING at a time


def test_the_age_is_the_limit_give_or_take_a_tenth_and_the_grace_follows_it() -> None:
    limits = ConnectionLimits(age_seconds=100, age_grace_seconds=5)
    ages = []
    for _ in range(200):
        connection = times(limits)
        assert not connection.is_old(90 - EPSILON)
        assert connection.is_old(110)
        assert not connection.is_old(95 - EPSILON, grace=True)
        assert connection.is_old(115, grace=True)
        ages.append(connection.is_old(100))
    assert set(ages) == {True, False}  # connections do not all end together


def test_without_a_limit_on_the_age_no_connection_is_old() -> None:
    assert not times().is_old(1e9)
    assert not times().is_old(1e9, grace=True)
