"""Who is told of calls: what the transport asks of telemetry, and an observer that ignores all."""

from collections.abc import Mapping
from typing import Protocol

from grpclib.const import Status


class CallObservation(Protocol):
    """Follows one call from its headers to its status."""

    @property
    def trace_id(self) -> str | None:
        """The trace that the call is recorded in: 32 hexadecimal digits; None: it is not."""
        ...

    @property
    def context(self) -> object | None:
        """What stands for the call where its batch is observed: see `commit.observer`."""
        ...

    def message_received(self) -> None:
        """Count a message that came in and is sound."""
        ...

    def message_sent(self, count: int = 1) -> None:
        """Count messages that went out."""
        ...

    def finished(self, status: Status, seconds: float) -> None:
        """Note the end of the call. It is called once, in the task that serves the call.

        Args:
            status: What the client makes of the end; CANCELLED where it no longer listened.
            seconds: How long the call took.
        """
        ...


class CallObserver(Protocol):
    """Is told of every call."""

    def started(
        self, path: str, metadata: Mapping[str, str], peer: tuple[str, int] | None
    ) -> CallObservation:
        """Note the begin of a call. It is called in the task that serves the call.

        Args:
            path: The path that was called; nobody has checked that there is such a method.
            metadata: The headers of the request.
            peer: The client's address and port; None: they are not known.
        """
        ...


class Unobserved:
    """Ignores all calls, and each of them."""

    trace_id = None
    context = None

    def started(
        self, path: str, metadata: Mapping[str, str], peer: tuple[str, int] | None
    ) -> "Unobserved":
        """Ignore a call."""
        return self

    def message_received(self) -> None:
        """Ignore a message."""

    def message_sent(self, count: int = 1) -> None:
        """Ignore messages."""

    def finished(self, status: Status, seconds: float) -> None:
        """Ignore the end."""


UNOBSERVED = Unobserved()
