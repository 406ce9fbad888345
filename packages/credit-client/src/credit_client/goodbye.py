"""A server's graceful GOAWAY: the calls that it has taken in go on, and no call is added.

See RFC 9113, section 6.8. h2 takes no frame after a GOAWAY, and grpclib then ends every call on the
connection. A server that is stopped sends GOAWAY while calls run, and answers them.
"""

import asyncio
from typing import NoReturn

from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import Connection, EventsProcessor
from h2.errors import ErrorCodes
from h2.events import Event
from hyperframe.frame import Frame, GoAwayFrame

_REASON = "the server closes this connection and has not taken in the call"


class Goodbye:
    """Whether the server of one connection has said that it closes it.

    Attributes:
        said: Whether a graceful GOAWAY has come. New calls need another connection.
    """

    def __init__(self, connection: Connection, processor: EventsProcessor) -> None:
        """Listen for GOAWAY.

        Args:
            connection: grpclib's connection.
            processor: Has the connection's open calls.
        """
        self.said = False
        self._connection = connection
        self._processor = processor
        self._frames = connection._connection  # noqa: SLF001 - grpclib has no other way
        self._leave_at_once = self._frames._receive_goaway_frame  # noqa: SLF001
        self._frames._frame_dispatch_table[GoAwayFrame] = self._received  # noqa: SLF001

    def _received(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        if frame.error_code != ErrorCodes.NO_ERROR:
            return self._leave_at_once(frame)
        if not self.said:
            self.said = True
            self._frames.get_next_available_stream_id = _refuse  # type: ignore[method-assign]
            # Calls that wait for a free stream are refused now.
            self._connection.stream_close_waiter.set()
        for stream_id, stream in list(self._processor.streams.items()):
            if stream_id > frame.last_stream_id:
                stream.__terminated__(_REASON)
        # Later: h2 still reads what has come, and the server awaits the answer to its PING.
        asyncio.get_running_loop().call_soon(self.close_if_done)
        return [], []

    def close_if_done(self) -> None:
        """Close the connection if the server has said goodbye and no call is open."""
        if self.said and not self._processor.streams and not self._connection.is_closing():
            self._processor.close("the server has closed the connection")


def _refuse() -> NoReturn:
    raise StreamTerminatedError(_REASON)
