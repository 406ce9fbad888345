"""Define an attack: what it sends, and how the server must react."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from credit_testing.http2_client import Connection

from credit_resilience.server import Server, ServerLimits
from credit_resilience.usage import established_ports

ATTACKER = "127.0.0.2"
"""The source address of attackers: on loopback, but another peer than the bystander."""

GROWTH_BYTES_MAX = 20 * 2**20
"""The default limit on how much the server's memory may grow during an attack."""

_LOOK_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The server under attack, and the size of the attack.

    Attributes:
        server: The server.
        limits: The limits that the server was started with.
        scale: The share of an attack's full size, above 0 and at most 1.
        seconds: How long an attacker waits for the server to act without a request, as for an
            idle limit.
    """

    server: Server
    limits: ServerLimits
    scale: float
    seconds: float

    @property
    def port(self) -> int:
        """Return the server's port."""
        return self.server.port

    def connect(
        self,
        *settings: tuple[int, int],
        greeting: bytes | None = None,
        source: str = ATTACKER,
        reads: bool = True,
    ) -> AbstractAsyncContextManager[Connection]:
        """Connect an attacker, which sends only what the attack writes.

        Args:
            settings: The settings in the SETTINGS frame of the greeting.
            greeting: The first bytes, instead of the preface and SETTINGS.
            source: The loopback address to connect from.
            reads: Whether the attacker reads.
        """
        return Connection.connect(
            self.port, *settings, greeting=greeting, source=source, reads=reads, automatic=False
        )

    async def disconnected(self, attacker: Connection) -> None:
        """Wait until the server has closed a connection that does not read; GOAWAY is optional.

        The server's FIN does not arrive behind unread data, so this reads the state of the
        server's socket from the kernel.
        """
        port = int(attacker.address.rpartition(":")[2])
        while port in established_ports(self.port):  # noqa: ASYNC110 - no event
            await asyncio.sleep(_LOOK_SECONDS)

    def count(self, full: int) -> int:
        """Return a full count multiplied by the scale, and at least 1."""
        return max(1, round(full * self.scale))


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result that the attacker observed.

    Attributes:
        seen: A description: how the connection ended, or the status.
        held: Whether the result is as required.
    """

    seen: str
    held: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """A row of the table.

    Attributes:
        name: The name of the row; the part before a colon is the group of the attack.
        required: A description of what the server must do.
        run: The function that carries out the attack.
        heavy: Whether the next row needs a new server, because this attack changes the memory
            that the server holds.
        ends_server: Whether the attack stops the server, so that the bystander's calls may fail.
        exhausts: Whether the attack sends more valid requests than the server can serve, so that
            the server also delays and rejects the bystander's calls.
        lists_history: Whether the attack reads the long history, which takes a while to write.
        growth_bytes_max: How much the server's memory may grow. The limit is higher for attacks
            that stay within the server's limits: the number of connections bounds their memory.
    """

    name: str
    required: str
    run: Callable[[Target], Awaitable[Outcome]]
    heavy: bool = True
    ends_server: bool = False
    exhausts: bool = False
    lists_history: bool = False
    growth_bytes_max: int = GROWTH_BYTES_MAX
