"""The connections that are open: how many, whose, and why they were closed."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

import structlog

from credit_server.http2.budget import Budget
from credit_server.http2.limits import ConnectionLimits
from credit_server.http2.peer import network_of

log = structlog.get_logger("credit_server.connections")

_LOGGED_PER_SECOND = 10
_LOGGED_BURST = 50
"""Lines of log: a flood of connections must not become one of lines."""


class Closing(StrEnum):
    """Why a connection was closed."""

    CLIENT = "the client closed it"
    TOO_MANY = "too many connections"
    TOO_MANY_OF_PEER = "too many connections of one peer"
    TLS = "TLS handshake"
    HANDSHAKE = "no HTTP/2 preface in time"
    HEADERS = "a header block without an end"
    FLOOD = "a flood"
    PROTOCOL = "a protocol error"
    INTERNAL = "an error of the server"
    STALLED = "the client does not read"
    KEEPALIVE = "the client does not answer"
    IDLE = "idle"
    AGE = "too old"
    SHUTDOWN = "the server stops"


class Supervised(Protocol):
    """A connection, as the registry sees it."""

    peer: str

    def check(self, now: float) -> None:
        """Close what is due at this time."""


SupervisedT = TypeVar("SupervisedT", bound=Supervised)


class Connections(Generic[SupervisedT]):
    """Admits connections, looks after their time limits, and counts and logs their ends.

    Attributes:
        members: The connections that are open.
        closed: How many were closed, by reason. It only ever grows: a metric may read it.
        empty: Set while no connection is open.
        draining: Whether the server stops, and connections that are still accepted end at once.
        clock: The time in seconds.
    """

    def __init__(
        self, limits: ConnectionLimits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.members: set[SupervisedT] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self.draining = False
        self.closed: Counter[Closing] = Counter()
        self.clock = clock
        self._limits = limits
        self._per_network: Counter[str] = Counter()
        self._lines = Budget(per_second=_LOGGED_PER_SECOND, burst=_LOGGED_BURST, now=clock())
        self._unlogged = 0

    def admit(self, member: SupervisedT, address: str) -> Closing | None:
        """Take a new connection in, or say why not."""
        network = network_of(address)
        if len(self.members) >= self._limits.connections_max:
            return Closing.TOO_MANY
        if self._per_network[network] >= self._limits.connections_per_peer_max:
            return Closing.TOO_MANY_OF_PEER
        self._per_network[network] += 1
        self.members.add(member)
        self.empty.clear()
        return None

    def forget(self, member: SupervisedT, address: str) -> None:
        """Take a connection out that was admitted and is gone."""
        network = network_of(address)
        self.members.discard(member)
        self._per_network[network] -= 1
        if not self._per_network[network]:
            del self._per_network[network]
        if not self.members:
            self.empty.set()

    def sweep(self, now: float) -> None:
        """Close all connections that are due at this time."""
        for member in list(self.members):
            try:
                member.check(now)
            except Exception as bug:  # the others must be looked at all the same
                log.error("a connection could not be checked", peer=member.peer, exc_info=bug)

    def count(self, peer: str, closing: Closing, detail: str = "") -> None:
        """Count a connection that ends, and log it unless its client just left."""
        self.closed[closing] += 1
        if closing is not Closing.CLIENT:
            self.note("connection closed", peer, closing, detail)

    def failed_handshake(self, reason: str) -> None:
        """Count and log a TLS handshake that has failed; nobody knows who it was with."""
        self.count("", Closing.TLS, reason)

    def note(self, event: str, peer: str, reason: str, detail: str = "") -> None:
        """Log what a peer did, as long as there are not too many lines."""
        self._lines.refill(self.clock())
        if not self._lines.spend():
            self._unlogged += 1
            return
        unlogged, self._unlogged = self._unlogged, 0
        more = {"detail": detail} if detail else {}
        log.info(event, peer=peer, reason=str(reason), **more, unlogged_before=unlogged)
