"""Open streams that are reset at once: by the attacker, or by the server after a fault."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from credit_testing import frames
from credit_testing.frames import ErrorCode, Flag
from credit_testing.http2_client import Connection

from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.requests import BALANCE, balance_message, call_block

_RAPID_RESETS = 20_000
_MADE_RESETS = 5_000
_PER_PIECE = 100
"""The number of streams in one send."""
_WINDOW_MAX = 2**31 - 1

MakeStream = Callable[[int], bytes]


async def flood(peer: Connection, pieces: Iterable[bytes]) -> None:
    """Send pieces one after the other until the server ends the connection."""
    for piece in pieces:
        if peer.over:
            return
        await peer.write_all(piece)


async def send_until_ended(peer: Connection, pieces: Iterable[bytes], target: Target) -> str:
    """Send pieces until the server ends the connection; return a description of the end."""
    try:
        async with asyncio.timeout(target.seconds):
            await flood(peer, pieces)
            await peer.settled()
    except TimeoutError:
        return f"{peer.ending} after {target.seconds:g} s"
    return peer.ending


async def _streams(make: MakeStream, full: int, calm: bool, target: Target) -> Outcome:
    streams = [make(2 * number + 1) for number in range(target.count(full))]
    pieces = (b"".join(streams[at : at + _PER_PIECE]) for at in range(0, len(streams), _PER_PIECE))
    async with target.connect() as peer:
        seen = await send_until_ended(peer, pieces, target)
    held = peer.closed.is_set() and (
        peer.goaway == ErrorCode.ENHANCE_YOUR_CALM if calm else peer.goaway is not None
    )
    return Outcome(seen=seen, held=held)


_BLOCK = call_block(BALANCE)
_BODY = balance_message()


def _reset_by_us(stream: int) -> bytes:
    return frames.headers(stream, _BLOCK) + frames.reset(stream, ErrorCode.CANCEL)


def _no_increment(stream: int) -> bytes:
    return frames.headers(stream, _BLOCK) + frames.window_update(0, stream=stream)


def _window_overflow(stream: int) -> bytes:
    return frames.headers(stream, _BLOCK) + frames.window_update(_WINDOW_MAX, stream=stream)


def _data_after_the_end(stream: int) -> bytes:
    opened = frames.headers(stream, _BLOCK, Flag.END_HEADERS | Flag.END_STREAM)
    return opened + frames.data(stream, _BODY)


def _headers_after_the_end(stream: int) -> bytes:
    opened = frames.headers(stream, _BLOCK, Flag.END_HEADERS | Flag.END_STREAM)
    return opened + frames.headers(stream, _BLOCK)


def _depends_on_itself(stream: int) -> bytes:
    return frames.headers(stream, _BLOCK) + frames.priority(stream, stream)


def _wrong_content_length(stream: int) -> bytes:
    block = call_block(BALANCE, ("content-length", "1"))
    return frames.headers(stream, block) + frames.data(stream, _BODY, Flag.END_STREAM)


def _made_you_reset(name: str, make: MakeStream, *, calm: bool = True) -> Attack:
    return Attack(
        name=f"made-you-reset:{name}",
        required="GOAWAY ENHANCE_YOUR_CALM" if calm else "GOAWAY",
        run=partial(_streams, make, _MADE_RESETS, calm),
    )


ATTACKS = (
    Attack(
        name="rapid-reset",
        required="GOAWAY ENHANCE_YOUR_CALM",
        run=partial(_streams, _reset_by_us, _RAPID_RESETS, True),
    ),
    _made_you_reset("no-increment", _no_increment),
    _made_you_reset("window-overflow", _window_overflow),
    _made_you_reset("data-after-the-end", _data_after_the_end),
    # STREAM_CLOSED if the answer came first: then the stream was closed, not half-closed.
    _made_you_reset("headers-after-the-end", _headers_after_the_end, calm=False),
    _made_you_reset("depends-on-itself", _depends_on_itself),
    _made_you_reset("wrong-content-length", _wrong_content_length),
)
