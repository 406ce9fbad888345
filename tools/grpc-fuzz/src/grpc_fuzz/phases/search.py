"""A search with hypothesis: it draws cases, finds a failure and shrinks the failing case."""

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

import hypothesis
from hypothesis.errors import Flaky, Unsatisfiable
from hypothesis.strategies import SearchStrategy

from grpc_fuzz.engine import engine_settings
from grpc_fuzz.model import Case, Failure
from grpc_fuzz.session import Session

ResultT = TypeVar("ResultT")

# Shrinking a call that hangs would take minutes. The smallest case by then is small enough.
SHRINK_SECONDS_MAX = 10.0


class StopSearch(BaseException):
    """Ends a search at once. It is no Exception, which hypothesis would take for a failing case."""


class _FailureFound(Exception):
    """Reports a failing case to hypothesis."""


class Search:
    """One hypothesis search for one failure that is not recorded.

    Attributes:
        smallest: The failure with the smallest case so far, or None.
    """

    def __init__(self, session: Session, shrink_seconds_max: float) -> None:
        self.smallest: Failure | None = None
        self._session = session
        self._shrink_seconds_max = shrink_seconds_max
        self._shrink_until = 0.0
        self._fault: Exception | None = None

    def goes_on(self) -> bool:
        """Return whether to send the next case, which is False once shrinking is out of time.

        Raises:
            StopSearch: The run ends, and no failure was found.
        """
        if self.smallest is not None:
            return time.monotonic() <= self._shrink_until
        if self._session.stopped:
            raise StopSearch
        return True

    def send(self, exchange: Callable[[], ResultT]) -> ResultT:
        """Call a function that sends a case and judges the reply.

        Raises:
            StopSearch: The function raised an error.
        """
        try:
            return exchange()
        except Exception as error:
            # A fault of grpc-fuzz or of a custom check. Hypothesis would try to shrink the case.
            self._fault = error
            raise StopSearch from error

    def report(self, failures: list[Failure]) -> None:
        """Report the first failure that this search looks for to hypothesis."""
        for failure in failures:
            if self._is_wanted(failure):
                self.smallest = failure
                raise _FailureFound

    def _is_wanted(self, failure: Failure) -> bool:
        if self.smallest is not None:
            # While shrinking, another failure must not replace the one that was found.
            return failure.key == self.smallest.key
        if self._session.is_recorded(failure):
            return False
        self._shrink_until = time.monotonic() + self._shrink_seconds_max
        return True

    def run(self, test: Callable[[], None]) -> None:
        """Run a hypothesis test to its end.

        Raises:
            Exception: What a function given to `send` raised.
        """
        # Flaky: the server answered differently the second time. The failure still counts.
        # Unsatisfiable: no case can be drawn, for example because bounds exclude each other.
        with contextlib.suppress(_FailureFound, Flaky, Unsatisfiable, StopSearch):
            test()
        if self._fault is not None:
            raise self._fault


def explore(session: Session, cases: SearchStrategy[Case], max_examples: int, *name: str) -> None:
    """Draw cases up to a limit, and record every new failure with its case shrunk.

    Args:
        session: The run.
        cases: The strategy for cases.
        max_examples: The limit on cases without those for shrinking, at least 1.
        name: The name of this exploration, which decides its seed.
    """
    remaining = max_examples
    searches = 0
    while remaining > 0 and not session.stopped:
        seed = session.seed_for(*name, str(searches))
        failure, drawn = _search(session, cases, remaining, seed)
        if failure is None:
            return
        session.record(failure)
        remaining -= drawn
        searches += 1


def _search(
    session: Session, cases: SearchStrategy[Case], max_examples: int, seed: int
) -> tuple[Failure | None, int]:
    """Return a failure that is not recorded, or None, and the number of cases drawn until then."""
    search = Search(session, SHRINK_SECONDS_MAX)
    drawn = 0

    # A function of its own for each search, because hypothesis stores settings and seed on it.
    def attempt(case: Case) -> None:
        nonlocal drawn
        if not search.goes_on():
            return
        if search.smallest is None:
            if session.given_up(case.method):
                raise StopSearch
            drawn += 1
        search.report(search.send(lambda: session.run_case(case)))

    settings = engine_settings(max_examples=max_examples, report_multiple_bugs=False)
    search.run(hypothesis.seed(seed)(settings(hypothesis.given(cases)(attempt))))
    return search.smallest, drawn
