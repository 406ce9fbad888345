"""The registry: which connections are admitted, and how much is logged of them."""

from collections.abc import MutableMapping
from typing import Any

from credit_server.http2.connections import Closing, Connections
from credit_server.http2.limits import ConnectionLimits


class Member:
    """A connection that does nothing."""

    peer = "peer"

    def check(self, now: float) -> None:
        """Do nothing."""


def test_a_closed_connection_makes_room_for_another() -> None:
    connections: Connections[Member] = Connections(ConnectionLimits(connections_per_peer_max=1))
    first, second, third = Member(), Member(), Member()
    assert connections.admit(first, "10.0.0.1") is None
    assert connections.admit(second, "10.0.0.1") is Closing.TOO_MANY_OF_PEER
    assert connections.admit(third, "10.0.0.2") is None
    connections.forget(first, "10.0.0.1")
    assert connections.admit(second, "10.0.0.1") is None


def test_a_flood_of_connections_is_not_a_flood_of_lines(
    logged: list[MutableMapping[str, Any]],
) -> None:
    now = 0.0
    connections: Connections[Member] = Connections(ConnectionLimits(), clock=lambda: now)
    for _ in range(1000):
        connections.count("10.0.0.1:5", Closing.FLOOD, "too many resets")
    assert connections.closed[Closing.FLOOD] == 1000
    assert len(logged) == 50
    assert logged[0]["reason"] == "a flood"
    assert logged[0]["detail"] == "too many resets"

    now = 1.0
    connections.count("10.0.0.1:5", Closing.IDLE)
    assert logged[-1]["unlogged_before"] == 950


def test_a_client_that_closes_its_connection_is_counted_and_not_logged(
    logged: list[MutableMapping[str, Any]],
) -> None:
    connections: Connections[Member] = Connections(ConnectionLimits())
    connections.count("10.0.0.1:5", Closing.CLIENT)
    assert connections.closed == {Closing.CLIENT: 1}
    assert not logged


class Broken(Member):
    """A connection whose check raises."""

    def check(self, now: float) -> None:
        raise RuntimeError("broken")


class Due(Member):
    """A connection that is closed by its check."""

    closed = False

    def check(self, now: float) -> None:
        self.closed = True


def test_a_connection_whose_check_fails_does_not_keep_the_others_from_theirs(
    logged: list[MutableMapping[str, Any]],
) -> None:
    connections: Connections[Member] = Connections(ConnectionLimits())
    sound = [Due() for _ in range(20)]
    for member in (*sound, Broken()):
        assert connections.admit(member, "10.0.0.1") is None
    connections.sweep(1.0)
    assert all(member.closed for member in sound)
    assert [line["event"] for line in logged] == ["a connection could not be checked"]
