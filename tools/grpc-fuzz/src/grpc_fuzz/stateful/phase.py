"""The stateful phase: sequences of linked calls, made and shrunk by a hypothesis state machine."""

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from hypothesis.strategies import DataObject

from grpc_fuzz.model import Failure, Method
from grpc_fuzz.stateful.sequence import CallSequence
from grpc_fuzz.stateful.shorten import shorten
from grpc_fuzz.work import Stopped, share

if TYPE_CHECKING:
    # The session plays sequences, and so imports this package itself.
    from grpc_fuzz.session import Session

CALLS_MAX = 10
# Shrinking against a server that is slow to fail would take minutes.
_SHRINK_SECONDS_MAX = 5.0


class _Found(Exception):
    """Tells hypothesis that a sequence fails."""


class _Search:
    """One search of hypothesis, for one failure that is not known yet."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._shrink_until = 0.0
        self.smallest: Failure | None = None
        self.crash: Exception | None = None
        self.sequences = 0

    def machine(self) -> type[RuleBasedStateMachine]:
        """A state machine with one rule for each method."""
        search, session = self, self._session

        class Calls(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                search.sequences += search.smallest is None
                self.calls = CallSequence(session.schema, session.settings.links)

        rules = {
            f"call_{index}": _rule(self, method) for index, method in enumerate(session.methods)
        }
        return type("Calls", (Calls,), rules)

    def make_call(self, calls: CallSequence, method: Method, data: DataObject) -> None:
        """What a rule does: the next call of the sequence."""
        if self.smallest is None and self._session.stopped:
            raise Stopped
        if self.smallest is not None and time.monotonic() > self._shrink_until:
            return
        if self._session.given_up(method):
            return
        case = calls.draw(method, data)
        try:
            reply, failures = self._session.exchange(case)
        except Exception as error:
            # A fault of this tool, or of a check: hypothesis would look for a smaller one.
            self.crash = error
            raise Stopped from error
        for failure in failures:
            if self._is_news(failure):
                self.smallest = failure
                raise _Found
        calls.note(case, reply)

    def _is_news(self, failure: Failure) -> bool:
        if self.smallest is not None:
            # While shrinking, another failure must not take the place of the one that was found.
            return failure.key == self.smallest.key
        if self._session.known(failure):
            return False
        self._shrink_until = time.monotonic() + _SHRINK_SECONDS_MAX
        return True


# Any: hypothesis does not say what a rule is.
def _rule(search: _Search, method: Method) -> Any:
    def call(self: Any, data: DataObject) -> None:
        search.make_call(self.calls, method, data)

    return rule(data=st.data())(call)


def run(session: "Session") -> None:
    """Makes as many calls in sequences as the settings allow, each worker its share."""
    calls = session.settings.max_examples * len(session.methods)
    workers = session.settings.workers
    sequences = max(1, -(-calls // (CALLS_MAX * workers)))
    share(session, [partial(_explore, session, sequences, worker) for worker in range(workers)])


def _explore(session: "Session", sequences: int, worker: int) -> None:
    searches = 0
    while sequences > 0 and not session.stopped:
        search = _Search(session)
        seed = session.seed_for("stateful", str(worker), str(searches))
        _search(search, sequences, seed)
        if search.smallest is None:
            return
        session.record(shorten(session, search.smallest))
        sequences -= search.sequences
        searches += 1


def _search(search: _Search, sequences: int, seed: int) -> None:
    settings = hypothesis.settings(
        max_examples=sequences,
        stateful_step_count=CALLS_MAX,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    machine = search.machine()

    # A function and not the class: hypothesis would parse the source of a class, and CPython 3.11
    # fails ("AST constructor recursion depth mismatch") where two threads do that at once.
    def make() -> RuleBasedStateMachine:
        return machine()

    # Flaky: the server's state has changed in between. What was seen was seen.
    with contextlib.suppress(_Found, Flaky, Stopped):
        # The documentation takes any callable, the annotation a class alone.
        run_state_machine_as_test(hypothesis.seed(seed)(make), settings=settings)  # type: ignore[arg-type]
    if search.crash is not None:
        raise search.crash
