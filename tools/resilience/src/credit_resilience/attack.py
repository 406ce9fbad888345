"""An attack: what is done, and what the server has to do about it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from credit_resilience.server import Patience, Server

GROWTH_BYTES_MAX = 20 * 2**20
"""How much memory an attack may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What is attacked, and how hard.

    Attributes:
        server: The server.
        patience: The limits that it was given.
        scale: The share of an attack's full size, above 0 and at most 1.
        seconds: How long an attacker waits for what the server must do by itself.
    """

    server: Server
    patience: Patience
    scale: float
    seconds: float

    @property
    def port(self) -> int:
        """The server's port."""
        return self.server.port

    def count(self, full: int) -> int:
        """Scale a number."""
        return max(1, round(full * self.scale))


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What the attacker saw.

    Attributes:
        seen: In words: how the connection ended, or the status.
        held: Whether that is what is required.
    """

    seen: str
    held: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """A row of the table.

    Attributes:
        name: What it is called; before a colon stands what it is one of.
        required: What the server has to do, in words.
        run: Does it.
        heavy: It uses the server up: the next row gets a fresh one, whose memory can be measured.
        ends_server: The server is told to stop, so that the bystander cannot be served.
        exhausts: It asks for more than can be served of what is allowed: the bystander is refused
            too, and waits like everybody.
        lists_history: It asks for the long history, which takes a while to write.
        growth_bytes_max: By how much the server's memory may grow. More than usual where the
            server is asked for what it allows: memory per connection is bounded by their number.
    """

    name: str
    required: str
    run: Callable[[Target], Awaitable[Outcome]]
    heavy: bool = True
    ends_server: bool = False
    exhausts: bool = False
    lists_history: bool = False
    growth_bytes_max: int = GROWTH_BYTES_MAX
