"""What clients and servers need beyond asyncio's transports."""

import asyncio
from contextlib import suppress


def abort(transport: asyncio.WriteTransport) -> None:
    """Close a transport at once; unsent data are lost. It may be closed already.

    From Python 3.11.1 to 3.11.3, asyncio's TLS transports raise an AttributeError if they are
    closed already (https://github.com/python/cpython/pull/104485).
    """
    with suppress(AttributeError):
        transport.abort()
