"""The end of one connection, in which no call is lost (RFC 9113, section 6.8).

1. GOAWAY with the highest stream id there is, and a PING. The client begins no more calls on this
   connection. Calls that cross the GOAWAY are served.
2. The PING's acknowledgement comes behind all calls that the client began before it read the
   GOAWAY. A second GOAWAY carries the id of the last one. Later calls are refused with
   REFUSED_STREAM: the client knows that nothing happened, and may send them to another server.
3. The connection is closed once its calls have been answered.

A single GOAWAY with the last stream id would lose the calls that cross it: a proxy does not retry
a POST by itself.
"""

from credit_server.http2.connections import Closing
from credit_server.http2.frames import ServerFrames

PING_DATA = b"draining"
"""Tells the PING of a drain from the PING that asks whether a silent client is still there."""
_PING_SECONDS_MAX = 5.0
"""How long a client has to acknowledge the PING. A round trip takes far less; a client that is
suspended acknowledges nothing, and must not keep a server from stopping."""


class Drain:
    """Where one connection is in its end.

    Attributes:
        reason: Why the connection ends.
        final: Whether the last stream id was sent, so that no call can be added.
    """

    def __init__(self, frames: ServerFrames, reason: Closing, now: float) -> None:
        """Write the first GOAWAY and the PING.

        Args:
            frames: The connection's frames; the caller flushes them.
            reason: Why the connection ends.
            now: The time in seconds.
        """
        self.reason = reason
        self.final = False
        self._frames = frames
        self._acknowledged_by = now + _PING_SECONDS_MAX
        frames.announce_end()
        frames.ping(PING_DATA)

    def is_overdue(self, now: float) -> bool:
        """Return whether the client has left the PING unanswered for too long."""
        return not self.final and now >= self._acknowledged_by

    def take_no_more(self) -> None:
        """Write the second GOAWAY: calls that come later are refused."""
        if not self.final:
            self.final = True
            self._frames.end_with_latest_stream()
