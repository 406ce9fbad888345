"""The working copy of one app of an account: its balance, grants and holds."""

from bisect import insort
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import chain

from credit_models.ledger.burning import Allocations, burn_key, of_grant, plan_taking
from credit_models.ledger.invariants import InvariantViolated, invariant
from credit_models.ledger.outcomes import AccountFull, GrantsFull, Refusal
from credit_models.ledger.records import (
    ACCOUNT_ITEMS_MAX,
    GRANTS_MAX,
    UINT32_MAX,
    Allocation,
    AppAccount,
    Grant,
    Hold,
    count_items,
    next_due,
)

NO_APP = AppAccount()


class AppDraft:
    """The working copy of one app of an account.

    The methods that move credits change the grants. `Draft.record` changes the balance.

    Attributes are those of `AppAccount`, and:
        app_id: The app.
        at: The time of the decision.
        balance: The balance; negative if the user owes credits.
    """

    __slots__ = (
        "_due_at",
        "_due_known",
        "_granted",
        "_held",
        "_items_elsewhere",
        "alerts",
        "app_id",
        "at",
        "balance",
        "caps",
        "grants",
        "holds",
        "scheduled",
        "spent",
    )

    def __init__(
        self,
        app_id: int,
        balance: int,
        app: AppAccount,
        at: datetime,
        items_elsewhere: Callable[[], int],
    ) -> None:
        self._items_elsewhere = items_elsewhere
        self.app_id = app_id
        self.at = at
        self.balance = balance
        self.grants = app.grants
        self.scheduled = app.scheduled
        self.holds = app.holds
        self.caps = app.caps
        self.spent = app.spent
        self.alerts = app.alerts
        self._granted = app.granted
        self._held: Counter[str] | None = None
        self._due_at = app.due_at
        self._due_known = True

    @property
    def available(self) -> int:
        """The number of credits that can be used."""
        return max(0, self.balance)

    @property
    def base(self) -> int:
        """The number of base credits; negative if the user owes credits."""
        return self.balance - self._granted

    @property
    def held(self) -> int:
        """The number of credits that all open holds hold."""
        return sum(hold.credits for hold in self.holds)

    @property
    def total(self) -> int:
        """The balance with what time will add to it: held and scheduled credits."""
        return self.balance + self.held + sum(grant.left for grant in self.scheduled)

    @property
    def items(self) -> int:
        """The number of items of the app; see `ACCOUNT_ITEMS_MAX`."""
        return count_items(self.grants, self.scheduled, self.holds)

    def is_due(self) -> bool:
        """Return whether a grant starts or ends, or a hold ends, by the time of the decision."""
        due_at = self._next_due()
        return due_at is not None and due_at <= self.at

    def app_account(self) -> AppAccount:
        """Return the changed record of the app; it is empty if the app needs none."""
        invariant(-UINT32_MAX <= self.balance <= UINT32_MAX, "a balance stays within 2**32 - 1")
        invariant(self._granted >= 0, "grants have no fewer than 0 credits")
        invariant(self.base >= 0 or not self._granted, "a user with debt has no granted credits")
        return AppAccount(
            grants=self.grants,
            scheduled=self.scheduled,
            holds=self.holds,
            caps=self.caps,
            spent=self.spent,
            alerts=self.alerts,
            granted=self._granted,
            due_at=self._next_due(),
        )

    def plan(self, credits_: int) -> Allocations:
        """Return the parts in which available credits are taken, in burn order."""
        return plan_taking(self.grants, self.base, credits_)

    def take(self, parts: Allocations) -> None:
        """Take credits out of the grants that the parts name."""
        for part in parts:
            if part.grant_id:
                grant = self.grants[self._position(part.grant_id)]
                self._put(grant, grant.left - part.credits, grant.ends_at)

    def give_back(
        self,
        parts: Allocations,
        *,
        at: datetime,
        created_by: int,
        restore_until: datetime | None = None,
    ) -> Allocations:
        """Return credits to the grants that they are from; pay debt first.

        A grant that has left the account is restored with its terms. Credits of a grant that has
        ended pay no debt: paying it is a way to spend them, so they expire.

        Args:
            parts: The credits.
            at: The time at which they return.
            created_by: The number of the requester, for restored grants.
            restore_until: The new end of grants that have ended; None: they stay ended.

        Returns:
            The parts as they were added.
        """
        debt = max(0, -self.base)
        given: list[Allocation] = []
        for part in parts:
            grant = self._find(part.grant_id) if part.grant_id else None
            ends_at = self._new_end((grant or part).ends_at, restore_until)
            paid = part.credits
            if part.grant_id:
                paid = min(debt, paid) if ends_at is None or ends_at > at else 0
            debt -= min(debt, paid)
            if paid:
                given.append(Allocation(credits=paid))
            if part.credits > paid:
                returned = self._returned(part, grant, part.credits - paid, created_by, ends_at)
                given.append(of_grant(returned, part.credits - paid))
        return tuple(given)

    def place(self, grant: Grant) -> Allocations | None:
        """Add the credits of a new grant that has started; pay debt first.

        If there is no room for one more grant, the new one joins one with the same terms.

        Returns:
            The parts as they were added; None if there is no such grant either.
        """
        paid = min(grant.left, max(0, -self.base))
        debt = (Allocation(credits=paid),) if paid else ()
        left = grant.left - paid
        if not left:
            return debt
        if self.has_room():
            return (*debt, *self._place_alone(grant, left))
        alike = next((other for other in self.grants if _are_alike(grant, other)), None)
        if alike is None:
            return None
        # Grants that join one after another can add up to more than a grant may have; the part
        # that is left cannot.
        joined = replace(alike, credits=min(UINT32_MAX, alike.credits + left))
        self._put(joined, alike.left + left, alike.ends_at)
        return (*debt, of_grant(alike, left))

    def _place_alone(self, grant: Grant, left: int) -> Allocations:
        self._insert(grant, left, grant.ends_at)
        return (of_grant(grant, left),)

    def has_room(self, grants: int = 1) -> bool:
        """Return whether the account can have one more grant in the app, or several."""
        fits = len(self.grants) + len(self.scheduled) + grants <= GRANTS_MAX
        return fits and self.has_items(grants)

    def has_items(self, count: int) -> bool:
        """Return whether the account can have more items; see `ACCOUNT_ITEMS_MAX`."""
        return self.items + self._items_elsewhere() + count <= ACCOUNT_ITEMS_MAX

    def no_grant(self, grants: int = 1) -> Refusal:
        """Return why there is no room for one more grant, or several."""
        if self.has_items(grants):
            return GrantsFull(limit=GRANTS_MAX)
        return AccountFull(limit=ACCOUNT_ITEMS_MAX)

    def schedule(self, grant: Grant) -> Allocations | None:
        """Add a grant that starts later; return None if there is no room."""
        if not self.has_room():
            return None
        self.scheduled = tuple(sorted((*self.scheduled, grant), key=_start_key))
        self._add_due(grant.starts_at)
        return (of_grant(grant, grant.left),)

    def find_grant(self, grant_id: str) -> Grant | None:
        """Return a grant with credits left, started or not; None if there is none."""
        grants = chain(self.grants, self.scheduled)
        return next((grant for grant in grants if grant.id == grant_id and grant.left), None)

    def reduce(self, grant: Grant, credits_: int, *, voided: bool = False) -> None:
        """Take credits out of a grant, started or not.

        Args:
            grant: The grant.
            credits_: The number of credits.
            voided: Whether the grant ends. What open holds return to it then expires.
        """
        if grant.starts_at is None:
            self._put(grant, grant.left - credits_, self.at if voided else grant.ends_at)
            return
        self._remove_due(grant.starts_at)
        others = tuple(other for other in self.scheduled if other.id != grant.id)
        if grant.left > credits_:
            rest = replace(grant, left=grant.left - credits_)
            others = tuple(sorted((*others, rest), key=_start_key))
        self.scheduled = others

    def start(self, grant: Grant) -> Allocations:
        """Make a scheduled grant spendable; pay debt first. Return the parts that were added."""
        self._remove_due(grant.starts_at)
        self.scheduled = tuple(other for other in self.scheduled if other.id != grant.id)
        paid = min(grant.left, max(0, -self.base))
        debt = (Allocation(credits=paid),) if paid else ()
        if paid == grant.left:
            return debt
        # The grant already has its place in the account, so that no room is needed.
        return (*debt, *self._place_alone(replace(grant, starts_at=None), grant.left - paid))

    def of_present_terms(self, parts: Allocations) -> Allocations:
        """Return held parts with the present terms of their grants.

        A grant stays in the account while credits of it are held. Its end may have changed since
        then: it was voided, or a refund restored it.
        """
        return tuple(
            of_grant(self.grants[self._position(part.grant_id)], part.credits)
            if part.grant_id
            else part
            for part in parts
        )

    def cannot_restore(self, parts: Allocations, restore_until: datetime | None) -> Refusal | None:
        """Return why there is no room for the grants that have left the account; None if there is.

        Grants that have ended need none, unless they get a new end.
        """
        present = {grant.id for grant in self.grants}
        gone = {
            part.grant_id
            for part in parts
            if part.grant_id
            and part.grant_id not in present
            and not self._has_ended(self._new_end(part.ends_at, restore_until))
        }
        if not gone or self.has_room(len(gone)):
            return None
        return self.no_grant(len(gone))

    def _has_ended(self, ends_at: datetime | None) -> bool:
        return ends_at is not None and ends_at <= self.at

    def _new_end(self, ends_at: datetime | None, restore_until: datetime | None) -> datetime | None:
        """Return the end of a grant to which credits return."""
        return restore_until or ends_at if self._has_ended(ends_at) else ends_at

    def _position(self, grant_id: str) -> int:
        for position, grant in enumerate(self.grants):
            if grant.id == grant_id:
                return position
        raise InvariantViolated("credits are taken from grants of the account")

    def _find(self, grant_id: str) -> Grant | None:
        return next((grant for grant in self.grants if grant.id == grant_id), None)

    def _returned(
        self,
        part: Allocation,
        grant: Grant | None,
        credits_: int,
        created_by: int,
        ends_at: datetime | None,
    ) -> Grant:
        """Return the grant to which credits of a part have returned; None: it left the account."""
        if grant is not None:
            return self._put(grant, grant.left + credits_, ends_at)
        restored = Grant(
            id=part.grant_id,
            sequence=part.sequence,
            credits=credits_,
            left=0,
            priority=part.priority,
            category=part.category,
            created_by=created_by,
        )
        return self._insert(restored, credits_, ends_at)

    def _put(self, grant: Grant, left: int, ends_at: datetime | None) -> Grant:
        """Change what is left of a grant, and its end; remove a grant that nothing refers to."""
        position = self._position(grant.id)
        self._granted += left - grant.left
        others = self.grants[:position], self.grants[position + 1 :]
        changed = _changed(grant, left, ends_at)
        if not left and not self._is_held(grant.id):
            self.grants = (*others[0], *others[1])
        elif ends_at == grant.ends_at:
            self.grants = (*others[0], changed, *others[1])
        else:
            self.grants = _inserted((*others[0], *others[1]), changed)
        # Most uses take a part of the grant that ends first, and do not change when that is.
        if not (grant.left and left and ends_at == grant.ends_at):
            self._remove_due(grant.ends_at)
            if left:
                self._add_due(ends_at)
        return changed

    def _insert(self, grant: Grant, left: int, ends_at: datetime | None) -> Grant:
        inserted = _changed(grant, left, ends_at)
        self.grants = _inserted(self.grants, inserted)
        self._granted += left
        self._add_due(ends_at)
        return inserted

    def _is_held(self, grant_id: str) -> bool:
        """Return whether an open hold refers to a grant.

        They are counted once. With 256 holds, counting them for each grant made the end of all of
        them take 0.3 s (2-core machine).
        """
        if self._held is None:
            self._held = Counter(part.grant_id for hold in self.holds for part in hold.allocations)
        return self._held[grant_id] > 0

    def _count_held(self, hold: Hold, times: int) -> None:
        if self._held is not None:
            for part in hold.allocations:
                self._held[part.grant_id] += times

    # Holds.

    def find_hold(self, hold_id: str) -> Hold | None:
        """Return an open hold; None if there is none."""
        return next((hold for hold in self.holds if hold.id == hold_id), None)

    def open_hold(self, hold: Hold) -> None:
        """Add a hold."""
        self.holds = (*self.holds, hold)
        self._count_held(hold, 1)
        self._add_due(hold.ends_at)

    def change_hold(self, hold: Hold, changed: Hold) -> None:
        """Replace a hold; remove it if it no longer holds credits."""
        if not changed.credits:
            self.drop_hold(hold)
            return
        self._remove_due(hold.ends_at)
        self._count_held(hold, -1)
        self._count_held(changed, 1)
        self.holds = tuple(changed if other is hold else other for other in self.holds)
        self._add_due(changed.ends_at)

    def drop_hold(self, hold: Hold) -> None:
        """Remove a hold, before its credits return to the balance."""
        self._remove_due(hold.ends_at)
        self._count_held(hold, -1)
        self.holds = tuple(other for other in self.holds if other is not hold)

    def drop_unneeded(self, parts: Allocations) -> None:
        """Remove the grants of a former hold that nothing is left of and no open hold refers to."""
        for part in parts:
            grant = self._find(part.grant_id) if part.grant_id else None
            if grant is not None and not grant.left and not self._is_held(grant.id):
                self.grants = tuple(other for other in self.grants if other is not grant)

    # The earliest time at which something is due. It is computed again only if it may have changed.

    def _add_due(self, time: datetime | None) -> None:
        if time is not None and (self._due_at is None or time < self._due_at):
            self._due_at = time

    def _remove_due(self, time: datetime | None) -> None:
        if time is not None and time == self._due_at:
            self._due_known = False

    def _next_due(self) -> datetime | None:
        if not self._due_known:
            self._due_at = next_due(self.grants, self.scheduled, self.holds)
            self._due_known = True
        return self._due_at


def _start_key(grant: Grant) -> tuple[datetime | None, int]:
    return grant.starts_at, grant.sequence


def _are_alike(grant: Grant, other: Grant) -> bool:
    """Return whether two grants that have started differ only in age and credits."""
    return (grant.priority, grant.category, grant.ends_at) == (
        other.priority,
        other.category,
        other.ends_at,
    )


def _changed(grant: Grant, left: int, ends_at: datetime | None) -> Grant:
    # `replace` takes four times as long.
    return Grant(
        id=grant.id,
        sequence=grant.sequence,
        credits=max(grant.credits, left),
        left=left,
        priority=grant.priority,
        category=grant.category,
        ends_at=ends_at,
        created_by=grant.created_by,
    )


def _inserted(grants: tuple[Grant, ...], grant: Grant) -> tuple[Grant, ...]:
    ordered = list(grants)
    insort(ordered, grant, key=burn_key)
    return tuple(ordered)
