"""The events of a simulation, line by line."""

from collections.abc import Callable, Sequence
from hashlib import sha256


class Trace:
    """Collects lines, each with its time and who did it."""

    def __init__(self, time: Callable[[], float]) -> None:
        """Create an empty trace.

        Args:
            time: Returns the time in seconds.
        """
        self._time = time
        self._lines: list[tuple[float, str, tuple[object, ...]]] = []

    def __call__(self, actor: str, *what: object) -> None:
        """Add a line. It is formatted only when it is read, because formatting is slow."""
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
        """The hash of all lines. Equal digests mean equal runs."""
        return sha256("\n".join(self.lines).encode()).hexdigest()
