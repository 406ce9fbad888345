"""Declare message lengths that are never reached, and send very large bodies."""

import asyncio
from functools import partial

from credit_server.http2.limits import ConnectionLimits
from credit_testing import frames
from credit_testing.calls import framed
from credit_testing.frames import MAX_FRAME_SIZE

from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.attacks.headers import unended
from credit_resilience.requests import ADD, add_message, call_block

_DECLARED_BYTES = 10**9
_STREAM = 1
_WITHHELD_STREAMS = 100
_WITHHELD_BYTES = 2**20 - 1024
_WITHHELD_CONNECTIONS = 4
_LIMITS = ConnectionLimits()
_HELD_BYTES_MAX = _WITHHELD_CONNECTIONS * (
    _LIMITS.request_bytes_max + _LIMITS.connection_window_bytes
)
# The process frees the memory of reset calls, but may not yet return it to the system, and the
# allocator adds to it. With 20 MiB held, 11 MiB were measured on a quiet machine, and 40 to 85 MiB
# on a busy one, where resets come late. Without the limit, the server would hold all 400 MiB of the
# messages.
_WITHHELD_GROWTH_BYTES_MAX = 6 * _HELD_BYTES_MAX


async def _declared(sent_bytes: int, target: Target) -> Outcome:
    """Declare a message of 1 GB and send some of it, as fast as flow control allows."""
    start = framed(bytes(1024), length=_DECLARED_BYTES)
    async with target.connect() as peer:
        answer = peer.answer(_STREAM)
        await peer.write_all(frames.headers(_STREAM, call_block(ADD)) + frames.data(_STREAM, start))
        sender = asyncio.create_task(peer.send_all(_STREAM, bytes(target.count(sent_bytes))))
        try:
            async with asyncio.timeout(target.seconds):
                await answer.ended.wait()
        except TimeoutError:
            return unended(peer, target)
        finally:
            sender.cancel()
        seen = answer.outcome or peer.ending
        return Outcome(seen=seen, held=seen == "RESOURCE_EXHAUSTED")


async def _withheld(target: Target) -> Outcome:
    """Begin many messages just below the limit, on several connections, and finish none.

    The attack sends only what flow control allows. The server must bound what it holds; the
    deadline decides when the calls end.
    """
    connections = target.count(_WITHHELD_CONNECTIONS)
    sent = await asyncio.gather(*(_withhold(target) for _ in range(connections)))
    return Outcome(seen=f"took {sum(sent) / 2**20:.0f} MiB on {connections} connections", held=True)


async def _withhold(target: Target) -> int:
    """Send as much as one connection accepts, and return the number of bytes."""
    body = add_message(bytes(_WITHHELD_BYTES))[:-1]
    sent = dict.fromkeys(range(1, 2 * target.count(_WITHHELD_STREAMS), 2), 0)
    async with asyncio.timeout(target.seconds), target.connect() as peer:
        await peer.greeted()
        await peer.write_all(b"".join(frames.headers(stream, call_block(ADD)) for stream in sent))
        before = -1
        while not peer.over and sum(sent.values()) > before:
            before = sum(sent.values())
            for stream in sent:
                while piece := body[sent[stream] : sent[stream] + MAX_FRAME_SIZE]:
                    if not peer.windows.take(stream, len(piece)):
                        break
                    await peer.write_all(frames.data(stream, piece))
                    sent[stream] += len(piece)
            await peer.settled()
    return sum(sent.values())


ATTACKS = (
    Attack(
        name="declared:little-sent",
        required="RESOURCE_EXHAUSTED, memory flat",
        run=partial(_declared, 0),
    ),
    Attack(
        name="declared:much-sent",
        required="RESOURCE_EXHAUSTED, memory flat",
        run=partial(_declared, 64 * 2**20),
    ),
    Attack(
        name="declared:never-finished",
        required="memory flat: bounded by flow control",
        run=_withheld,
        growth_bytes_max=_WITHHELD_GROWTH_BYTES_MAX,
    ),
)
