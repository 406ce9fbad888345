"""Make random histories with entries of every kind, by the ledger's own rules."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from credit_models.ledger import (
    Accepted,
    Add,
    AdjustBalance,
    Alert,
    AlertEvent,
    Caps,
    CaptureHold,
    Category,
    Command,
    Direction,
    ExtendHold,
    GrantCredits,
    Kind,
    PlaceHold,
    Policy,
    ReleaseHold,
    ReverseTransaction,
    SetAlert,
    SetSpendingCap,
    Settle,
    TransferCredits,
    Use,
    VoidGrant,
)

from tests.models.ledger.history import History

BEGIN = datetime(2026, 6, 30, 21, 0, tzinfo=UTC)
USERS, APPS = (7, 8, 9), (1, 2)
# The user that `Histories.end` is about, and that has no other entries.
LAST = 20
# One app has caps and alerts, and lets adjustments leave a debt.
POLICIES = {
    1: Policy(caps=Caps(month=100_000), allow_negative=True, alerts=(
        Alert(credits=40, direction=Direction.FALLS_BELOW),
    )),
    2: Policy(),
}  # fmt: skip


class Histories(History):
    """Histories of some users, made from a seed.

    Attributes:
        now: The time of the next command.
        events: The events of alerts so far.
    """

    def __init__(self, seed: int) -> None:
        super().__init__((*USERS, LAST))
        self.now = BEGIN
        self.events: list[AlertEvent] = []
        self._random = Random(seed)
        self._numbers = itertools.count(1)

    def play(self, commands: int) -> None:
        """Decide some commands; those that are accepted are written."""
        for _ in range(commands):
            self.now += timedelta(seconds=self._random.choice([0, 1, 40, 400, 4000]))
            command = self._random.choice(_MAKERS)(self)
            if command is None:
                continue
            outcome = self.decide(command, self.now)
            if isinstance(outcome, Accepted):
                self.write(outcome)
                self.events += outcome.events

    def end(self) -> None:
        """Write a user's last entries: an account with everything that one can have."""
        for make in (
            Histories.add_much,
            Histories.grant_without_end,
            Histories.grant_with_end,
            Histories.grant_later,
            Histories.cap_day,
            Histories.alert_of_user,
            Histories.use_for_user,
            Histories.hold_for_user,
        ):
            outcome = self.decide(make(self), self.now)
            assert isinstance(outcome, Accepted), outcome
            self.write(outcome)
            self.events += outcome.events

    def kinds(self) -> set[Kind]:
        """Return the kinds of all entries."""
        return {entry.kind for entries in self.entries.values() for entry in entries}

    def _id(self) -> str:
        return f"{next(self._numbers):024x}"

    def _common(self, *, of: tuple[int, int] | None = None) -> dict[str, Any]:
        user_id, app_id = of or (self._random.choice(USERS), self._random.choice(APPS))
        id_ = self._id()
        return {
            "user_id": user_id,
            "app_id": app_id,
            "created_by": self._random.randint(1, 5),
            "key": self._random.choice(["", f"k-{id_}"]),
            "transaction_id": id_,
            "policy": POLICIES[app_id],
        }

    def _credits(self) -> int:
        return self._random.choice([1, 3, 10, 30, 70])

    def _report(self) -> dict[str, Any]:
        number = self._random.randint(1, 5)
        return {
            "report_id": f"r-{number}", "report_name": f"R {number}", "purchase_id": self._id(),
        }  # fmt: skip

    def _span(self) -> timedelta:
        return timedelta(seconds=self._random.choice([30, 600, 6000, 60_000]))

    def _entry(self, *kinds: Kind) -> tuple[str, tuple[int, int]] | None:
        """Return an entry of some kinds, and its user and app."""
        fitting = [
            (entry.id, (entry.user_id, entry.app_id))
            for entries in self.entries.values()
            for entry in entries[-60:]
            if entry.kind in kinds
        ]
        return self._random.choice(fitting) if fitting else None

    def _hold(self) -> tuple[str, tuple[int, int]] | None:
        open_ = [
            (hold.id, (account.user_id, app_id))
            for account in self.accounts.values()
            for app_id, app in account.apps.items()
            for hold in app.holds
        ]
        return self._random.choice(open_) if open_ else None

    def add(self) -> Command:
        return Add(**self._common(), credits=self._credits() * 2)

    def use(self) -> Command:
        return Use(**self._common(), credits=self._credits(), **self._report())

    def grant(self) -> Command:
        random = self._random
        starts = random.choice([None, None, self.now + self._span()])
        return GrantCredits(
            **self._common(),
            credits=self._credits(),
            effective_at=starts,
            expires_after=random.choice([None, self._span(), self._span()]),
            priority=random.choice([500, 500, 100, 900]),
            category=random.choice(list(Category)),
        )

    def void(self) -> Command | None:
        if (found := self._entry(Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN)) is None:
            return None
        return VoidGrant(**self._common(of=found[1]), grant_id=found[0])

    def hold(self) -> Command:
        random = self._random
        return PlaceHold(
            **self._common(),
            credits=self._credits(),
            expires_after=self._span(),
            purpose=random.choice(["", "a report"]),
            allow_partial=random.choice([True, False]),
        )

    def capture(self) -> Command | None:
        if (found := self._hold()) is None:
            return None
        return CaptureHold(
            **self._common(of=found[1]),
            **self._report(),
            hold_id=found[0],
            credits=self._random.choice([0, 1, 5, 20]),
            final=self._random.choice([True, False]),
            allow_excess=self._random.choice([True, False]),
        )

    def release(self) -> Command | None:
        if (found := self._hold()) is None:
            return None
        return ReleaseHold(**self._common(of=found[1]), hold_id=found[0])

    def extend(self) -> Command | None:
        if (found := self._hold()) is None:
            return None
        return ExtendHold(**self._common(of=found[1]), hold_id=found[0], expires_after=self._span())

    def reverse(self) -> Command | None:
        kinds = (Kind.USE, Kind.USE, Kind.ADD, Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN)
        if (found := self._entry(self._random.choice(kinds))) is None:
            return None
        return ReverseTransaction(
            **self._common(of=found[1]),
            reversed_id=found[0],
            credits=self._random.choice([0, 1, 2, 10]),
            restore_until=self._random.choice([None, self.now + self._span()]),
        )

    def transfer(self) -> Command | None:
        common = self._common()
        to = self._random.choice(USERS), self._random.choice(APPS)
        if to == (common["user_id"], common["app_id"]):
            return None
        return TransferCredits(
            **common,
            to_user_id=to[0],
            to_app_id=to[1],
            to_policy=POLICIES[to[1]],
            credits=self._credits(),
        )

    def adjust(self) -> Command:
        return AdjustBalance(**self._common(), delta=self._random.choice([-60, -5, 5, 40]))

    def cap(self) -> Command:
        caps = self._random.choice([Caps(), Caps(hour=500), Caps(day=900, month=5000)])
        return SetSpendingCap(**self._common(), caps=caps)

    def alert(self) -> Command:
        return SetAlert(
            **self._common(),
            credits=self._random.choice([10, 50]),
            direction=self._random.choice(list(Direction)),
            remove=self._random.choice([True, False, False]),
        )

    def settle(self) -> Command:
        common = self._common()
        return Settle(**{**common, "key": "", "created_by": 0})

    # The last entries of the user `LAST`, in the app 2.

    def _last(self) -> dict[str, Any]:
        return self._common(of=(LAST, 2))

    def add_much(self) -> Command:
        return Add(**self._last(), credits=1000)

    def grant_without_end(self) -> Command:
        return GrantCredits(**self._last(), credits=50, priority=600)

    def grant_with_end(self) -> Command:
        return GrantCredits(**self._last(), credits=60, expires_after=timedelta(days=9))

    def grant_later(self) -> Command:
        return GrantCredits(
            **self._last(),
            credits=70,
            effective_at=self.now + timedelta(days=2),
            expires_after=timedelta(days=9),
        )

    def cap_day(self) -> Command:
        return SetSpendingCap(**self._last(), caps=Caps(day=900))

    def alert_of_user(self) -> Command:
        return SetAlert(**self._last(), credits=500, direction=Direction.FALLS_BELOW)

    def use_for_user(self) -> Command:
        return Use(**self._last(), credits=20, **self._report())

    def hold_for_user(self) -> Command:
        return PlaceHold(**self._last(), credits=90, expires_after=timedelta(days=3))


_MAKERS: list[Callable[[Histories], Command | None]] = [
    *[Histories.add] * 3,
    *[Histories.use] * 4,
    *[Histories.grant] * 4,
    *[Histories.hold] * 3,
    *[Histories.capture] * 3,
    *[Histories.reverse] * 4,
    Histories.void,
    Histories.release,
    Histories.extend,
    *[Histories.transfer] * 2,
    Histories.adjust,
    Histories.cap,
    Histories.alert,
    Histories.settle,
]
