"""What a peer may do with its connections."""

from typing import Annotated

from pydantic import BaseModel, Field

from credit_server.settings.units import Count, Seconds

Bytes = Annotated[int, Field(ge=1024, le=2**31 - 1)]
# RFC 9113, section 6.9.2: what a client may send before it has seen any other figure.
Window = Annotated[int, Field(ge=65_535, le=2**31 - 1)]


class ConnectionSettings(BaseModel):
    """What a peer may do with its connections."""

    connections_max: Count = Field(
        default=10_000, description="connections that may be open at once"
    )
    connections_per_peer_max: Count = Field(
        default=1_000,
        description="connections that one address may have open; raise it behind a proxy, which is"
        " one address for all",
    )
    connection_handshake_seconds: Seconds = Field(
        default=10.0,
        description="how long a client has for its TLS handshake, for its HTTP/2 preface, and for"
        " each block of headers",
    )
    connection_idle_seconds: Seconds = Field(
        default=300.0, description="how long a connection stays open without a call"
    )
    connection_age_seconds: float = Field(
        default=0.0,
        ge=0,
        le=604_800,
        description="how long a connection stays open at all, give or take a tenth, so that clients"
        " spread over servers anew; 0: no limit",
    )
    connection_age_grace_seconds: Seconds = Field(
        default=60.0, description="how long running calls may hold a connection that is too old"
    )
    connection_keepalive_seconds: Seconds = Field(
        default=60.0,
        description="how long a client with open calls may be silent before it is sent a PING",
    )
    connection_keepalive_timeout_seconds: Seconds = Field(
        default=20.0, description="how long it may leave the PING unanswered"
    )
    connection_stalled_seconds: Seconds = Field(
        default=30.0,
        description="how long a client may take nothing of what it is sent: its call is ended, or"
        " its connection where not even the socket takes more. A list that waits for its turn takes"
        " nothing: it must be more than CREDIT_LIST_WAIT_SECONDS_MAX and"
        " CREDIT_STORE_TIMEOUT_SECONDS together",
    )
    connection_closing_seconds: Seconds = Field(
        default=1.0, description="how long a client has to read why its connection is closed"
    )
    connection_streams_max: Count = Field(
        default=256, description="calls that may be open at once on a connection"
    )
    connection_lists_max: Count = Field(
        default=16,
        description="lists of one caller that run at once on a connection, and wait for their"
        " client; its others begin when one of them has ended",
    )
    connection_header_bytes_max: Bytes = Field(
        default=16_384,
        description="longest headers of a call; more rejects the call, and four times as much ends"
        " the connection",
    )
    connection_window_bytes: Window = Field(
        default=1_048_576, description="bytes that a connection's requests may have unread"
    )
    connection_stream_window_bytes: Window = Field(
        default=65_535, description="bytes that one request may have unread"
    )
    connection_request_bytes_max: Bytes = Field(
        default=2_097_152,
        description="bytes of requests that a connection's open calls may hold; at least those of"
        " the longest message, message_bytes_max, and 5 more",
    )
    connection_write_buffer_bytes: Bytes = Field(
        default=65_536, description="bytes that may wait for a client before its calls have to wait"
    )
    connection_resets_per_second: Count = Field(
        default=200,
        description="calls that a client may reset, or be reset for, in the long run; more closes"
        " the connection",
    )
    connection_resets_burst: Count = Field(default=1_000, description="and at once")
    connection_control_frames_per_second: Count = Field(
        default=500,
        description="frames beside calls and their data that a client may send in the long run;"
        " each DATA frame that it is sent allows for 4 more; beyond it the connection is closed",
    )
    connection_control_frames_burst: Count = Field(default=2_000, description="and at once")
