"""The open connections: admit them, check their time limits, count and log how others ended."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

import structlog

from credit_server.admission.token_bucket import TokenBucket
from credit_server.http2.limits import ConnectionLimits
from credit_server.http2.peer import network_of

log = structlog.get_logger("credit_server.connections")

# Lines of log: a flood of connections must not become a flood of lines.
_LOGGED_PER_SECOND = 10
_LOGGED_BURST = 50


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


class PeerLog:
    """Counts how connections end, and logs what peers do, up to a number of lines.

    Attributes:
        closed: The number of closed connections by reason. It never decreases: a metric may read
            it.
        clock: Returns the time in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.closed: Counter[Closing] = Counter()
        self.clock = clock
        self._lines = TokenBucket(per_second=_LOGGED_PER_SECOND, burst=_LOGGED_BURST, now=clock())
        self._unlogged = 0

    def count(self, peer: str, closing: Closing, detail: str = "") -> None:
        """Count a connection that ends, and log it unless its client closed it."""
        self.closed[closing] += 1
        if closing is not Closing.CLIENT:
            self.note("connection closed", peer, closing, detail)

    def failed_handshake(self, reason: str) -> None:
        """Count and log a failed TLS handshake. Its client's address is not known."""
        self.count("", Closing.TLS, reason)

    def note(self, event: str, peer: str, reason: str, detail: str = "") -> None:
        """Log what a peer did, unless there are too many lines."""
        self._lines.refill(self.clock())
        if not self._lines.spend():
            self._unlogged += 1
            return
        unlogged, self._unlogged = self._unlogged, 0
        more = {"detail": detail} if detail else {}
        log.info(event, peer=peer, reason=str(reason), **more, unlogged_before=unlogged)


class Member(Protocol):
    """What the registry needs of a connection."""

    peer: str

    def check(self, now: float) -> None:
        """Act on the time limits that have passed."""


MemberT = TypeVar("MemberT", bound=Member)


class Connections(PeerLog, Generic[MemberT]):
    """The registry of open connections. It bounds how many there are.

    Attributes:
        members: The connections that are open.
        empty: Is set while no connection is open.
        draining: Whether the server stops; connections that are still accepted are drained at once.
    """

    def __init__(
        self, limits: ConnectionLimits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(clock=clock)
        self.members: set[MemberT] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self.draining = False
        self._limits = limits
        self._per_network: Counter[str] = Counter()

    def admit(self, member: MemberT, address: str) -> Closing | None:
        """Add a new connection, or return why it must be closed."""
        network = network_of(address)
        if len(self.members) >= self._limits.connections_max:
            return Closing.TOO_MANY
        if self._per_network[network] >= self._limits.connections_per_peer_max:
            return Closing.TOO_MANY_OF_PEER
        self._per_network[network] += 1
        self.members.add(member)
        self.empty.clear()
        return None

    def forget(self, member: MemberT, address: str) -> None:
        """Remove a connection that was admitted and is closed."""
        network = network_of(address)
        self.members.discard(member)
        self._per_network[network] -= 1
        if not self._per_network[network]:
            del self._per_network[network]
        if not self.members:
            self.empty.set()

    def sweep(self, now: float) -> None:
        """Make each connection act on its time limits."""
        for member in list(self.members):
            try:
                member.check(now)
            except Exception as bug:  # the other connections must be checked all the same
                log.error("a connection could not be checked", peer=member.peer, exc_info=bug)
