"""What is told of a run, and when."""

from collections.abc import Sequence
from typing import Protocol

from grpc_fuzz.model import Case, Failure, Method, Reply
from grpc_fuzz.settings import Settings


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

    def on_end(self, failures: Sequence[Failure], cases: int, seconds: float) -> None:
        """The run is over."""
