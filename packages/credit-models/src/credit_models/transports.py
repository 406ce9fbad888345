"""Abort transports safely with all supported releases of Python."""

import asyncio
from contextlib import suppress


def abort(transport: asyncio.WriteTransport) -> None:
    """Close a transport at once and discard unsent data.

    In Python 3.11.1 to 3.11.3, `abort` of a closed TLS transport of asyncio raises an
    AttributeError (https://github.com/python/cpython/pull/104485).
    """
    with suppress(AttributeError):
        transport.abort()
