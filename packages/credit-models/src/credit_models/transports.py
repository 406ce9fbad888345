"""Abort transports safely with all supported releases of Python."""

import asyncio


def abort(transport: asyncio.WriteTransport) -> None:
    """Close a transport at once and discard unsent data; do nothing for a closed TLS transport.

    In Python 3.11.1 to 3.11.3, `abort` of a closed TLS transport of asyncio raises an
    AttributeError (https://github.com/python/cpython/pull/104485).
    """
    try:
        transport.abort()
    except AttributeError:
        if getattr(transport, "_ssl_protocol", transport) is not None:
            raise
