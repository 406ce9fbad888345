"""What a run reports: to its listeners while it goes on, and as its outcome at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from grpc_fuzz.contract_coverage import ContractCoverage
from grpc_fuzz.model import Case, Failure, Method, Reply
from grpc_fuzz.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result of a run.

    Attributes:
        failures: The failures that decide the exit code, in the order in which they were found.
            Each combination of check, method, status and cause is there once.
        deviations: The deviations of the server's gRPC runtime that do not decide the exit code.
            Each combination of check and cause is there once.
        given_up: The paths of the methods that the run stopped calling because each call hung.
        cases: How many cases were sent.
        seconds: How long the run took.
        coverage: What the run covered of the contract; None if it ended before the first case.
        error: What ended the run early, or None.
    """

    failures: tuple[Failure, ...] = ()
    deviations: tuple[Failure, ...] = ()
    given_up: tuple[str, ...] = ()
    cases: int = 0
    seconds: float = 0.0
    coverage: ContractCoverage | None = None
    error: BaseException | None = None

    @property
    def error_line(self) -> str | None:
        """What ended the run early, in one line, or None."""
        if self.error is None:
            return None
        name = type(self.error).__name__
        return f"{name}: {self.error}" if str(self.error) else name


class Listener(Protocol):
    """Receives the events of a run. All workers call `on_case` and `on_failure`."""

    def on_start(self, settings: Settings, methods: Sequence[Method]) -> None:
        """Handle the start of the run."""

    def on_phase(self, name: str) -> None:
        """Handle the start of a phase, which is also the end of the phase before it."""

    def on_case(self, case: Case, reply: Reply, failures: list[Failure]) -> None:
        """Handle a case that was sent and judged, with those failures that are not recorded."""

    def on_failure(self, failure: Failure, name: str) -> None:
        """Handle a failure that was recorded and is stored under that name."""

    def on_end(self, outcome: Outcome) -> None:
        """Handle the end of the run, also if it did not begin or an error ended it."""
