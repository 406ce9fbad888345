"""The stateful phase: a hypothesis state machine makes and shrinks sequences of linked calls."""

from functools import partial
from typing import Any

import hypothesis
from hypothesis import Verbosity
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from hypothesis.strategies import DataObject

from grpc_fuzz.engine import engine_settings
from grpc_fuzz.model import Failure, Method
from grpc_fuzz.phases.search import Search
from grpc_fuzz.session import Session
from grpc_fuzz.stateful.bindings import without_call
from grpc_fuzz.stateful.sequence import CallSequence

CALLS_MAX = 10
# Shrinking against a server that is slow to fail would take minutes.
_SHRINK_SECONDS_MAX = 5.0


def run(session: Session) -> None:
    """Make as many calls in sequences as the settings allow, divided among the workers."""
    calls = session.settings.max_examples * len(session.methods)
    workers = session.settings.workers
    sequences = max(1, -(-calls // (CALLS_MAX * workers)))
    session.run_tasks([partial(_explore, session, sequences, worker) for worker in range(workers)])


def _explore(session: Session, sequences: int, worker: int) -> None:
    searches = 0
    while sequences > 0 and not session.stopped:
        search = _SequenceSearch(session)
        search.run(sequences, session.seed_for("stateful", str(worker), str(searches)))
        if search.smallest is None:
            return
        session.record(shorten(session, search.smallest))
        sequences -= search.sequences
        searches += 1


class _SequenceSearch:
    """One search of hypothesis for one failure that is not recorded.

    Attributes:
        sequences: How many sequences were made until the failure was found.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._search = Search(session, _SHRINK_SECONDS_MAX)
        self.sequences = 0

    @property
    def smallest(self) -> Failure | None:
        """The failure with the smallest sequence, or None."""
        return self._search.smallest

    def run(self, sequences: int, seed: int) -> None:
        """Make sequences up to a limit, and shrink the first that fails."""
        settings = engine_settings(
            max_examples=sequences,
            stateful_step_count=CALLS_MAX,
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
        )
        machine = self._machine()

        # A function and not the class: hypothesis would parse the source of a class, and CPython
        # 3.11 fails ("AST constructor recursion depth mismatch") if two threads do that at once.
        def make() -> RuleBasedStateMachine:
            return machine()

        seeded = hypothesis.seed(seed)(make)
        # The documentation accepts any callable, but the annotation accepts only a class.
        self._search.run(lambda: run_state_machine_as_test(seeded, settings=settings))  # type: ignore[arg-type]

    def _machine(self) -> type[RuleBasedStateMachine]:
        """Return a state machine with one rule for each method."""
        search, session = self, self._session

        class Calls(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                search.sequences += search.smallest is None
                self.calls = CallSequence(session.schema, session.settings.links)

        rules = {
            f"call_{index}": self._rule(method) for index, method in enumerate(session.methods)
        }
        return type("Calls", (Calls,), rules)

    # Any: hypothesis has no type for a rule.
    def _rule(self, method: Method) -> Any:
        search = self

        def call(self: Any, data: DataObject) -> None:
            search.make_call(self.calls, method, data)

        return rule(data=st.data())(call)

    def make_call(self, calls: CallSequence, method: Method, data: DataObject) -> None:
        """Make the next call of a sequence."""
        if not self._search.goes_on() or self._session.given_up(method):
            return
        case = calls.draw(method, data)
        reply, failures = self._search.send(lambda: self._session.exchange(case))
        self._search.report(failures)
        calls.add(case, reply)


def shorten(session: Session, failure: Failure) -> Failure:
    """Leave out each earlier call without which the sequence still fails, the latest first.

    Hypothesis shrinks what it draws, but while it does, the server keeps the state of the sequences
    before. Here each attempt sends the whole sequence again, with the values of the new responses.
    """
    for position in reversed(range(len(failure.case.before))):
        shorter = without_call(failure.case, position)
        if shorter is not None:
            same = (entry for entry in session.run_case(shorter) if entry.key == failure.key)
            failure = next(same, failure)
    return failure
