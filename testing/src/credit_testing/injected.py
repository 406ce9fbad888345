"""Inject faults into a real server process, as code that Python runs before the program."""

from pathlib import Path

_CLOCK = """
import time
from pathlib import Path

def moved(real=time.time, file=Path({file!r})):
    return real() + float(file.read_text())

time.time = moved
Path({file!r}).with_suffix(".injected").touch()
"""

_BUG = """
import {module}

{kind} fail(*_):
    raise RuntimeError("a bug that a test has injected")

{module}.{target} = fail
"""


class MovedClock:
    """A wall clock that is wrong by the number of seconds in a file; monotonic clocks are right.

    Attributes:
        environment: The variables of a process that reads this clock.
    """

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()  # the process may have another working directory
        self._file = folder / "clock-seconds"
        self.move(0)
        _inject(folder, _CLOCK.format(file=str(self._file)))
        self.environment = {"PYTHONPATH": str(folder)}

    @property
    def is_read(self) -> bool:
        """Return whether a process has started with this clock."""
        return self._file.with_suffix(".injected").exists()

    def move(self, seconds: float) -> None:
        """Set by how many seconds the clock is ahead; below 0, it is behind."""
        written = self._file.with_suffix(".new")
        written.write_text(str(seconds))
        written.replace(self._file)  # at once: the server reads it again and again


def with_bug(folder: Path, module: str, target: str, *, coroutine: bool = False) -> dict[str, str]:
    """Return the variables of a server in which a function, or a coroutine, raises."""
    kind = "async def" if coroutine else "def"
    _inject(folder, _BUG.format(module=module, target=target, kind=kind))
    return {"PYTHONPATH": str(folder)}


def _inject(folder: Path, code: str) -> None:
    (folder / "sitecustomize.py").write_text(code)
