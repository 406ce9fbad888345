"""Request lists without reading them, and begin more calls than the server allows."""

import asyncio
from collections import Counter

from credit_testing import frames
from credit_testing.frames import ErrorCode, Flag, Setting

from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.attacks.resets import flood
from credit_resilience.requests import BALANCE, TRANSACTIONS, call_block, history_message

_LISTS = 100
_WINDOW_MAX = 2**31 - 1
_STREAMS = 2_000
_UNACKNOWLEDGED = 4
"""The factor by which streams may exceed the limit until the client acknowledges SETTINGS."""


def _lists(count: int) -> bytes:
    block, question = call_block(TRANSACTIONS), history_message()
    return b"".join(
        frames.headers(stream, block) + frames.data(stream, question, Flag.END_STREAM)
        for stream in range(1, 2 * count, 2)
    )


async def _never_reads(target: Target) -> Outcome:
    """Request long lists with unlimited windows, and never read the socket."""
    allowed = frames.window_update(_WINDOW_MAX - 65_535)
    window = (Setting.INITIAL_WINDOW_SIZE, _WINDOW_MAX)
    async with target.connect(window, reads=False) as peer:
        await peer.write_all(allowed + _lists(target.count(_LISTS)))
        try:
            async with asyncio.timeout(target.seconds):
                await target.disconnected(peer)
                ended = True
        except TimeoutError:
            ended = False
    return Outcome(seen="closed" if ended else f"open after {target.seconds:g} s", held=ended)


async def _window_of_zero(target: Target) -> Outcome:
    """Request long lists with a window of 0 bytes."""
    count = target.count(_LISTS)
    async with target.connect((Setting.INITIAL_WINDOW_SIZE, 0)) as peer:
        await peer.write_all(_lists(count))
        answers = [peer.answer(stream) for stream in range(1, 2 * count, 2)]
        try:
            async with asyncio.timeout(target.seconds):
                for answer in answers:
                    await answer.ended.wait()
        except TimeoutError:
            waiting = sum(not answer.ended.is_set() for answer in answers)
            return Outcome(seen=f"{waiting} lists wait after {target.seconds:g} s", held=False)
        statuses = sorted({answer.outcome or peer.ending for answer in answers})
        return Outcome(seen=", ".join(statuses), held=True)


async def _too_many_streams(target: Target) -> Outcome:
    """Begin many more calls than the server allows at once, and finish none."""
    count = target.count(_STREAMS)
    block = call_block(BALANCE)
    async with target.connect() as peer:
        try:
            async with asyncio.timeout(target.seconds):
                await peer.greeted()
                calls = (frames.headers(stream, block) for stream in range(1, 2 * count, 2))
                await flood(peer, calls)
                await peer.settled()
        except TimeoutError:
            return Outcome(seen=f"{peer.ending} after {target.seconds:g} s", held=False)
        refused = Counter(peer.resets.values())[ErrorCode.REFUSED_STREAM]
        allowed = peer.streams_max
        seen = f"{allowed} allowed, {refused} of {count} refused, {peer.ending}"
        kept = allowed is not None and (peer.over or count - refused <= _UNACKNOWLEDGED * allowed)
    return Outcome(seen=seen, held=kept)


ATTACKS = (
    Attack(
        name="reader:never-reads",
        required="dropped in time, memory flat",
        run=_never_reads,
        lists_history=True,
    ),
    Attack(
        name="reader:window-of-zero",
        required="calls ended in time, memory flat",
        run=_window_of_zero,
        lists_history=True,
    ),
    Attack(
        name="streams:too-many",
        required="REFUSED_STREAM or GOAWAY above four times what is allowed",
        run=_too_many_streams,
    ),
)
