"""Read a stream of `Watch`: the open attempt, and the token with which it continues."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace

from credit_models import WatchRequest
from credit_models import WatchResponse as WatchEvent
from grpclib.const import Status

from credit_client.methods import WATCH
from credit_client.transport import AttemptFailed, Transport

# The interval of events with only a token that the contract defines.
_PROGRESS_SECONDS = 15

# A stream without an event for this many intervals is broken.
_SILENT_INTERVALS = 3


class Watching:
    """Reads a stream in one or more attempts, each of which continues after the last event.

    Attributes:
        begun: Whether an event has arrived.
        events: The number of events of the current attempt.
        silence_seconds: How long the server may send nothing.
    """

    def __init__(self, request: WatchRequest) -> None:
        """Open nothing yet. The user of the request may be set until the first attempt."""
        self.begun = False
        self.events = 0
        self.silence_seconds = _SILENT_INTERVALS * (request.progress_seconds or _PROGRESS_SECONDS)
        self._request = request
        self._messages: AsyncGenerator[WatchEvent, None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether an attempt is under way."""
        return self._messages is not None

    def open(self, transport: Transport, *, request_id: str, metadata: Mapping[str, str]) -> None:
        """Begin an attempt after the last event."""
        self.events = 0
        self._messages = transport.stream(
            WATCH, self._request, request_id=request_id, metadata=metadata
        )

    async def event(self) -> WatchEvent | None:
        """Receive the next event of the attempt, or None at the end of the stream.

        Raises:
            AttemptFailed: The attempt has ended too early.
        """
        if self._messages is None:
            raise RuntimeError("the stream is not open")
        try:
            event = await anext(self._messages, None)
        except BaseException:
            # An exception ends a generator.
            self._messages = None
            raise
        if event is not None:
            self.begun = True
            self.events += 1
            self._request = replace(self._request, resume_token=event.resume_token)
        return event

    async def close(self) -> None:
        """End the attempt that is under way, if any."""
        messages, self._messages = self._messages, None
        if messages is not None:
            await messages.aclose()


class SilentStream(AttemptFailed):
    """The server has sent no event for too long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(Status.UNAVAILABLE, f"the server sent no event within {seconds:g} s")
