"""What came of a run."""

from dataclasses import dataclass

from grpc_fuzz.model import Failure
from grpc_fuzz.reach import Reach


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        failures: What decides the exit code: each check, method, status and cause once, in the
            order of finding.
        deviations: How the server's gRPC runtime deviates, where that does not decide; each check
            and cause once.
        given_up: The paths of methods that were not called any more, because each call hung.
        cases: How many cases were sent.
        seconds: How long the run took.
        reach: What was reached; None: the run ended before the first case.
        error: What ended the run early; None: nothing did.
    """

    failures: tuple[Failure, ...] = ()
    deviations: tuple[Failure, ...] = ()
    given_up: tuple[str, ...] = ()
    cases: int = 0
    seconds: float = 0.0
    reach: Reach | None = None
    error: BaseException | None = None
