"""Read streams of `Watch` on the wire."""

import struct
from collections.abc import Callable
from typing import Any

from credit_models import WatchRequest, WatchResponse
from credit_models.codec import decode, encode
from credit_testing.calls import Answer, call_headers, framed
from credit_testing.http2_client import Connection

from tests.server.callers import WireCaller
from tests.server.requests import PATHS
from tests.server.serving import until

_PREFIX = struct.Struct(">BI")


class Watched:
    """A stream that a client reads."""

    def __init__(self, wire: Connection, stream: int, answer: Answer) -> None:
        self.wire = wire
        self.stream = stream
        self.answer = answer

    @property
    def events(self) -> list[WatchResponse]:
        """Return the events that have arrived completely."""
        found, data = [], bytes(self.answer.data)
        while len(data) >= _PREFIX.size:
            end = _PREFIX.size + _PREFIX.unpack_from(data)[1]
            if len(data) < end:
                break
            found.append(decode(WatchResponse, data[_PREFIX.size : end]))
            data = data[end:]
        return found

    @property
    def sequences(self) -> list[tuple[int, int]]:
        return [
            (each.transaction.user_id, each.transaction.sequence)
            for each in self.events
            if each.transaction is not None
        ]

    @property
    def token(self) -> str:
        return self.events[-1].resume_token

    async def has(self, condition: Callable[["Watched"], bool]) -> None:
        await until(lambda: condition(self))

    async def has_transactions(self, number: int) -> None:
        await self.has(lambda it: len(it.sequences) >= number)

    async def ended(self) -> Answer:
        return await self.wire.ended(self.answer)


# Any, here and below: the fields of requests have many types.
async def begin(caller: WireCaller, *, wire: Connection | None = None, **fields: Any) -> Watched:
    """Begin a stream, and wait for its first event."""
    wire = wire or caller.wire
    body = framed(encode(WatchRequest(**fields)))
    stream, answer = wire.begin(call_headers(PATHS["Watch"], caller.token), body)
    await answer.begun()
    return Watched(wire, stream, answer)
