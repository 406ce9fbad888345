"""Compare the ledger with a model that keeps single credits, for any interleaving of commands.

A clock moves between the commands: to the instant at which something is due, just before it, over
the edges of hours, days and months, and over a leap day.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby, zip_longest
from typing import Any, ClassVar

import pytest
from credit_models.ledger import (
    Accepted,
    Account,
    Add,
    AdjustBalance,
    Alert,
    Allocation,
    AppAccount,
    Caps,
    CaptureHold,
    Category,
    Command,
    Direction,
    ExtendHold,
    GrantCredits,
    Kind,
    Period,
    PlaceHold,
    Policy,
    ReleaseHold,
    Replayed,
    ReverseTransaction,
    SetAlert,
    SetSpendingCap,
    Settle,
    Transaction,
    TransferCredits,
    Use,
    VoidGrant,
    settle,
)
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fuzz.playing import play
from tests.models.ledger.history import History
from tests.models.ledger.tokens import (
    ALERTS_MAX,
    FREE,
    GRANTS_MAX,
    HOLDS_MAX,
    SCHEDULED,
    Event,
    Expected,
    Model,
    Purse,
    window,
    window_end,
)

EXAMPLES = 50
STEPS = 60

PLACING = (Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN)

USERS = (1, 2)
APPS = (1, 2)
MILLISECOND = timedelta(milliseconds=1)

# Shortly before a leap day, the ends of months of each length, a year, and any day.
STARTS = [
    datetime(2028, 2, 28, 22, 50, tzinfo=UTC),
    datetime(2028, 2, 29, 23, 59, 59, 998000, tzinfo=UTC),
    datetime(2027, 2, 28, 23, 40, tzinfo=UTC),
    datetime(2027, 12, 31, 23, 55, tzinfo=UTC),
    datetime(2026, 1, 30, 23, 59, tzinfo=UTC),
    datetime(2026, 4, 30, 12, 0, tzinfo=UTC),
    datetime(2026, 6, 15, 9, 59, 59, 999000, tzinfo=UTC),
]
SPANS = st.sampled_from(
    [timedelta(minutes=minutes) for minutes in (1, 15, 60)]
    + [timedelta(days=days) for days in (1, 7, 29, 31)]
)
few = st.integers(1, 12)
hourly, daily, monthly = (st.integers(1, most) for most in (15, 20, 25))
CAPS = (
    st.builds(Caps, month=monthly)
    | st.builds(Caps, day=daily)
    | st.builds(Caps, hour=hourly, day=st.none() | daily, month=st.none() | monthly)
)
NO_CAPS_MOSTLY = st.just(Caps()) | st.just(Caps()) | CAPS
ALERTS = st.builds(Alert, credits=st.integers(1, 20), direction=st.sampled_from(Direction))
POLICIES = st.builds(
    Policy,
    caps=NO_CAPS_MOSTLY,
    allow_negative=st.booleans(),
    alerts=st.lists(ALERTS, max_size=2, unique=True).map(tuple),
)


class Machine(RuleBasedStateMachine):
    """Sends commands to the ledger and to the model, and compares."""

    met: ClassVar[Counter[str]] = Counter()

    @initialize(start=st.sampled_from(STARTS), allow_negative=st.booleans())
    def begin(self, start: datetime, allow_negative: bool) -> None:
        self.now = start
        self.history = History(USERS)
        self.model = Model()
        self.policies = dict.fromkeys(APPS, Policy(allow_negative=allow_negative))
        self.answered: list[tuple[Command, Transaction]] = []
        self.number = 0
        # Without these, most of the first commands are rejected. The use is of three pots.
        first: dict[str, Any] = {"user_id": 1, "app_id": 1, "created_by": 9, "key": ""}
        span = timedelta(minutes=20)
        self._do(Add(**first, transaction_id="a", credits=10))
        self._do(GrantCredits(**first, transaction_id="g", credits=6, expires_after=span))
        self._do(GrantCredits(**first, transaction_id="h", credits=15, priority=501))
        self._do(Use(**first, **self._report("z"), transaction_id="u", credits=18))

    # Time.

    @precondition(lambda self: self._due())
    @rule(early=st.booleans())
    def advance_to_what_is_due(self, early: bool) -> None:
        self._set_time(min(self._due()) - early * MILLISECOND)

    @rule(
        to=st.sampled_from([*Period, None]),
        early=st.booleans(),
    )
    def advance(self, to: Period | None, early: bool) -> None:
        later = self.now + timedelta(minutes=1) if to is None else window_end(to, self.now)
        self._set_time(later - early * MILLISECOND)

    def _due(self) -> list[datetime]:
        purses = [purse for user in self.model.people.values() for purse in user.purses.values()]
        return [due for purse in purses if (due := purse.next_instant()) is not None]

    def _set_time(self, later: datetime) -> None:
        self.now = max(self.now, later)
        self.model.advance(self.now)

    @rule(app_id=st.sampled_from(APPS), policy=POLICIES)
    def set_policy(self, app_id: int, policy: Policy) -> None:
        self.policies[app_id] = policy

    # Commands.

    @rule(data=st.data(), credits_=few)
    def add(self, data: st.DataObject, credits_: int) -> None:
        self._do(Add(**self._common(data), credits=credits_))

    @rule(data=st.data(), credits_=few, once=st.booleans(), report=st.sampled_from("xy"))
    def use(self, data: st.DataObject, credits_: int, once: bool, report: str) -> None:
        common = self._common(data)
        self._do(Use(**common, **self._report(report), credits=credits_, once=once))

    @rule(
        data=st.data(),
        credits_=few,
        start=st.none() | st.just(-timedelta(hours=1)) | SPANS,
        span=st.none() | SPANS,
        absolute=st.booleans(),
        priority=st.sampled_from([0, 499, 500, 500, 500, 501]),
        category=st.sampled_from(Category),
    )
    def grant(
        self,
        data: st.DataObject,
        credits_: int,
        start: timedelta | None,
        span: timedelta | None,
        absolute: bool,
        priority: int,
        category: Category,
    ) -> None:
        self._do(
            GrantCredits(
                **self._common(data),
                credits=credits_,
                effective_at=None if start is None else self.now + start,
                expires_at=self.now + span if span is not None and absolute else None,
                expires_after=None if absolute else span,
                priority=priority,
                category=category,
            )
        )

    @precondition(lambda self: self._has(*PLACING))
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        common = self._common(data)
        self._do(VoidGrant(**common, grant_id=self._reference(data, common, PLACING)))

    @rule(data=st.data(), credits_=few, partial=st.booleans(), span=st.none() | SPANS)
    def hold(
        self, data: st.DataObject, credits_: int, partial: bool, span: timedelta | None
    ) -> None:
        common = self._common(data)
        if span is not None:
            span = min(span, timedelta(days=7))
        self._do(PlaceHold(**common, credits=credits_, allow_partial=partial, expires_after=span))

    @rule(
        data=st.data(),
        credits_=st.just(0) | few,
        final=st.booleans(),
        excess=st.booleans(),
        report=st.sampled_from("xy"),
    )
    def capture(
        self, data: st.DataObject, credits_: int, final: bool, excess: bool, report: str
    ) -> None:
        if not any(self.model.person(user_id).purse(1).open_holds for user_id in USERS):
            held = data.draw(few)
            self._do(PlaceHold(**self._common(data), credits=held, allow_partial=True))
        common = self._common(data)
        self._do(
            CaptureHold(
                **common,
                **self._report(report),
                hold_id=self._reference(data, common, (Kind.HOLD,)),
                credits=credits_,
                final=final,
                allow_excess=excess,
            )
        )

    @precondition(lambda self: self._has(Kind.HOLD))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        common = self._common(data)
        self._do(ReleaseHold(**common, hold_id=self._reference(data, common, (Kind.HOLD,))))

    @precondition(lambda self: self._has(Kind.HOLD))
    @rule(data=st.data(), span=SPANS)
    def extend(self, data: st.DataObject, span: timedelta) -> None:
        common = self._common(data)
        hold_id = self._reference(data, common, (Kind.HOLD,))
        span = min(span, timedelta(days=7))
        self._do(ExtendHold(**common, hold_id=hold_id, expires_after=span))

    @precondition(lambda self: self._has(Kind.USE))
    @rule(data=st.data(), credits_=st.just(0) | few, restore=st.none() | SPANS)
    def reverse_use(self, data: st.DataObject, credits_: int, restore: timedelta | None) -> None:
        self._reverse(data, credits_, restore, (Kind.USE,))

    @rule(data=st.data(), credits_=st.just(0) | few)
    def reverse_added(self, data: st.DataObject, credits_: int) -> None:
        added = (Kind.ADD, Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN, Kind.ADJUST)
        self._reverse(data, credits_, None, added)

    def _reverse(
        self,
        data: st.DataObject,
        credits_: int,
        restore: timedelta | None,
        kinds: tuple[Kind, ...],
    ) -> None:
        common = self._common(data)
        self._do(
            ReverseTransaction(
                **common,
                reversed_id=self._reference(data, common, kinds),
                credits=credits_,
                restore_until=None if restore is None else self.now + restore,
            )
        )

    @rule(data=st.data(), credits_=few, goal=st.sampled_from([(u, a) for u in USERS for a in APPS]))
    def transfer(self, data: st.DataObject, credits_: int, goal: tuple[int, int]) -> None:
        common = self._common(data)
        if (common["user_id"], common["app_id"]) == goal:
            return
        self._do(
            TransferCredits(
                **common,
                credits=credits_,
                to_user_id=goal[0],
                to_app_id=goal[1],
                to_policy=self.policies[goal[1]],
            )
        )

    @rule(data=st.data(), delta=st.sampled_from([-25, -10, -3, -1, 1, 5, 15]))
    def adjust(self, data: st.DataObject, delta: int) -> None:
        self._do(AdjustBalance(**self._common(data), delta=delta, note="why"))

    @rule(data=st.data(), caps=NO_CAPS_MOSTLY)
    def set_cap(self, data: st.DataObject, caps: Caps) -> None:
        self._do(SetSpendingCap(**self._common(data), caps=caps))

    @rule(data=st.data(), alert=ALERTS, remove=st.booleans())
    def set_alert(self, data: st.DataObject, alert: Alert, remove: bool) -> None:
        common = self._common(data)
        present = self.model.person(common["user_id"]).purse(common["app_id"]).alerts
        if remove and present:
            alert = min(present, key=lambda each: (each.credits, each.direction.value))
        self._do(
            SetAlert(**common, credits=alert.credits, direction=alert.direction, remove=remove)
        )

    @precondition(lambda self: self._unwritten())
    @rule(data=st.data())
    def sweep(self, data: st.DataObject) -> None:
        user_id, app_id = data.draw(st.sampled_from([*self._unwritten(), (2, 2)]))
        self._do(
            Settle(
                user_id=user_id,
                app_id=app_id,
                created_by=9,
                key="",
                transaction_id="unused",
                policy=self.policies[app_id],
            )
        )

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        command, entry = data.draw(st.sampled_from(self.answered))
        self.number += 1
        again = replace(command, transaction_id=f"again {self.number}")
        assert self.history.decide(again, self.now) == Replayed(transaction=entry)

    # What all commands have in common.

    def _unwritten(self) -> list[tuple[int, int]]:
        """Return the users and apps in which something is due."""
        return [
            (user_id, app_id)
            for user_id, person in self.model.people.items()
            for app_id, purse in person.purses.items()
            if purse.unwritten
        ]

    def _has(self, *kinds: Kind) -> bool:
        """Return whether there is an entry to refer to."""
        return any(entry.kind in kinds for user in USERS for entry in self.history.entries[user])

    def _common(self, data: st.DataObject) -> dict[str, Any]:
        self.number += 1
        user_id, app_id = data.draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (1, 2), (2, 1)]))
        revision = self.history.accounts[user_id].revision
        return {
            "user_id": user_id,
            "app_id": app_id,
            "created_by": 9,
            "key": data.draw(st.sampled_from(["", f"key {self.number}"])),
            "transaction_id": f"t{self.number}",
            "policy": self.policies[app_id],
            "expected_revision": data.draw(
                st.sampled_from([None, None, None, revision, revision, revision, revision + 1])
            ),
            "min_available_after": data.draw(st.sampled_from([None, None, None, 0, 0, 0, 5])),
        }

    def _report(self, report: str) -> dict[str, Any]:
        return {
            "report_id": report,
            "report_name": report.upper(),
            "purchase_id": f"p{self.number}",
        }

    def _reference(
        self, data: st.DataObject, common: dict[str, Any], kinds: tuple[Kind, ...]
    ) -> str:
        """Return the id of an entry; mostly a late one of the kinds, in the command's app."""
        entries = self.history.entries[common["user_id"]]
        purse = self.model.person(common["user_id"]).purse(common["app_id"])
        live = [hold.id for hold in purse.open_holds] if kinds == (Kind.HOLD,) else []
        if kinds == PLACING:
            live = [pot.id for pot in purse.pots()]
        prefers_live = data.draw(st.booleans())
        if live and prefers_live:
            return data.draw(st.sampled_from(live))
        fitting = [e.id for e in entries if e.app_id == common["app_id"] and e.kind in kinds]
        if fitting and data.draw(st.integers(0, 9)) < 9:
            return data.draw(st.sampled_from([*fitting, *fitting[-3:], *fitting[-3:]]))
        return data.draw(st.sampled_from(["unknown", *(entry.id for entry in entries[-20:])]))

    def _do(self, command: Command) -> None:
        alerts = self._alerts()
        expected = self.model.apply(command, self.now)
        outcome = self.history.decide(command, self.now)
        name = type(command).__name__
        if not isinstance(expected, Expected):
            assert outcome == expected
            self.met[f"{name}: {type(expected).__name__}"] += 1
            return
        assert isinstance(outcome, Accepted), outcome
        self.met[f"{name}: accepted"] += 1
        self.history.write(outcome)
        self._compare_entries(command, outcome, expected)
        self._compare_events(outcome, alerts)
        self.model.written(command, outcome.transactions)
        if command.key:
            self.answered.append((command, outcome.main))

    def _compare_entries(self, command: Command, outcome: Accepted, expected: Expected) -> None:
        own = [entry for entry in outcome.transactions if entry.details.effective_at is None]
        own += [entry for entry in outcome.transactions if entry.kind is Kind.SCHEDULE]
        places = {(command.user_id, command.app_id)}
        if isinstance(command, TransferCredits):
            places.add((command.to_user_id, command.to_app_id))
            self.model.received(command, [e for e in own if e.kind is Kind.TRANSFER_IN])
        for user_id, app_id in places:
            purse = self.model.person(user_id).purse(app_id)
            assert _events(outcome.transactions, user_id, app_id) == purse.unwritten
        if isinstance(command, Settle):
            assert not own
            return
        main = outcome.main
        assert main in own
        assert (main.id, main.key) == (command.transaction_id, command.key)
        assert (main.kind, main.credits, main.effect) == (
            expected.kind,
            expected.credits,
            expected.effect,
        )
        if main.credits and main.kind not in (Kind.CAP, Kind.EXTEND):
            assert _parts(main) == expected.parts
        if expected.refunded is not None:
            assert outcome.refunded is not None
            refunded = (outcome.refunded.purchase_id, outcome.refunded.refunded_credits)
            assert refunded == expected.refunded
        assert (outcome.purchase is None) == (main.kind is not Kind.USE)

    def _alerts(self) -> dict[tuple[int, int], set[Alert]]:
        """Return the alerts that apply to each user in each app, before a command."""
        return {
            (user_id, app_id): self.model.person(user_id).purse(app_id).alerts
            | set(self.policies[app_id].alerts)
            for user_id in USERS
            for app_id in APPS
        }

    def _compare_events(self, outcome: Accepted, alerts: dict[tuple[int, int], set[Alert]]) -> None:
        """Find the crossings in the histories, from one instant to the next."""
        first = {each.user_id: each.sequence for each in reversed(outcome.transactions)}
        crossings = Counter[tuple[str, Alert]]()
        for (user_id, app_id), set_ in alerts.items():
            here = [each for each in self.history.entries[user_id] if each.app_id == app_id]
            old = [each for each in here if each.sequence < first.get(user_id, 2**63)]
            balance = max(0, old[-1].balance_after) if old else 0
            new = here[len(old) :]
            for entry, later in zip_longest(new, new[1:]):
                if later is not None and _instant(later) == _instant(entry):
                    continue
                after = max(0, entry.balance_after)
                for alert in set_:
                    above, is_above = balance >= alert.credits, after >= alert.credits
                    if above is not is_above and is_above is (
                        alert.direction is Direction.RISES_TO
                    ):
                        crossings[entry.id, alert] += 1
                balance = after
        assert Counter((e.transaction_id, e.alert) for e in outcome.events) == crossings
        assert len({each.id for each in outcome.events}) == len(outcome.events)
        by_id = {each.id: each for each in outcome.transactions}
        for event in outcome.events:
            entry = by_id[event.transaction_id]
            self.met["event"] += 1
            assert (event.user_id, event.app_id, event.sequence, event.created_at) == (
                entry.user_id,
                entry.app_id,
                entry.sequence,
                entry.created_at,
            )
            assert event.balance == max(0, entry.balance_after)

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "model"):
            return
        for user_id, account in self.history.accounts.items():
            settled = settle(account, self.now)
            for app_id in APPS:
                purse = self.model.person(user_id).purse(app_id)
                assert _events(settled.entries, user_id, app_id) == purse.unwritten
                _compare(settled.account, app_id, purse)


def _parts(entry: Transaction) -> list[tuple[str, int]]:
    """Return the grants and credits of an entry; neighbours of one grant are one part."""
    allocations = entry.details.allocations or (Allocation(credits=entry.credits),)
    assert sum(part.credits for part in allocations) == entry.credits
    groups = groupby(allocations, key=lambda part: part.grant_id)
    return [(id_, sum(part.credits for part in group)) for id_, group in groups]


def _instant(entry: Transaction) -> datetime:
    return entry.details.effective_at or entry.created_at


def _events(entries: Iterable[Transaction], user_id: int, app_id: int) -> list[Event]:
    """Return what time has done in an app."""
    found = []
    for entry in entries:
        at = entry.details.effective_at
        if (entry.user_id, entry.app_id) != (user_id, app_id) or entry.kind is Kind.SCHEDULE:
            continue
        if at is not None:
            assert at <= entry.created_at
            found.append(Event(entry.kind, entry.details.related_id, entry.credits, at))
    return found


def _compare(account: Account, app_id: int, purse: Purse) -> None:
    app = account.apps.get(app_id, AppAccount())
    assert account.balance(app_id) == len(purse.free()) - purse.debt
    assert account.base(app_id) == len(purse.in_pot(purse.base)) - purse.debt
    pots = purse.pots()
    scheduled = [pot for pot in pots if purse.in_pot(pot, SCHEDULED)]
    started = [pot for pot in pots if pot not in scheduled]
    assert [
        (g.id, g.sequence, g.left, g.priority, g.category, g.ends_at, g.starts_at)
        for g in app.grants
    ] == [
        (p.id, p.sequence, len(purse.in_pot(p, FREE)), p.priority, p.category, p.end, None)
        for p in started
    ]
    assert {(g.id, g.left, g.starts_at, g.ends_at) for g in app.scheduled} == {
        (p.id, len(purse.in_pot(p, SCHEDULED)), p.start, p.end) for p in scheduled
    }
    assert len(app.grants) + len(app.scheduled) <= GRANTS_MAX
    assert [(h.id, h.credits, h.captured, h.placed_at, h.ends_at) for h in app.holds] == [
        (h.id, len(h.tokens), h.captured, h.placed_at, h.ends_at) for h in purse.open_holds
    ]
    assert app.held == purse.held
    assert app.caps == purse.caps
    assert len(app.alerts) <= ALERTS_MAX
    assert set(app.alerts) == purse.alerts
    assert {
        s.period: {window(s.period, s.starts_at): s.credits} for s in app.spent
    } == purse.counted
    assert app == AppAccount.of(
        grants=app.grants,
        scheduled=app.scheduled,
        holds=app.holds,
        caps=app.caps,
        spent=app.spent,
        alerts=app.alerts,
    )


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the account be full with few grants and holds."""
    monkeypatch.setattr("credit_models.ledger.app_draft.GRANTS_MAX", GRANTS_MAX)
    monkeypatch.setattr("credit_models.ledger.holds.HOLDS_MAX", HOLDS_MAX)
    monkeypatch.setattr("credit_models.ledger.alerts.ALERTS_MAX", ALERTS_MAX)


@pytest.mark.usefixtures("low_limits")
def test_every_interleaving_of_commands_and_time_is_that_of_single_credits(seed: int) -> None:
    play(Machine, seed=seed, examples=EXAMPLES, steps=STEPS, shrink=True)
