"""What is told of a run, and when."""

from collections.abc import Sequence
from typing import Protocol

from grpc_fuzz.model import Case, Failure, Method, Reply
from grpc_fuzz.outcome import Outcome
from grpc_fuzz.settings import Settings


def error_line(error: BaseException) -> str:
    """What ended a run early, in one line."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class Listener(Protocol):
    """Who is told how a run goes on. `on_case` and `on_failure` are called from all workers."""

    def on_start(self, settings: Settings, methods: Sequence[Method]) -> None:
        """The run begins."""

    def on_phase(self, name: str) -> None:
        """A phase begins, and the one before it has ended."""

    def on_case(self, case: Case, reply: Reply, failures: list[Failure]) -> None:
        """A case was sent and judged; the failures are those not recorded before."""

    def on_failure(self, failure: Failure, name: str) -> None:
        """A failure was recorded, and is kept under that name."""

    def on_end(self, outcome: Outcome) -> None:
        """The run is over, also where it did not begin or was ended by an error."""
