"""What has happened in a simulation, line by line."""

from collections.abc import Callable, Sequence
from hashlib import sha256


class Trace:
    """Collects lines, each with its time and who did it."""

    def __init__(self, time: Callable[[], float]) -> None:
        """Begin without a line.

        Args:
            time: Returns the time in seconds.
        """
        self._time = time
        self._lines: list[tuple[float, str, tuple[object, ...]]] = []

    def __call__(self, actor: str, *what: object) -> None:
        """Add a line. It is formatted when it is read: to format messages takes long."""
        self._lines.append((self._time(), actor, what))

    @property
    def lines(self) -> Sequence[str]:
        """The lines."""
        return [
            f"{time:10.6f} {actor:<9} {' '.join(' '.join(map(str, what)).split())}"
            for time, actor, what in self._lines
        ]

    @property
    def digest(self) -> str:
        """The hash of all lines: two runs with the same digest did the same."""
        return sha256("\n".join(self.lines).encode()).hexdigest()
