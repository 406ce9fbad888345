"""Send messages that break gRPC's framing or protobuf's encoding."""

import asyncio
import gzip
from functools import partial

from credit_testing import frames
from credit_testing.calls import framed
from credit_testing.frames import Flag

from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.requests import BALANCE, balance_message, call_block

_STREAM = 1


async def status_of(target: Target, block: bytes, body: bytes) -> str:
    """Make one call on a new connection and return the status of its answer."""
    async with target.connect() as peer:
        answer = peer.answer(_STREAM)
        await peer.greeted()
        await peer.write_all(frames.headers(_STREAM, block))
        if not body:  # clients end a request without a message with an empty frame
            await peer.write_all(frames.data(_STREAM, b"", Flag.END_STREAM))
        sender = asyncio.create_task(peer.send_all(_STREAM, body, end=True))
        try:
            async with asyncio.timeout(target.seconds):
                await answer.ended.wait()
        except TimeoutError:
            return f"no answer in {target.seconds:g} s: {peer.ending}"
        finally:
            sender.cancel()
        return answer.outcome or peer.ending


async def _broken(body: bytes, required: str, target: Target) -> Outcome:
    status = await status_of(target, call_block(BALANCE), body)
    return Outcome(seen=status, held=status == required)


def _attack(name: str, required: str, body: bytes) -> Attack:
    return Attack(
        name=f"message:{name}",
        required=required,
        run=partial(_broken, body, required),
        heavy=False,
    )


# The statuses: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
ATTACKS = (
    # Field 1 is a varint, and this varint has no last byte.
    _attack("undecodable", "INTERNAL", framed(b"\x08\xff")),
    _attack("truncated", "INTERNAL", framed(b"\x08\x01", length=100)),
    _attack("half-a-prefix", "INTERNAL", b"\x00\x00"),
    _attack("none", "UNIMPLEMENTED", b""),
    _attack("second", "UNIMPLEMENTED", balance_message() * 2),
    _attack(
        "compressed-without-encoding",
        "INTERNAL",
        framed(gzip.compress(b"\x08\x01"), flag=1),
    ),
    _attack("odd-flag", "INTERNAL", framed(b"\x08\x01", flag=2)),
)
