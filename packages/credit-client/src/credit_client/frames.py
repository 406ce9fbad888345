"""HTTP/2 frames of a client: by nghttp2 where it is installed, else by h2.

Both report a GOAWAY and continue: after a graceful one (RFC 9113, section 6.8) the calls that the
server has accepted continue. h2 itself would accept no frame after it, and grpclib would end every
call on the connection; but a server that stops sends GOAWAY while calls run, and answers them.
"""

from typing import NoReturn, cast

from credit_models.http2_engine import Engine, chosen
from grpclib.config import Configuration
from grpclib.exceptions import StreamTerminatedError
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame

NOT_ACCEPTED = "the server closes this connection and has not accepted the call"


class ClientFrames(H2Connection):
    """One connection's frames by h2."""

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self._refuses = False

    def open(self, config: Configuration) -> None:
        """Write the preface, and the windows that grpclib's configuration names."""
        self.initiate_connection()
        initial = self.local_settings.initial_window_size
        self.increment_flow_control_window(config.http2_connection_window_size - initial)
        self.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: config.http2_stream_window_size})

    def refuse_streams(self) -> None:
        """Fail calls that request a new stream from now on. Open streams continue."""
        self._refuses = True

    def get_next_available_stream_id(self) -> int:
        """Return the id of the stream that is opened next.

        grpclib calls this for a new call, and for a call that has waited for a free stream. It does
        not call it again for a call that has a stream.

        Raises:
            StreamTerminatedError: The connection opens no more streams.
        """
        if self._refuses:
            refuse_stream()
        return super().get_next_available_stream_id()

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        if frame.error_code != ErrorCodes.NO_ERROR:
            return super()._receive_goaway_frame(frame)
        event = ConnectionTerminated()
        event.error_code, event.last_stream_id = ErrorCodes.NO_ERROR, frame.last_stream_id
        return [], [event]


def refuse_stream() -> NoReturn:
    """Fail a call that requests a stream of a connection that accepts no more.

    Raises:
        StreamTerminatedError: Always.
    """
    raise StreamTerminatedError(NOT_ACCEPTED)


def open_frames(engine: Engine, config: Configuration, h2_config: H2Configuration) -> ClientFrames:
    """Return the frames of a new connection, with its preface written.

    Raises:
        EngineMissing: nghttp2 is chosen but not installed.
    """
    if chosen(engine) is Engine.H2:
        frames = ClientFrames(h2_config)
    else:
        from credit_client.nghttp2_frames import Nghttp2Frames  # noqa: PLC0415 - an extra

        # The class has the same methods. It is not a subclass, because it has none of h2's state.
        frames = cast(ClientFrames, Nghttp2Frames())
    frames.open(config)
    return frames
