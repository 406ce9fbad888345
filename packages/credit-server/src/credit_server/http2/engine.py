"""Open the frames of a connection with the chosen library for HTTP/2."""

from collections.abc import Callable
from typing import cast

from credit_models.http2_engine import Engine, chosen

from credit_server.http2.frames import ServerFrames
from credit_server.http2.limits import ConnectionLimits

__all__ = ["Engine", "OpenFrames", "chosen", "open_frames"]

OpenFrames = Callable[[ConnectionLimits, float], ServerFrames]


def open_frames(engine: Engine) -> OpenFrames:
    """Return what opens the frames of a connection.

    Raises:
        EngineMissing: nghttp2 is chosen but not installed.
    """
    if chosen(engine) is Engine.H2:
        return ServerFrames
    from credit_server.http2.nghttp2_frames import Nghttp2Frames  # noqa: PLC0415 - an extra

    # The class has the same methods. It is not a subclass, because it has none of h2's state.
    return cast(OpenFrames, Nghttp2Frames)
