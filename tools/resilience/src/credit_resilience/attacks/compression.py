"""Send compressed requests: those of a real client, and decompression bombs."""

import asyncio
import zlib

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
from credit_models import AppId
from credit_models.codec import encode
from credit_testing.calls import framed
from grpc import aio

from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.attacks.messages import status_of
from credit_resilience.requests import APP_ID, BALANCE, call_block

_INFLATED_BYTES = 512 * 2**20
_PIECE = bytes(2**20)
_GZIP = 31
"""zlib's value for the gzip format with the largest window."""
_BOMBS = 4


async def _grpcio(target: Target) -> Outcome:
    """Make a call with grpcio, which compresses the request."""
    async with aio.insecure_channel(target.server.target) as channel:
        call = channel.unary_unary(BALANCE)
        # grpcio compresses only what becomes shorter: field 15 is all zeros, and skipped.
        request = encode(AppId(app_id=APP_ID)) + b"\x7a\x7f" + bytes(127)
        try:
            await call(request, timeout=target.seconds, compression=grpc.Compression.Gzip)
        except aio.AioRpcError as error:
            status = error.code().name
            return Outcome(seen=f"{status}: {error.details()}", held=status == "UNIMPLEMENTED")
    return Outcome(seen="OK", held=True)


async def _bomb(target: Target) -> Outcome:
    """Send messages that inflate to a thousand times their size, in several calls at once."""
    body = framed(await asyncio.to_thread(_zeros, target.count(_INFLATED_BYTES)), flag=1)
    block = call_block(BALANCE, ("grpc-encoding", "gzip"))
    statuses = await asyncio.gather(*(status_of(target, block, body) for _ in range(_BOMBS)))
    return Outcome(
        seen=", ".join(sorted(set(statuses))),
        held={"RESOURCE_EXHAUSTED", "UNIMPLEMENTED"} >= set(statuses),
    )


def _zeros(size: int) -> bytes:
    gzip = zlib.compressobj(9, wbits=_GZIP)
    packed = b"".join(gzip.compress(_PIECE) for _ in range(max(1, size // len(_PIECE))))
    return packed + gzip.flush()


ATTACKS = (
    Attack(
        name="gzip:grpcio",
        required="OK, or UNIMPLEMENTED with the accepted encodings",
        run=_grpcio,
        heavy=False,
    ),
    Attack(
        name="gzip:bomb",
        required="RESOURCE_EXHAUSTED or UNIMPLEMENTED, memory flat",
        run=_bomb,
    ),
)
