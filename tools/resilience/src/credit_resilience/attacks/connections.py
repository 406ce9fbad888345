"""Open connections that do nothing: idle, silent or with half a handshake."""

import asyncio
import resource
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from credit_testing import frames
from credit_testing.certificates import Authority
from credit_testing.http2_client import Connection

from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.server import ServerLimits, ServerNotStarted, serving

_CONNECTIONS = 10_000
_SILENT = 200
_ADDRESSES = 40
"""The number of loopback addresses that stand for many peers."""
_FILES_KEPT = 200
"""The open files of this process that are kept free for other uses than attackers."""
_AT_A_TIME = 100
_MARGIN_SECONDS = 2.0
"""How long after its limit a server may end a connection: it checks periodically."""
_CONNECTION_BYTES_MAX = 32 * 1024
"""The memory that an idle connection may cost."""


@dataclass(kw_only=True, slots=True)
class _Connections:
    """Connections that were opened together.

    Attributes:
        peers: The connections that the server accepted.
        served_max: The largest number that the server served at once.
    """

    peers: list[Connection] = field(default_factory=list)
    served_max: int = 0


async def _idle(addresses: int, target: Target) -> Outcome:
    """Open connections, send the greeting, and then send nothing."""
    limits = target.limits
    served_max = limits.connections_max if addresses > 1 else limits.connections_per_peer_max
    count = min(target.count(_CONNECTIONS), _files_max())
    sources = [f"127.0.0.{2 + number}" for number in range(addresses)]
    async with _connections(target, count, sources) as opened:
        # On a slow machine the greetings arrive after the last connection was opened.
        await asyncio.gather(*(peer.greeted() for peer in opened.peers))
        served = sum(peer.served for peer in opened.peers)
        opened.served_max = max(opened.served_max, served)
        await _wait_closed(opened.peers, min(target.seconds, limits.idle_seconds + _MARGIN_SECONDS))
        left = sum(not peer.over for peer in opened.peers)
    seen = f"{count} opened, {opened.served_max} served at once, {left} left after the idle limit"
    return Outcome(seen=seen, held=0 < opened.served_max <= served_max and left == 0)


async def _silent(greeting: bytes, target: Target) -> Outcome:
    """Open connections and send no preface, or an incomplete greeting."""
    limit = target.limits.handshake_seconds
    async with _connections(target, target.count(_SILENT), [], greeting) as opened:
        await _wait_closed(opened.peers, min(target.seconds, limit + _MARGIN_SECONDS))
        left = sum(not peer.over for peer in opened.peers)
    return Outcome(
        seen=f"{left} of {len(opened.peers)} left after the limit",
        held=bool(opened.peers) and left == 0,
    )


async def _silent_tls(target: Target) -> Outcome:
    """Open connections to a server with TLS and never begin the handshake."""
    with tempfile.TemporaryDirectory(prefix="credit-resilience-") as folder:
        issued = Authority(folder=Path(folder)).issue("127.0.0.1")
        options = ("--tls-certificate", str(issued.certificate), "--tls-key", str(issued.key))
        try:
            async with serving(
                target.server.uri,
                target.server.database,
                Path(folder),
                *options,
                limits=target.limits,
            ) as server:
                return await _silent(b"", replace(target, server=server))
        except ServerNotStarted:
            return Outcome(seen="the server has no TLS", held=False)


@asynccontextmanager
async def _connections(
    target: Target, count: int, sources: Sequence[str], greeting: bytes | None = None
) -> AsyncIterator[_Connections]:
    """Open many connections; leave out those that the server refuses."""
    sources = sources or ["127.0.0.2"]
    async with AsyncExitStack() as open_peers:

        async def connect(number: int) -> Connection:
            return await open_peers.enter_async_context(
                target.connect(greeting=greeting, source=sources[number % len(sources)])
            )

        opened = _Connections()
        for at in range(0, count, _AT_A_TIME):
            pending = (connect(number) for number in range(at, min(at + _AT_A_TIME, count)))
            results = await asyncio.gather(*pending, return_exceptions=True)
            opened.peers += [peer for peer in results if isinstance(peer, Connection)]
            served = sum(peer.served for peer in opened.peers)
            opened.served_max = max(opened.served_max, served)
        yield opened


async def _wait_closed(peers: Sequence[Connection], seconds: float) -> None:
    """Wait until the server has closed all connections, at most for `seconds`."""
    closing = [asyncio.ensure_future(peer.closed.wait()) for peer in peers]
    try:
        await asyncio.wait(closing, timeout=seconds)
    finally:
        for task in closing:
            task.cancel()


def _files_max() -> int:
    """Return how many connections this process may open; the server inherits the limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - _FILES_KEPT)


ATTACKS = (
    Attack(
        name="idle:one-peer",
        required="at most the peer's share served, none after the idle limit",
        run=partial(_idle, 1),
    ),
    Attack(
        name="idle:many-peers",
        required="at most the server's share served, none after the idle limit",
        run=partial(_idle, _ADDRESSES),
        growth_bytes_max=ServerLimits().connections_max * _CONNECTION_BYTES_MAX,
    ),
    Attack(name="silent:no-preface", required="closed in time", run=partial(_silent, b"")),
    Attack(
        name="silent:half-a-preface",
        required="closed in time",
        run=partial(_silent, frames.PREFACE[:10]),
    ),
    Attack(
        name="silent:preface-alone",
        required="closed in time",
        run=partial(_silent, frames.PREFACE),
    ),
    Attack(name="silent:tls", required="closed in time", run=_silent_tls),
)
