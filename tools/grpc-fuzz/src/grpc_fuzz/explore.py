"""Hypothesis as an engine: draws cases, and shrinks those that fail."""

import contextlib
import time

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Flaky, Unsatisfiable
from hypothesis.strategies import SearchStrategy

from grpc_fuzz.model import Case, Failure
from grpc_fuzz.session import Session
from grpc_fuzz.work import Stopped

# Shrinking a call that hangs would take minutes; what is smallest by then is small enough.
SHRINK_SECONDS_MAX = 10.0


class _Found(Exception):
    """Tells hypothesis that a case fails."""


class _Search:
    """One search of hypothesis, for one failure that is not known yet."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.smallest: Failure | None = None
        self.crash: Exception | None = None
        self.drawn = 0
        self._shrink_until = 0.0

    def try_case(self, case: Case) -> None:
        """What hypothesis calls for each case, while searching as well as while shrinking."""
        if self.smallest is None:
            if self.session.stopped or self.session.given_up(case.method):
                raise Stopped
            self.drawn += 1
        elif time.monotonic() > self._shrink_until:
            return
        try:
            failures = self.session.attempt(case)
        except Exception as error:
            # A fault of this tool, or of a check: hypothesis would look for a smaller one.
            self.crash = error
            raise Stopped from error
        for failure in failures:
            if self._is_news(failure):
                self.smallest = failure
                raise _Found

    def _is_news(self, failure: Failure) -> bool:
        if self.smallest is not None:
            # While shrinking, another failure must not take the place of the one that was found.
            return failure.key == self.smallest.key
        if self.session.known(failure):
            return False
        self._shrink_until = time.monotonic() + SHRINK_SECONDS_MAX
        return True


def explore(session: Session, cases: SearchStrategy[Case], max_examples: int, *name: str) -> None:
    """Draws cases until as many were tried, and records every new failure at its smallest.

    Args:
        session: The run.
        cases: What to draw from.
        max_examples: How many cases to try, those for shrinking not counted; at least 1.
        name: Names this exploration; its seed is made from it.
    """
    remaining = max_examples
    searches = 0
    while remaining > 0 and not session.stopped:
        search = _Search(session)
        _search(search, cases, remaining, session.seed_for(*name, str(searches)))
        if search.smallest is None:
            return
        session.record(search.smallest)
        remaining -= search.drawn
        searches += 1


def _search(search: _Search, cases: SearchStrategy[Case], max_examples: int, seed: int) -> None:
    # A function of its own for each search: hypothesis notes settings and seed on it.
    def attempt(case: Case) -> None:
        search.try_case(case)

    settings = hypothesis.settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    run = hypothesis.seed(seed)(settings(hypothesis.given(cases)(attempt)))
    # Flaky: the server answered differently the second time. What was seen was seen.
    # Unsatisfiable: no case can be drawn, such as where bounds exclude each other.
    with contextlib.suppress(_Found, Flaky, Unsatisfiable, Stopped):
        run()
    if search.crash is not None:
        raise search.crash
