"""Choose the library that reads and writes HTTP/2 frames: nghttp2, in C, or h2, in Python."""

import importlib.util
from collections.abc import Callable
from enum import StrEnum
from typing import cast

from credit_server.http2.frames import ServerFrames
from credit_server.http2.limits import ConnectionLimits

OpenFrames = Callable[[ConnectionLimits, float], ServerFrames]


class Engine(StrEnum):
    """The library for HTTP/2."""

    AUTO = "auto"
    NGHTTP2 = "nghttp2"
    H2 = "h2"


class EngineMissing(Exception):
    """The chosen library is not installed."""


def chosen(engine: Engine) -> Engine:
    """Return the library that is used: with `AUTO`, nghttp2 where it is installed.

    Raises:
        EngineMissing: nghttp2 is chosen, and not installed.
    """
    installed = importlib.util.find_spec("ngh2") is not None
    if engine is Engine.AUTO:
        return Engine.NGHTTP2 if installed else Engine.H2
    if engine is Engine.NGHTTP2 and not installed:
        raise EngineMissing(
            "CREDIT_HTTP2 is nghttp2, and the package ngh2 is not installed: install"
            " credit-server[fast], or set CREDIT_HTTP2 to auto or h2"
        )
    return engine


def open_frames(engine: Engine) -> OpenFrames:
    """Return what opens the frames of a connection.

    Raises:
        EngineMissing: nghttp2 is chosen, and not installed.
    """
    if chosen(engine) is Engine.H2:
        return ServerFrames
    from credit_server.http2.nghttp2_frames import Nghttp2Frames  # noqa: PLC0415 - an extra

    # It is no subclass: it has the same methods, and none of h2's state.
    return cast(OpenFrames, Nghttp2Frames)
