"""The limits on connections, and when the time limits of one connection have passed."""

import random
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from credit_server.units import Count, Seconds

# Connections that were opened together do not all end together.
_AGE_JITTER = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionLimits:
    """Limits on connections. Times are in seconds."""

    connections_max: Count = 10_000
    """Connections that may be open at once. Each worker applies an equal part."""

    connections_per_peer_max: Count = 1_000
    """Connections that one address (in IPv6: one /64 network) may have open. Raise it behind a
    proxy, which is one address for all clients. Each worker applies an equal part."""

    handshake_seconds: float = 10.0
    """Time, above 0, that a client has for its TLS handshake, for its HTTP/2 preface with SETTINGS,
    and for each block of headers. Without a limit, a client that sends half of one holds its
    connection forever."""

    idle_seconds: Seconds = 300.0
    """Time that a connection stays open without a call."""

    age_seconds: Annotated[float, Ge(0), Le(604_800)] = 0.0
    """Time that a connection stays open at all, plus or minus a tenth. Clients then reconnect and
    spread over the servers again. 0: no limit."""

    age_grace_seconds: float = 60.0
    """Time, at least 0, that running calls may still hold a connection that is too old. It lets
    most calls end by themselves."""

    keepalive_seconds: float = 60.0
    """Time, above 0, that a client with open calls may be silent before the server sends it a PING.
    The PING finds a client that has vanished without closing its connection."""

    keepalive_timeout_seconds: float = 20.0
    """Time, above 0, that a client may leave the PING unanswered. Then the connection is closed,
    and its calls no longer occupy the server."""

    stalled_seconds: float = 30.0
    """Time that a client may read nothing of what the server sends. Then its call is ended, or the
    connection if the socket accepts no more data. It must be above the time that a list may wait
    for its turn and for the store together."""

    closing_seconds: float = 1.0
    """Time, at least 0, that a client has to read why its connection is closed: a socket that is
    closed with unread data may discard the final GOAWAY."""

    # The configurations in `deploy/proxy` use the same number. An overloaded server allows fewer.
    streams_max: int = 256
    """Calls that may be open at once on a connection, at least 1."""

    lists_max: int = 16
    """Lists of one caller that run at once on a connection, at least 1. Its other lists wait until
    one ends. A list that its caller reads slowly holds a page in memory."""

    header_bytes_max: int = 16_384
    """Bytes of the longest headers of a call, as decoded (RFC 9113, section 6.5.2); at least 1,024.
    Longer headers reject the call. Four times as much, encoded or decoded, ends the connection:
    up to there the headers are decoded all the same, because HPACK's state must be kept."""

    stream_window_bytes: int = 65_535
    """Bytes of one request that may be unread. At least 65,535, which a client may send before it
    has seen another figure (RFC 9113, section 6.9.2)."""

    connection_window_bytes: int = 1_048_576
    """Bytes of all requests of a connection that may be unread, at least 65,535 (RFC 9113, section
    6.9.2). It bounds the memory of a connection whatever the number of its calls."""

    request_bytes_max: int = 4_194_304
    """Bytes of requests that a connection's open calls may hold, at least twice the longest
    message, because one may arrive while another is read. A call with a stream of requests holds
    only the bytes that it has not read."""

    write_buffer_bytes: int = 65_536
    """Bytes, above 0, that may wait for a client before its calls have to wait. It bounds the
    memory for a client that reads slowly."""

    resets_per_second: int = 200
    """Calls per second, above 0, that a client may reset, or be reset for, in the long run. More is
    a rapid reset: calls cost the server much and the client little."""

    resets_burst: int = 1_000
    """Resets that a client may cause at once, at least 1: a client that is cancelled resets all its
    calls."""

    control_frames_per_second: int = 500
    """Frames per second, above 0, other than calls and their data, that a client may send in the
    long run. More is a flood, which would take the server's time from other connections."""

    control_frames_burst: int = 2_000
    """Frames other than calls and their data that a client may send at once, at least 1: an honest
    client sends many WINDOW_UPDATE frames when it reads a list."""


class TimeLimits:
    """What has happened on one connection and when, and which of its time limits have passed.

    It reads no clock and does no I/O: the connection sets the attributes and passes the time, in
    seconds of one clock.

    Attributes:
        received_at: When the client last sent something.
        idle_since: When the last stream was closed.
        ping_sent_at: When a keepalive PING was sent that nothing has answered yet; None: there is
            none.
        write_blocked_since: Since when the client reads too slowly; None: it does not.
        header_block_since: Since when a header block is incomplete; None: there is none.
        close_at: When the socket is closed after the final GOAWAY; None: that was not sent.
    """

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        """Start the times of a connection that was opened now."""
        self._limits = limits
        self._opened_at = self.received_at = self.idle_since = now
        self._age_seconds = limits.age_seconds * random.uniform(  # noqa: S311 - not a secret
            1 - _AGE_JITTER, 1 + _AGE_JITTER
        )
        self.ping_sent_at: float | None = None
        self.write_blocked_since: float | None = None
        self.header_block_since: float | None = None
        self.close_at: float | None = None

    def is_close_due(self, now: float, *, unsent: bool) -> bool:
        """Return whether the socket must be closed after the final GOAWAY.

        Args:
            now: The time.
            unsent: Whether the client has not read everything yet, for which it gets more time.
        """
        more = self._limits.stalled_seconds if unsent else 0.0
        return self.close_at is not None and now >= self.close_at + more

    def is_silent(self, now: float) -> bool:
        """Return whether the client has sent nothing for as long as it may read nothing."""
        return now - self.received_at >= self._limits.stalled_seconds

    def is_stalled(self, now: float, since: float | None) -> bool:
        """Return whether something has made no progress for too long; None: it makes progress."""
        return _passed(since, self._limits.stalled_seconds, now)

    def is_preface_late(self, now: float) -> bool:
        """Return whether the time for the connection preface has passed."""
        return now - self._opened_at >= self._limits.handshake_seconds

    def is_header_block_late(self, now: float) -> bool:
        """Return whether the time for the current header block has passed."""
        return _passed(self.header_block_since, self._limits.handshake_seconds, now)

    def is_idle(self, now: float) -> bool:
        """Return whether a connection without a stream has been idle for too long."""
        return now - self.idle_since >= self._limits.idle_seconds

    def is_old(self, now: float, *, grace: bool = False) -> bool:
        """Return whether the connection is too old, or even its grace has passed."""
        if not self._age_seconds:
            return False
        seconds = self._limits.age_grace_seconds if grace else 0.0
        return now - self._opened_at - self._age_seconds >= seconds

    def is_keepalive_due(self, now: float) -> bool:
        """Return whether a client with open streams must get a PING."""
        silent = now - self.received_at >= self._limits.keepalive_seconds
        return silent and self.ping_sent_at is None

    def is_keepalive_unanswered(self, now: float) -> bool:
        """Return whether the client has sent nothing since a PING for too long."""
        return _passed(self.ping_sent_at, self._limits.keepalive_timeout_seconds, now)


def _passed(since: float | None, seconds: float, now: float) -> bool:
    return since is not None and now - since >= seconds
