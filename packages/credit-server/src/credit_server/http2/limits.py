"""Limits on connections: how many, how long, and how much a peer may ask of one."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionLimits:
    """Limits on connections. Times are in seconds.

    Attributes:
        connections_max: Connections that may be open at once.
        connections_per_peer_max: Of these, those of one address (of one /64 network in IPv6).
        handshake_seconds: How long a client has for each step that must come in one go: the TLS
            handshake, the connection preface with its SETTINGS, a header block.
        idle_seconds: How long a connection stays open without a call.
        age_seconds: How long a connection stays open at all, give or take a tenth; 0: no limit.
        age_grace_seconds: How long running calls may still hold a connection that is too old.
        keepalive_seconds: How long a peer with open calls may be silent before it is asked.
        keepalive_timeout_seconds: How long it then has to say anything.
        stalled_seconds: How long a peer may refuse what the server has to send.
        closing_seconds: How long a peer has to read why its connection is closed.
        streams_max: Calls that may be open at once on a connection.
        lists_max: Of these, the lists of one caller that run at once; its others wait until one
            has ended.
        header_bytes_max: The headers of a call, as decoded (RFC 9113, section 6.5.2). More rejects
            the call; four times as much, as written or as decoded, ends the connection.
        stream_window_bytes: Bytes of a request that may be unread, from 65,535.
        connection_window_bytes: Bytes of all requests that may be unread, from 65,535.
        request_bytes_max: Bytes of requests that a connection's open calls may hold.
        write_buffer_bytes: Bytes that wait for a peer before its calls have to wait.
        resets_per_second: Calls that a peer may reset, or be reset for, in the long run.
        resets_burst: And at once.
        control_frames_per_second: Frames beside calls and their data that a peer may send in the
            long run.
        control_frames_burst: And at once.
    """

    connections_max: int = 10_000
    connections_per_peer_max: int = 1_000
    handshake_seconds: float = 10.0
    idle_seconds: float = 300.0
    age_seconds: float = 0.0
    age_grace_seconds: float = 60.0
    keepalive_seconds: float = 60.0
    keepalive_timeout_seconds: float = 20.0
    stalled_seconds: float = 30.0
    closing_seconds: float = 1.0
    streams_max: int = 256
    lists_max: int = 16
    header_bytes_max: int = 16_384
    stream_window_bytes: int = 65_535
    connection_window_bytes: int = 1_048_576
    request_bytes_max: int = 2_097_152
    write_buffer_bytes: int = 65_536
    resets_per_second: int = 200
    resets_burst: int = 1_000
    control_frames_per_second: int = 500
    control_frames_burst: int = 2_000
