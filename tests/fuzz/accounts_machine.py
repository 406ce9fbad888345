"""Let hypothesis begin, overlap, repeat and cancel all writes of the contract, and move the clock.

The requests come from the contract's own constraints, and from the ids that earlier answers have
shown. What is sent depends on hypothesis' seed alone; how calls overtake each other is the
machine's.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, ClassVar, TypeVar

import betterproto2
import credit_models
from credit_models import (
    CaptureHoldRequest,
    CreditRequest,
    ExtendHoldRequest,
    GrantCreditsRequest,
    PlaceHoldRequest,
    PurchaseRequest,
    Receipt,
    ReleaseHoldRequest,
    ReverseTransactionRequest,
    SetAppPolicyRequest,
    SetSpendingCapRequest,
    SpendingCaps,
    TransferCreditsRequest,
)
from credit_models.codec import decode
from credit_testing.accounts.auditor import audit
from credit_testing.accounts.draw import NO_ID
from credit_testing.accounts.journal import Call, Kind, Read
from credit_testing.accounts.policies import AppRules, Policies
from credit_testing.accounts.rules.decision import Refused
from credit_testing.accounts.rules.requests import Write
from credit_testing.http2_client import Connection
from google.protobuf.descriptor import Descriptor
from grpc_fuzz.config import read, settings_from
from grpc_fuzz.schema import Schema
from grpc_fuzz.strategies.messages import messages, serialize
from grpclib.const import Status
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule

from tests.fuzz.account_callers import Callers, Way
from tests.fuzz.callers import FRESH_NUMBERS, take_turns
from tests.fuzz.playing import play
from tests.fuzz.scripts import CONFIG, IMAGE

_ValueT = TypeVar("_ValueT")

STEPS = 30
_KEY_LENGTH_MAX = 128
_PLACES_MAX = 3
_CAP = 100
"""What each user may spend in the second app in a day."""

_SCHEMA = Schema.from_file(IMAGE, settings_from(read(CONFIG)).adapters)
_OPERATION: Descriptor = _SCHEMA.pool.FindMessageTypeByName("credit.v1.Operation")
REQUESTS = tuple(
    entry.message_type.name for entry in _OPERATION.fields if entry.message_type is not None
)
"""The names of all requests that write."""
_SOURCES = {
    "hold_id": (PlaceHoldRequest,),
    "grant_id": (GrantCreditsRequest, GrantCreditsRequest, TransferCreditsRequest),
    "transaction_id": (PurchaseRequest, CaptureHoldRequest, CreditRequest, GrantCreditsRequest),
}
"""The requests whose transactions a field refers to most of the time."""

whose = st.integers(0, 1)
clients = st.integers(0, 7)
places = st.integers(0, _PLACES_MAX)
turns = st.sampled_from((0, 0, 0, 1, 2, 5, 20, 60))
pauses = st.sampled_from((1, 20, 999, 1000, 1001, 30_000, 3_600_000, 90_000_000, 7 * 86_400_000))
key_endings = st.sampled_from(("", " 7", "é", "\U0001f4b3", "漢", "long"))
_amounts = st.integers(1, 20) | st.sampled_from((1, 50, 100, 2**31, 2**32 - 1))
_seconds = st.sampled_from((1, 2, 30, 3600, 604_800))
_offsets = st.sampled_from((-1000, -1, 0, 1, 500, 1000, 2000, 40_000, 7_200_000))
_seldom = st.sampled_from((False, False, False, True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A request before it is known what it refers to and what the time is.

    Attributes:
        request: The request, with users, apps and ids to be replaced.
        user: Whose it is: the first or the second user.
        app: The app.
        place: How far back the transaction is that it refers to.
        kind: Whether it refers to a transaction of a fitting kind, or to any.
        ahead: The user's revision that it expects, from the latest seen one; None: any.
        offsets: The times in it, in milliseconds from now.
        to: The user and the app of a transfer.
    """

    request: Write
    user: int
    app: int
    place: int
    kind: bool
    ahead: int | None
    offsets: tuple[int, int]
    to: tuple[int, int]


@cache
def _generated(name: str) -> st.SearchStrategy[Any]:
    """Return valid requests, by the contract's options. Any: the contract's messages."""
    descriptor = _SCHEMA.pool.FindMessageTypeByName(f"credit.v1.{name}")
    message_type: type[betterproto2.Message] = getattr(credit_models, name)
    return messages(_SCHEMA, descriptor).map(lambda one: decode(message_type, serialize(one)))


@st.composite
def writes(draw: st.DrawFn) -> Drawn:
    """Return requests of which many succeed: from the contract, with values that come together."""
    name = draw(_request_names)
    request = draw(_generated(name))
    changes: dict[str, Any] = {"min_available_after": draw(_small) if draw(_seldom) else None}
    if "validate_only" in _names(request):
        changes["validate_only"] = draw(_seldom)
    if "note" in _names(request) and not draw(_seldom):
        changes |= {"note": "n", "metadata": {"order": "7"} if draw(_seldom) else {}}
    match request:
        case SetSpendingCapRequest():
            changes["caps"] = SpendingCaps(per_day=draw(_some_caps), per_hour=draw(_some_caps))
        case ReverseTransactionRequest() | CaptureHoldRequest():
            changes["credits"] = draw(_some_caps)
        case credit_models.AdjustBalanceRequest():
            changes["delta"] = draw(_signs) * draw(_amounts)
        case _ if "credits" in _names(request):
            changes["credits"] = draw(_amounts)
    if isinstance(request, PlaceHoldRequest | ExtendHoldRequest):
        changes["expires_after_seconds"] = draw(_seconds)
    if isinstance(request, PurchaseRequest | CaptureHoldRequest) and draw(_seldom):
        changes["report_id"] = "r"
    return Drawn(
        request=replace(request, **changes),
        user=draw(whose),
        app=draw(whose),
        place=draw(places),
        kind=not draw(_seldom),
        ahead=draw(_aheads) if draw(_seldom) else None,
        offsets=(draw(_offsets), draw(_offsets)),
        to=draw(_targets),
    )


# Making a strategy takes longer than drawing from it.
_request_names = st.sampled_from(REQUESTS)
_small = st.integers(0, 60)
_some_caps = st.none() | st.integers(1, 60)
_signs = st.sampled_from((1, -1))
_aheads = st.sampled_from((0, 0, -1))
_targets = st.sampled_from(((0, 1), (1, 0), (1, 1)))


def _names(message: Write) -> set[str]:
    return {entry.name for entry in fields(message)}


class Loop:
    """An event loop for synchronous tests, connections to a server, and the server's clock.

    Attributes:
        wires: The connections.
        now: Returns the server's time, nearly.
        pause: Lets a number of milliseconds pass for the server.
    """

    def __init__(
        self,
        runner: asyncio.Runner,
        wires: Sequence[Connection],
        now: Callable[[], datetime],
        pause: Callable[[int], Coroutine[Any, Any, None]],
    ) -> None:
        self._runner = runner
        self.wires = wires
        self.now = now
        self.pause = pause

    def run(self, work: Coroutine[Any, Any, _ValueT]) -> _ValueT:
        """Run a coroutine to its end, together with all that has begun. Any: asyncio's own type."""
        return self._runner.run(work)


class AccountsMachine(RuleBasedStateMachine):
    """Make calls about two users and two apps that belong to this example alone.

    The second app allows debts, and has a spending cap of its own for each day.
    """

    loop: ClassVar[Loop]
    met: ClassVar[Counter[str]]
    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.callers = Callers(self.loop.wires)
        # The last one shows the time alone.
        self.users = [next(FRESH_NUMBERS) for _ in range(3)]
        self.apps = [next(FRESH_NUMBERS) for _ in range(2)]
        self.policies: Policies = {
            self.apps[1]: (AppRules(caps={"day": _CAP}, allow_negative=True),)
        }
        self._key_numbers = itertools.count(1)
        self._calls: list[Call] = []
        self.loop.run(self._prepare())

    async def _prepare(self) -> None:
        app = self.apps[1]
        caps = SetSpendingCapRequest(app_id=app, created_by=1, caps=SpendingCaps(per_day=_CAP))
        policy = SetAppPolicyRequest(app_id=app, created_by=1, allow_negative=True)
        for name, request in (("SetSpendingCap", caps), ("SetAppPolicy", policy)):
            answer = await self.loop.wires[0].call(f"/credit.v1.LedgerService/{name}", request)
            assert answer.status is Status.OK
        await self.callers.fence(self.users[2])

    @rule(target=sent, client=clients, drawn=writes(), ending=key_endings, turns=turns)
    def write(self, client: int, drawn: Drawn, ending: str, turns: int) -> Write:
        return self._begin(client, Way.CALL, turns, drawn, endings=(ending,))[0]

    @rule(client=clients, drawn=st.lists(writes(), min_size=2, max_size=4), turns=turns)
    def write_alone(self, client: int, drawn: list[Drawn], turns: int) -> None:
        """Send writes one after the other, so that each can refer to those before it."""
        for one in drawn:
            self._begin(client, Way.CALL, turns, one)

    @rule(
        client=clients,
        way=st.sampled_from((Way.BATCH, Way.STREAM, Way.ATOMIC, Way.ATOMIC)),
        drawn=st.lists(writes(), min_size=1, max_size=4),
        turns=turns,
    )
    def write_several(self, client: int, way: Way, drawn: list[Drawn], turns: int) -> None:
        self._begin(client, way, turns, *drawn)

    @rule(
        client=clients,
        user=whose,
        app=whose,
        credits=st.integers(20, 2000),
        priority=st.none() | st.sampled_from((0, 400, 500, 900)),
        start=st.none() | st.sampled_from((-5, 500, 2000)),
        lasts=st.none() | st.sampled_from((1, 2, 30, 86_400)),
        moves=st.booleans(),
    )
    def endow(
        self,
        client: int,
        user: int,
        app: int,
        credits: int,  # noqa: A002 - the contract's word
        priority: int | None,
        start: int | None,
        lasts: int | None,
        moves: bool,
    ) -> None:
        """Grant credits that can be spent or moved, which chance does too seldom."""
        grant = GrantCreditsRequest(
            user_id=self.users[user],
            app_id=self.apps[app],
            created_by=1,
            idempotency_key=self._key(""),
            credits=credits,
            priority=priority,
            effective_at=None if start is None else self._time(start),
            expires_after_seconds=lasts,
        )
        self._send(client, Way.CALL, 0, grant)
        if moves:
            transfer = TransferCreditsRequest(
                user_id=self.users[user],
                app_id=self.apps[app],
                created_by=1,
                idempotency_key=self._key(""),
                credits=credits // 2,
                to_user_id=self.users[1 - user],
            )
            self._send(client, Way.CALL, 0, transfer)

    @rule(client=clients, user=whose, created_by=st.integers(1, 9))
    def exceed_the_cap(self, client: int, user: int, created_by: int) -> None:
        """Use more credits in a day than the second app allows, which chance does too seldom."""
        # Any: the fields of requests.
        common: dict[str, Any] = {
            "user_id": self.users[user],
            "app_id": self.apps[1],
            "created_by": created_by,
            "credits": _CAP + 1,
        }
        report: dict[str, Any] = {"report_id": "r", "report_name": "Report"}
        self._send(client, Way.CALL, 0, CreditRequest(**common, idempotency_key=self._key("")))
        use = PurchaseRequest(**common, **report, idempotency_key=self._key(""))
        self._send(client, Way.CALL, 0, use)

    @rule(client=clients, drawn=writes(), place=places, user=whose, app=whose)
    def use_what_is_there(self, client: int, drawn: Drawn, place: int, user: int, app: int) -> None:
        """Grant, hold, capture and refund, because random calls rarely have this order."""
        # Any: the fields of requests, here and below.
        common: dict[str, Any] = {
            "user_id": self.users[user],
            "app_id": self.apps[app],
            "created_by": 1,
        }
        report: dict[str, Any] = {"report_id": "r", "report_name": "Report"}
        add = CreditRequest(**common, credits=7, idempotency_key=self._key(""))
        self._send(client, Way.CALL, 0, add)
        # Two grants and two holds, which is one more than low limits allow. The second grant ends
        # first.
        for offset in (7_200_000, 40_000):
            grant = GrantCreditsRequest(
                **common, credits=2, expires_at=self._time(offset), idempotency_key=self._key("")
            )
            self._send(client, Way.CALL, 0, grant)
        for _ in range(2):
            hold = PlaceHoldRequest(
                **common, credits=3, allow_partial=True, idempotency_key=self._key("")
            )
            self._send(client, Way.CALL, 0, hold)
        hold_id, _ = self._seen(0, (PlaceHoldRequest,))
        settling: Write = CaptureHoldRequest(
            **common,
            **report,
            hold_id=hold_id,
            credits=1 + place,
            final=place % 2 == 0,
            idempotency_key=self._key(""),
        )
        if place == _PLACES_MAX:
            settling = ReleaseHoldRequest(**common, hold_id=hold_id, idempotency_key=self._key(""))
        self._send(client, Way.CALL, 0, settling)
        used_id, _ = self._seen(0, (CaptureHoldRequest, PurchaseRequest))
        # Refund twice: the second time, less remains to refund, or nothing.
        for part in (None, 1) if place % 2 else (1, None):
            refund = ReverseTransactionRequest(
                **common,
                transaction_id=used_id,
                credits=part,
                restore_until=self._time(drawn.offsets[0]) if drawn.kind else None,
                idempotency_key=self._key(""),
            )
            self._send(client, Way.CALL, 0, refund)

    @rule(client=clients, request=sent, way=st.sampled_from(Way), turns=turns)
    def send_again(self, client: int, request: Write, way: Way, turns: int) -> None:
        self._send(client, way, turns, request)

    @rule(client=clients, request=sent, drawn=writes(), turns=turns)
    def use_the_key_again(self, client: int, request: Write, drawn: Drawn, turns: int) -> None:
        """Use a key for another request, of the same call or of another one."""
        self._reuse_key(client, request, drawn, turns)

    @rule(client=clients, drawn=writes(), turns=turns)
    def use_an_accepted_key_again(self, client: int, drawn: Drawn, turns: int) -> None:
        """Use the key of an accepted request, which chance does too seldom."""
        _, accepted = self._seen(drawn.place, ())
        if accepted is not None:
            self._reuse_key(client, accepted, drawn, turns)

    def _reuse_key(self, client: int, request: Write, drawn: Drawn, turns: int) -> None:
        other = self._resolved(drawn)
        if drawn.kind:
            other = replace(request, created_by=drawn.request.created_by)
        own: dict[str, Any] = {"user_id": request.user_id, "app_id": request.app_id}
        own["idempotency_key"] = request.idempotency_key
        if isinstance(other, TransferCreditsRequest) and not drawn.kind:
            own["app_id"] = other.app_id
            if (request.user_id, other.app_id) == (other.to_user_id, other.to_app_id):
                own["to_user_id"] = next(user for user in self.users if user != request.user_id)
        self._send(client, Way.CALL, turns, replace(other, **own))

    @rule(client=clients, drawn=writes(), turns=st.integers(0, 60))
    def give_up(self, client: int, drawn: Drawn, turns: int) -> None:
        request = replace(self._resolved(drawn), idempotency_key=self._key(""))
        self.loop.run(self.callers.give_up(client, request, turns=turns))

    @rule(
        client=clients,
        kind=st.sampled_from(
            (Kind.USER_CREDITS, Kind.BALANCE, Kind.GRANTS, Kind.OPEN_HOLDS, Kind.FORECAST)
        ),
        user=whose,
        app=whose,
        until=st.none() | _offsets,
        turns=turns,
    )
    def read(
        self, client: int, kind: Kind, user: int, app: int, until: int | None, turns: int
    ) -> None:
        time = None if until is None else self._time(max(until, 0) + 60_000)
        question = Read(kind=kind, user_id=self.users[user], app_id=self.apps[app], until=time)

        async def begin() -> None:
            self.callers.read(client, question)
            await take_turns(turns)

        self.loop.run(begin())

    @rule(milliseconds=pauses)
    def let_time_pass(self, milliseconds: int) -> None:
        self.loop.run(self.loop.pause(milliseconds))

    @rule()
    def wait(self) -> None:
        self.loop.run(self.callers.wait())

    def teardown(self) -> None:
        self.loop.run(self.callers.finish(self.users, self.apps))
        findings = audit(self.callers.journal, self.users, self.policies)
        assert not findings, "\n".join(findings)
        for call in self.callers.journal.calls:
            if isinstance(call.question, Read):
                continue
            self.met.update(_name(answer) for _, answer in call.writes())

    def _begin(
        self, client: int, way: Way, count: int, *drawn: Drawn, endings: Sequence[str] = ()
    ) -> list[Write]:
        requests = [
            replace(self._resolved(one), idempotency_key=self._key(ending))
            for one, ending in itertools.zip_longest(drawn, endings, fillvalue="")
            if isinstance(one, Drawn)
        ]
        self._send(client, way, count, *requests)
        return requests

    def _send(self, client: int, way: Way, count: int, *requests: Write) -> None:
        async def begin() -> None:
            self._calls += self.callers.start(client, way, *requests)
            await take_turns(count)

        self.loop.run(begin())

    def _resolved(self, drawn: Drawn) -> Any:
        """Return the request with its user, app, ids and times. Any: a request of any type."""
        request = drawn.request
        changes: dict[str, Any] = {
            "user_id": self.users[drawn.user],
            "app_id": self.apps[drawn.app],
            "expected_revision": self._revision(drawn),
        }
        for name, kinds in _SOURCES.items():
            if name in _names(request):
                changes[name], owner = self._seen(drawn.place, kinds if drawn.kind else ())
                if drawn.kind and owner is not None:
                    changes |= {"user_id": owner.user_id, "app_id": owner.app_id}
        if isinstance(request, TransferCreditsRequest):
            other_user, other_app = drawn.to
            changes["to_user_id"] = self.users[(drawn.user + other_user) % 2]
            changes["to_app_id"] = self.apps[(drawn.app + other_app) % 2]
        for name, offset in zip(
            ("effective_at", "expires_at", "restore_until"),
            (*drawn.offsets, drawn.offsets[0]),
            strict=True,
        ):
            if getattr(request, name, None) is not None:
                changes[name] = self._time(offset)
        return replace(request, **changes)

    def _time(self, offset: int) -> datetime:
        time = self.loop.now() + timedelta(milliseconds=offset)
        return time.replace(microsecond=time.microsecond // 1000 * 1000)

    def _revision(self, drawn: Drawn) -> int | None:
        if drawn.ahead is None:
            return None
        self.wait()
        user = self.users[drawn.user]
        seen = [
            answer.sequence
            for call in self.callers.journal.calls
            if not isinstance(call.question, Read)
            for request, answer in call.writes()
            if isinstance(answer, Receipt) and request.user_id == user
        ]
        return max(0, max(seen, default=0) + drawn.ahead)

    def _seen(self, place: int, kinds: tuple[type, ...]) -> tuple[str, Write | None]:
        """Return the id of a transaction that an answer has shown, and its request."""
        self.wait()
        found = [
            (answer.transaction_id, request)
            for call in self._calls
            for request, answer in call.writes()
            if isinstance(answer, Receipt)
            and not answer.validated
            and (not kinds or isinstance(request, kinds))
        ]
        return found[-1 - place % len(found)] if found else (NO_ID, None)

    def _key(self, ending: str) -> str:
        key = f"{next(self._key_numbers)}{ending}"
        return key.ljust(_KEY_LENGTH_MAX, "k") if ending == "long" else key


def explore(loop: Loop, *, seed: int, examples: int, shrink: bool = True) -> Counter[str]:
    """Run a number of examples and audit each.

    Args:
        loop: The connections.
        seed: Makes the same calls again.
        examples: How many ledgers are played with.
        shrink: Whether to look for the shortest calls that the auditor objects to.

    Returns:
        How often each kind of answer was given: the types of new entries, "replayed", the names of
        rejections …

    Raises:
        AssertionError: The auditor has found something; the message has the findings.
    """

    class Machine(AccountsMachine):
        pass

    Machine.loop = loop
    Machine.met = Counter()
    play(Machine, seed=seed, examples=examples, steps=STEPS, shrink=shrink)
    return Machine.met


def _name(answer: object) -> str:
    match answer:
        case Receipt(validated=True):
            return "validated"
        case Receipt(replayed=True):
            return "replayed"
        case Receipt():
            return "ADD or USE" if not answer.type else str(answer.type.name)
        case Refused(reason=reason):
            return reason
        case _:
            return "unknown"
