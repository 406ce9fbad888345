"""Connections that are opened and left: idle, silent, half begun."""

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

from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.peer import Peer
from credit_resilience.server import Patience, ServerNotStarted, serving

_CONNECTIONS = 10_000
_SILENT = 200
_ADDRESSES = 40
"""So many addresses of loopback for those that come from many peers."""
_FILES_KEPT = 200
"""Of the files that a process may open, those that are not for attackers."""
_AT_A_TIME = 100
_RESPITE_SECONDS = 2.0
"""How much longer than its limit a server may take to end a connection: it looks now and then."""
_CONNECTION_BYTES_MAX = 32 * 1024
"""What a connection may cost that does nothing."""


@dataclass(kw_only=True, slots=True)
class _Crowd:
    """Connections that were opened together.

    Attributes:
        peers: Those that came to be.
        served_max: How many of them the server served at once, at the most.
    """

    peers: list[Peer] = field(default_factory=list)
    served_max: int = 0


async def _idle(addresses: int, target: Target) -> Outcome:
    """Open connections, greet, and say no more."""
    limits = target.patience
    served_max = limits.connections_max if addresses > 1 else limits.connections_per_peer_max
    count = min(target.count(_CONNECTIONS), _files_max())
    sources = [f"127.0.0.{2 + number}" for number in range(addresses)]
    async with _crowd(target, count, sources) as crowd:
        await _quiet(crowd.peers, min(target.seconds, limits.idle_seconds + _RESPITE_SECONDS))
        left = sum(not peer.over for peer in crowd.peers)
    seen = f"{count} opened, {crowd.served_max} served at once, {left} left after the idle limit"
    return Outcome(seen=seen, held=0 < crowd.served_max <= served_max and left == 0)


async def _silent(greeting: bytes, target: Target) -> Outcome:
    """Open connections and begin no conversation, or half of one."""
    limit = target.patience.handshake_seconds
    async with _crowd(target, target.count(_SILENT), [], greeting) as crowd:
        await _quiet(crowd.peers, min(target.seconds, limit + _RESPITE_SECONDS))
        left = sum(not peer.over for peer in crowd.peers)
    return Outcome(
        seen=f"{left} of {len(crowd.peers)} left after the limit",
        held=bool(crowd.peers) and left == 0,
    )


async def _silent_tls(target: Target) -> Outcome:
    """Open connections to a server with TLS and never begin the handshake."""
    with tempfile.TemporaryDirectory(prefix="credit-resilience-") as folder:
        made = Authority(folder=Path(folder)).issue("127.0.0.1")
        options = ("--tls-certificate", str(made.certificate), "--tls-key", str(made.key))
        try:
            async with serving(
                target.server.uri,
                target.server.database,
                Path(folder),
                *options,
                patience=target.patience,
            ) as server:
                return await _silent(b"", replace(target, server=server))
        except ServerNotStarted:
            return Outcome(seen="the server has no TLS", held=False)


@asynccontextmanager
async def _crowd(
    target: Target, count: int, sources: Sequence[str], greeting: bytes | None = None
) -> AsyncIterator[_Crowd]:
    """Open many connections; those that are refused are not among them."""
    sources = sources or ["127.0.0.2"]
    async with AsyncExitStack() as open_peers:

        async def come(number: int) -> Peer:
            return await open_peers.enter_async_context(
                Peer.connect(target.port, greeting=greeting, source=sources[number % len(sources)])
            )

        crowd = _Crowd()
        for at in range(0, count, _AT_A_TIME):
            coming = (come(number) for number in range(at, min(at + _AT_A_TIME, count)))
            arrived = await asyncio.gather(*coming, return_exceptions=True)
            crowd.peers += [peer for peer in arrived if isinstance(peer, Peer)]
            served = sum(peer.served for peer in crowd.peers)
            crowd.served_max = max(crowd.served_max, served)
        yield crowd


async def _quiet(peers: Sequence[Peer], seconds: float) -> None:
    """Wait until the server has ended all connections, or for so long."""
    endings = [asyncio.ensure_future(peer.closed.wait()) for peer in peers]
    try:
        await asyncio.wait(endings, timeout=seconds)
    finally:
        for ending in endings:
            ending.cancel()


def _files_max() -> int:
    """How many connections this process may have; the server's limit is inherited from it."""
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
        growth_bytes_max=Patience().connections_max * _CONNECTION_BYTES_MAX,
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
