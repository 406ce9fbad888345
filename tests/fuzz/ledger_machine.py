"""Let hypothesis begin, overlap, repeat and cancel the calls of several clients.

What is sent depends on hypothesis' seed alone; how calls overtake each other is the machine's.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from credit_client import CreditClient
from credit_models import CreditRequest, PurchaseRequest, Receipt
from credit_testing.accounts.journal import Answer, Kind, Read, Unknown
from credit_testing.accounts.model import UINT32_MAX
from credit_testing.accounts.rules.decision import Refused
from grpc_fuzz.constraint import Constraint
from grpc_fuzz.strategies.scalars import texts
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule

from tests.fuzz.callers import FRESH_NUMBERS, Callers, Question, take_turns
from tests.fuzz.playing import play

_ValueT = TypeVar("_ValueT")
_QuestionT = TypeVar("_QuestionT", bound=Question)

Write = CreditRequest | PurchaseRequest
READS = (Kind.USER_CREDITS, Kind.BALANCE, Kind.APP_TOTAL, Kind.TRANSACTIONS, Kind.PURCHASES)
KEY_LENGTH_MAX = 128
STEPS = 40
_TURNS_MAX = 60
"""A call of a loaded server takes some dozens of turns of the event loop."""
_MILLISECONDS_MAX = 12
"""A write takes a few milliseconds: some deadlines are met, and some are not."""

_EDGES = (1, 2, 3, 2**31 - 1, 2**31, UINT32_MAX - 1, UINT32_MAX)
numbers = st.sampled_from(_EDGES) | st.integers(1, 100) | st.integers(1, UINT32_MAX)
turns = st.sampled_from((0, 0, 0, 1, 2, 5, 20, _TURNS_MAX))
clients = st.integers(0, 7)
whose = st.integers(0, 1)
key_endings = st.sampled_from(("", " 7", "é", "\U0001f4b3", "漢", "long"))
reports = st.tuples(
    texts(Constraint(text="identifier", length_min=1, length_max=128)),
    texts(Constraint(text="name", length_min=1, length_max=256)),
)


class Loop:
    """An event loop for synchronous tests, and the clients that run on it."""

    def __init__(self, runner: asyncio.Runner, clients: Sequence[CreditClient]) -> None:
        self._runner = runner
        self.clients = clients

    def run(self, work: Coroutine[Any, Any, _ValueT]) -> _ValueT:
        """Run a coroutine to its end, together with all that has begun. Any: asyncio's own type."""
        return self._runner.run(work)


class LedgerMachine(RuleBasedStateMachine):
    """Make calls about two users and two apps that belong to this example alone."""

    loop: ClassVar[Loop]
    met: ClassVar[Counter[str]]
    writes = Bundle("writes")

    def __init__(self) -> None:
        super().__init__()
        self.callers = Callers(self.loop.clients)
        self.users = [next(FRESH_NUMBERS) for _ in range(2)]
        self.apps = [next(FRESH_NUMBERS) for _ in range(2)]
        self._key_numbers = itertools.count(1)

    @rule(
        target=writes,
        client=clients,
        user=whose,
        app=whose,
        credits=numbers,
        created_by=numbers,
        ending=key_endings,
        turns=turns,
    )
    def add(self, client: int, turns: int, ending: str, **values: int) -> Write:
        return self._begin(client, turns, self._new_write(ending, None, **values))

    @rule(
        target=writes,
        client=clients,
        user=whose,
        app=whose,
        credits=numbers,
        created_by=numbers,
        ending=key_endings,
        report=reports,
        turns=turns,
    )
    def use(
        self, client: int, turns: int, ending: str, report: tuple[str, str], **values: int
    ) -> Write:
        return self._begin(client, turns, self._new_write(ending, report, **values))

    @rule(client=clients, write=writes, turns=turns)
    def send_again(self, client: int, write: Write, turns: int) -> None:
        self._begin(client, turns, write)

    @rule(
        target=writes,
        client=clients,
        write=writes,
        turns=turns,
        change=st.fixed_dictionaries(
            {}, optional={"credits": numbers, "created_by": numbers, "report": reports}
        ),
        app=whose,
    )
    def use_the_key_again(
        self,
        client: int,
        write: Write,
        turns: int,
        change: dict[str, Any],  # of several fields
        app: int,
    ) -> Write:
        report = change.get("report")
        if isinstance(write, PurchaseRequest) and report is None:
            report = write.report_id, write.report_name
        other = _request(
            report,
            user_id=write.user_id,
            app_id=self.apps[app],
            credits=change.get("credits", write.credits),
            created_by=change.get("created_by", write.created_by),
            idempotency_key=write.idempotency_key,
        )
        return self._begin(client, turns, other)

    @rule(client=clients, kind=st.sampled_from(READS), user=whose, app=whose, turns=turns)
    def read(self, client: int, kind: Kind, user: int, app: int, turns: int) -> None:
        question = Read(kind=kind, user_id=self.users[user], app_id=self.apps[app])
        self._begin(client, turns, question)

    @rule(client=clients, write=writes, turns=st.integers(0, _TURNS_MAX))
    def give_up(self, client: int, write: Write, turns: int) -> None:
        self.loop.run(self.callers.give_up(client, self._renamed(write), turns=turns))

    @rule(client=clients, write=writes, milliseconds=st.integers(1, _MILLISECONDS_MAX))
    def hurry(self, client: int, write: Write, milliseconds: int) -> None:
        async def begin() -> None:
            self.callers.start(client, self._renamed(write), timeout_seconds=milliseconds / 1000)

        self.loop.run(begin())

    @rule()
    def wait(self) -> None:
        self.loop.run(self.callers.wait())

    def teardown(self) -> None:
        findings = self.loop.run(self.callers.audit(self.users, self.apps))
        assert not findings, "\n".join(findings)
        self.met.update(_name(call.answer) for call in self.callers.journal.calls)

    def _new_write(
        self,
        ending: str,
        report: tuple[str, str] | None,
        *,
        user: int,
        app: int,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
    ) -> Write:
        return _request(
            report,
            user_id=self.users[user],
            app_id=self.apps[app],
            credits=credits,
            created_by=created_by,
            idempotency_key=self._key(ending),
        )

    def _renamed(self, write: Write) -> Write:
        """Send the same write as a new one."""
        return replace(write, idempotency_key=self._key(""))

    def _key(self, ending: str) -> str:
        key = f"{next(self._key_numbers)}{ending}"
        return key.ljust(KEY_LENGTH_MAX, "k") if ending == "long" else key

    def _begin(self, client: int, count: int, question: _QuestionT) -> _QuestionT:
        async def begin() -> None:
            self.callers.start(client, question)
            await take_turns(count)

        self.loop.run(begin())
        return question


# Any: the fields have several types.
def _request(report: tuple[str, str] | None, **fields: Any) -> Write:
    """Return a request that adds credits or, if it has a report, spends them."""
    if report is None:
        return CreditRequest(**fields)
    report_id, report_name = report
    return PurchaseRequest(report_id=report_id, report_name=report_name, **fields)


def explore(loop: Loop, *, seed: int, examples: int, shrink: bool = True) -> Counter[str]:
    """Run a number of examples and audit each.

    Args:
        loop: The clients.
        seed: Makes the same calls again.
        examples: How many ledgers are played with.
        shrink: Whether to look for the shortest calls that the auditor objects to.

    Returns:
        How often each kind of answer was given: the names of refusals, "new", "replayed" …

    Raises:
        AssertionError: The auditor has found something; the message has the findings.
    """

    class Machine(LedgerMachine):
        pass

    Machine.loop = loop
    Machine.met = Counter()
    play(Machine, seed=seed, examples=examples, steps=STEPS, shrink=shrink)
    return Machine.met


def _name(answer: Answer) -> str:
    match answer:
        case Receipt(replayed=replayed):
            return "replayed" if replayed else "new"
        case Refused(reason=reason):
            return reason
        case Unknown():
            return "unknown"
        case _:
            return "shown"
