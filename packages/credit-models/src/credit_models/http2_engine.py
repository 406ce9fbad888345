"""Choose the library that reads and writes HTTP/2 frames: nghttp2, in C, or h2, in Python."""

import importlib.util
from enum import StrEnum


class Engine(StrEnum):
    """The library for HTTP/2."""

    AUTO = "auto"
    NGHTTP2 = "nghttp2"
    H2 = "h2"


class EngineMissing(ValueError):
    """The chosen library is not installed."""


def chosen(engine: Engine) -> Engine:
    """Return the library to use: for `AUTO`, nghttp2 if it is installed, else h2.

    Raises:
        EngineMissing: nghttp2 is chosen but not installed.
    """
    installed = importlib.util.find_spec("ngh2") is not None
    if engine is Engine.AUTO:
        return Engine.NGHTTP2 if installed else Engine.H2
    if engine is Engine.NGHTTP2 and not installed:
        raise EngineMissing(
            "nghttp2 is chosen, but the package ngh2 is not installed: install the extra 'fast' of"
            " credit-server or credit-client, or set CREDIT_HTTP2 to auto or h2"
        )
    return engine
