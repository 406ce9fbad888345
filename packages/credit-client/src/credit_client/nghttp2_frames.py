"""HTTP/2 frames of a client by nghttp2."""

import ngh2
from credit_models.nghttp2 import EngineConnection, EngineStream, Headers
from grpclib.config import Configuration
from h2.events import Event
from h2.exceptions import TooManyStreamsError
from h2.settings import SettingCodes

from credit_client.frames import refuse_stream


class Nghttp2Frames(EngineConnection):
    """One connection's frames; see `ClientFrames`."""

    def __init__(self) -> None:
        super().__init__(ngh2.Role.CLIENT, ngh2.Configuration(auto_window_update=False))
        # RFC 9113, section 6.5.2: there is no limit until the server has sent one.
        self._streams_max = 2**31 - 1
        self._refuses = False

    def open(self, config: Configuration) -> None:
        """Write the preface, and the windows that grpclib's configuration names."""
        self._engine.initiate_connection(
            {
                ngh2.Setting.ENABLE_PUSH: 0,
                ngh2.Setting.INITIAL_WINDOW_SIZE: config.http2_stream_window_size,
            }
        )
        self._engine.set_local_window_size(config.http2_connection_window_size)

    def refuse_streams(self) -> None:
        """Fail calls that request a new stream from now on. Open streams continue."""
        self._refuses = True

    def receive_data(self, data: bytes) -> list[Event]:
        """Handle what the server has sent.

        Raises:
            ConnectionFault: The connection ends; a GOAWAY is written.
        """
        events: list[Event] = []
        self._feed(data, events)
        return events

    def get_next_available_stream_id(self) -> int:
        """Return the id of the stream that `send_headers` opens next.

        Raises:
            StreamTerminatedError: The connection opens no more streams.
        """
        if self._refuses or self._failed:
            refuse_stream()
        return self._engine.next_stream_id

    def send_headers(self, stream_id: int, headers: Headers, end_stream: bool = False) -> None:
        """Open a stream with the headers of a call.

        Raises:
            TooManyStreamsError: The server allows no more streams at once.
        """
        if len(self.streams) >= self._streams_max:
            raise TooManyStreamsError(f"the server allows {self._streams_max} streams at once")
        self._engine.send_request(self._encode(headers), end_stream=end_stream)
        stream = self.streams[stream_id] = EngineStream(0)
        stream.headers_sent, stream.local_ended = True, end_stream

    def _take_other(self, event: ngh2.Event, events: list[Event]) -> None:
        if isinstance(event, ngh2.SettingsReceived):
            limit = event.settings.get(SettingCodes.MAX_CONCURRENT_STREAMS)
            if limit is not None:
                self._streams_max = limit
        super()._take_other(event, events)
