"""Limits on connections: how many, how long, and how much a peer may ask of one."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from credit_server.units import Bytes, Count, Seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionLimits:
    """Limits on connections. Times are in seconds."""

    connections_max: Count = 10_000
    """Connections that may be open at once."""

    connections_per_peer_max: Count = 1_000
    """Connections that one address (in IPv6: one /64 network) may have open. Raise it behind a
    proxy, which is one address for all clients."""

    handshake_seconds: Seconds = 10.0
    """Time that a client has for its TLS handshake, for its HTTP/2 preface with SETTINGS, and for
    each block of headers."""

    idle_seconds: Seconds = 300.0
    """Time that a connection stays open without a call."""

    age_seconds: Annotated[float, Ge(0), Le(604_800)] = 0.0
    """Time that a connection stays open at all, plus or minus a tenth. Clients then reconnect and
    spread over the servers again. 0: no limit."""

    age_grace_seconds: float = 60.0
    """Time that running calls may still hold a connection that is too old."""

    keepalive_seconds: Seconds = 60.0
    """Time that a client with open calls may be silent before the server sends it a PING."""

    keepalive_timeout_seconds: float = 20.0
    """Time that a client may leave the PING unanswered."""

    stalled_seconds: Seconds = 30.0
    """Time that a client may read nothing of what the server sends: its call ends then, or its
    connection where the socket takes no more either. A list reads nothing while it waits
    for its turn (5 s at most) and for the store: it must be more than both together."""

    closing_seconds: float = 1.0
    """Time that a client has to read why its connection is closed."""

    streams_max: Count = 256
    """Calls that may be open at once on a connection."""

    lists_max: Count = 16
    """Lists of one caller that run at once on a connection. Its other lists wait until one ends."""

    header_bytes_max: Bytes = 16_384
    """Longest headers of a call, as decoded (RFC 9113, section 6.5.2). Longer headers reject the
    call. Four times as much, encoded or decoded, ends the connection."""

    stream_window_bytes: int = 65_535
    """Bytes of one request that may be unread. At least 65,535, which a client may send before it
    has seen another figure (RFC 9113, section 6.9.2)."""

    connection_window_bytes: int = 1_048_576
    """Bytes of all requests of a connection that may be unread, at least 65,535."""

    request_bytes_max: int = 2_097_152
    """Bytes of requests that a connection's open calls may hold."""

    write_buffer_bytes: int = 65_536
    """Bytes that may wait for a client before its calls have to wait."""

    resets_per_second: int = 200
    """Calls that a client may reset, or be reset for, in the long run."""

    resets_burst: int = 1_000
    """Resets that a client may cause at once."""

    control_frames_per_second: int = 500
    """Frames other than calls and their data that a client may send in the long run."""

    control_frames_burst: int = 2_000
    """Frames other than calls and their data that a client may send at once."""
