"""Replay the entries of one app of a user: the balance, grants, holds, caps and alerts.

The book is computed only from the entries. It applies the credits that each entry records, and does
not decide again by the ledger's rules. Two rules follow from the entries and are checked: the order
in which credits are taken, and the counters of caps. No stored balance, grant or hold is used.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from credit_models.ledger import (
    NO_CAPS,
    UINT32_MAX,
    Alert,
    Allocation,
    AppAccount,
    Caps,
    Direction,
    Grant,
    Hold,
    Kind,
    Period,
    PeriodSpending,
    Transaction,
)
from credit_models.ledger.alerts import changed_alerts
from credit_models.ledger.burning import burn_key, parts_of, plan_taking, recorded, split
from credit_models.ledger.caps import period_start

from credit_server.verify.entry_checks import Fault, is_repair
from credit_server.verify.findings import Code

# The kinds that take available credits, in burn order.
_IN_BURN_ORDER = (Kind.USE, Kind.HOLD, Kind.TRANSFER_OUT, Kind.ADJUST)
# The kinds that need available credits.
_NEEDS_AVAILABLE = (Kind.USE, Kind.HOLD, Kind.TRANSFER_OUT, Kind.REVOKE, Kind.VOID)
# The kinds that place a grant, or join it to another one.
_PLACES = (Kind.GRANT, Kind.TRANSFER_IN)


class AppBook:
    """The state of one app of a user after some entries.

    Attributes:
        balance: The sum of the effects.
        balance_after: The balance that the last entry records.
        grants: The grants that have started and have credits left or held, by id.
        scheduled: The grants that start later, by id.
        holds: The open holds by id, in the order of their placing.
        caps: The user's own caps.
        alerts: The user's own alerts.
    """

    def __init__(self, counted_since: int | None = None) -> None:
        """Begin without entries.

        Args:
            counted_since: The `sequence` from which the account's counters of caps count. It comes
                from the account, because the history does not show whether a cap of the app
                applied to an entry. The sums are computed. None: the account has no counters.
        """
        self.balance = 0
        self.grants: dict[str, Grant] = {}
        self.scheduled: dict[str, Grant] = {}
        self.holds: dict[str, Hold] = {}
        self.caps: Caps = NO_CAPS
        self.alerts: tuple[Alert, ...] = ()
        self._counted_since = counted_since
        self._spent: dict[Period, tuple[datetime, int]] = {}
        self.balance_after = 0
        # The RELEASE whose USE follows, the hold as it was before it, and the balance before it.
        self._capture: tuple[Transaction, Hold, int] | None = None

    def apply(self, entry: Transaction, reversed_entry: Transaction | None) -> Iterator[Fault]:
        """Apply an entry, and yield what is wrong with it.

        Args:
            entry: The next entry of the user in the app.
            reversed_entry: For REFUND and REVOKE: the reversed entry; None if it is unknown.
        """
        capture, self._capture = self._capture, None
        yield from self._check_order(entry)
        yield from self._check_balance(entry, capture)
        match entry.kind:
            case Kind.HOLD:
                yield from self._hold(entry)
            case Kind.RELEASE:
                yield from self._release(entry)
            case Kind.EXTEND:
                yield from self._extend(entry)
            case Kind.USE if entry.details.related_id:
                yield from self._captured(entry, capture)
            case Kind.CAP:
                self.caps = _caps_of(entry)
            case Kind.ALERT:
                yield from self._alert(entry)
        yield from self._move(entry)
        self._count(entry, reversed_entry)
        self.balance += entry.effect

    @property
    def counts_nothing(self) -> bool:
        """Whether the user has caps but no counters, so that the caps have no effect."""
        return self.caps != NO_CAPS and not self._spent

    def account(self) -> AppAccount:
        """Return the record that the account must have."""
        since = self._counted_since or 0
        return AppAccount.of(
            grants=tuple(sorted(self.grants.values(), key=burn_key)),
            scheduled=tuple(
                sorted(self.scheduled.values(), key=lambda each: (each.starts_at, each.sequence))
            ),
            holds=tuple(self.holds.values()),
            caps=self.caps,
            spent=tuple(
                PeriodSpending(period=period, starts_at=start, credits=credits_, since=since)
                for period, (start, credits_) in self._spent.items()
            ),
            alerts=self.alerts,
        )

    # Balances.

    def _check_balance(
        self, entry: Transaction, capture: tuple[Transaction, Hold, int] | None
    ) -> Iterator[Fault]:
        """Compare an entry's balance with the previous one, so that a fault is reported once.

        The ADJUST of a repair has the sum of all effects, whatever the entries before it record.
        """
        before, self.balance_after = self.balance_after, entry.balance_after
        if is_repair(entry):
            before = self.balance
        if entry.balance_after != before + entry.effect:
            yield (
                Code.RUNNING_BALANCE,
                f"{entry.kind.name} of {entry.effect} after {before} leaves {entry.balance_after}",
            )
        # A capture first returns the credits of its hold, which pay debt.
        least = min(0, capture[2]) if capture is not None else 0
        needs = entry.kind in _NEEDS_AVAILABLE and entry.effect < 0
        if needs and entry.balance_after < least:
            yield Code.OVERDRAWN, f"{entry.kind.name} leaves {entry.balance_after}"

    def _check_order(self, entry: Transaction) -> Iterator[Fault]:
        """Compare the grants that an entry took credits from with the burn order."""
        if entry.kind not in _IN_BURN_ORDER or entry.effect >= 0 or not self.grants:
            return
        if entry.kind is Kind.USE and entry.details.related_id:
            return  # held credits were taken in burn order by the HOLD
        # The balance that the ledger decided by. After a fault it is not the sum of the effects.
        base = self.balance_after - sum(grant.left for grant in self.grants.values())
        available = max(0, self.balance_after)
        if base < 0 or (entry.credits > available and entry.kind is not Kind.ADJUST):
            return  # another finding reports it
        ordered = sorted(self.grants.values(), key=burn_key)
        planned = plan_taking(ordered, base, min(entry.credits, available))
        if debt := entry.credits - sum(part.credits for part in planned):
            planned = (*planned, Allocation(credits=debt))
        expected, found = _sums(recorded(planned)), _sums(entry.details.allocations)
        if found != expected:
            yield (
                Code.BURN_ORDER,
                f"{entry.kind.name} took {_text(found)} instead of {_text(expected)}",
            )

    # Holds.

    def _hold(self, entry: Transaction) -> Iterator[Fault]:
        details = entry.details
        if details.held_after != entry.credits:
            yield Code.HOLD_AFTER, f"HOLD of {entry.credits} has held_after {details.held_after}"
        if details.ends_at is None:
            yield Code.LINK, "HOLD has no end"
            return
        self.holds[entry.id] = Hold(
            id=entry.id,
            sequence=entry.sequence,
            credits=entry.credits,
            allocations=details.allocations,
            placed_at=entry.created_at,
            ends_at=details.ends_at,
            purpose=dict(details.request).get("purpose", ""),
            created_by=entry.created_by,
        )

    def _find_hold(self, entry: Transaction) -> Hold | Fault:
        hold = self.holds.get(entry.details.related_id)
        if hold is None:
            related = entry.details.related_id or "nothing"
            return Code.LINK, f"{entry.kind.name} refers to {related}, which is no open hold"
        return hold

    def _release(self, entry: Transaction) -> Iterator[Fault]:
        hold = self._find_hold(entry)
        if not isinstance(hold, Hold):
            yield hold
            return
        left = hold.credits - entry.credits
        if left < 0 or left != entry.details.held_after:
            yield (
                Code.HOLD_AFTER,
                (
                    f"RELEASE of {entry.credits} from a hold of {hold.credits} has held_after"
                    f" {entry.details.held_after}"
                ),
            )
        _, rest = split(parts_of(hold.allocations, hold.credits), entry.credits)
        if left > 0:
            self.holds[hold.id] = replace(hold, credits=left, allocations=recorded(rest))
        else:
            del self.holds[hold.id]
        if _is_capture(entry):
            self._capture = (entry, hold, entry.balance_after - entry.effect)

    def _extend(self, entry: Transaction) -> Iterator[Fault]:
        hold = self._find_hold(entry)
        if not isinstance(hold, Hold):
            yield hold
            return
        if not hold.credits == entry.credits == entry.details.held_after:
            yield (
                Code.HOLD_AFTER,
                f"EXTEND of a hold of {hold.credits} has held_after {entry.details.held_after}",
            )
        self.holds[hold.id] = replace(hold, ends_at=entry.details.ends_at or hold.ends_at)

    def _captured(
        self, entry: Transaction, capture: tuple[Transaction, Hold, int] | None
    ) -> Iterator[Fault]:
        details = entry.details
        if capture is None or capture[1].id != details.related_id:
            yield Code.LINK, f"USE captures {details.related_id}, which was not released before it"
            return
        release, hold, _ = capture
        captured = hold.captured + release.credits - details.released
        if details.related_total != captured:
            yield (
                Code.REVERSAL_TOTAL,
                f"USE records {details.related_total} captured credits instead of {captured}",
            )
        left = self.holds.get(hold.id)
        held = 0 if left is None else left.credits
        if details.held_after != held:
            yield Code.HOLD_AFTER, f"USE has held_after {details.held_after} instead of {held}"
        if left is not None:
            self.holds[hold.id] = replace(left, captured=captured)

    # Grants.

    def _move(self, entry: Transaction) -> Iterator[Fault]:
        """Add the credits of an entry to its grants, or take them."""
        if entry.kind is Kind.ACTIVATE:
            yield from self._activate(entry)
        elif entry.kind is Kind.SCHEDULE:
            yield from self._schedule(entry)
        elif entry.effect > 0:
            for part in entry.details.allocations:
                if part.grant_id:
                    yield from self._put(entry, part)
        else:
            for part in entry.details.allocations:
                if part.grant_id:
                    yield from self._take(entry, part)
        self._drop_unneeded()

    def _put(self, entry: Transaction, part: Allocation) -> Iterator[Fault]:
        grant = self.grants.get(part.grant_id)
        if grant is None:
            if entry.kind in _PLACES and part.grant_id != entry.id:
                yield Code.LINK, f"{entry.kind.name} adds to {part.grant_id}, which is no grant"
            placed = entry.kind in _PLACES
            self.grants[part.grant_id] = Grant(
                id=part.grant_id,
                sequence=part.sequence,
                # Credits that pay debt were granted too.
                credits=entry.credits if placed else part.credits,
                left=part.credits,
                priority=part.priority,
                category=part.category,
                ends_at=part.ends_at,
                created_by=entry.created_by,
            )
            return
        left = grant.left + part.credits
        if entry.kind in _PLACES:
            credits_ = min(UINT32_MAX, grant.credits + part.credits)
        elif entry.kind is Kind.RELEASE and self._capture is not None:
            credits_ = grant.credits  # the following USE takes them
        else:
            credits_ = max(grant.credits, left)
        self.grants[grant.id] = replace(grant, left=left, credits=credits_, ends_at=part.ends_at)

    def _take(self, entry: Transaction, part: Allocation) -> Iterator[Fault]:
        grants = self.grants if entry.effect else self.scheduled
        grant = grants.get(part.grant_id)
        left = (0 if grant is None else grant.left) - part.credits
        if grant is None or left < 0:
            had = "has left the account" if grant is None else f"has {grant.left}"
            yield (
                Code.GRANT_OVERDRAWN,
                f"{entry.kind.name} takes {part.credits} from {part.grant_id}, which {had}",
            )
            return
        if not entry.effect:
            grants[grant.id] = replace(grant, left=left)
            if not left:
                del grants[grant.id]
            return
        # An entry records the terms of a grant after it. A VOID records the terms before it.
        ends_at = entry.created_at if entry.kind is Kind.VOID else part.ends_at
        credits_ = max(grant.credits, left)
        grants[grant.id] = replace(grant, left=left, credits=credits_, ends_at=ends_at)

    def _schedule(self, entry: Transaction) -> Iterator[Fault]:
        parts = entry.details.allocations
        if [part.grant_id for part in parts] != [entry.id] or entry.details.effective_at is None:
            yield Code.LINK, "SCHEDULE does not place a grant of its own with a start"
            return
        (part,) = parts
        self.scheduled[entry.id] = Grant(
            id=entry.id,
            sequence=part.sequence,
            credits=entry.credits,
            left=entry.credits,
            priority=part.priority,
            category=part.category,
            starts_at=entry.details.effective_at,
            ends_at=part.ends_at,
            created_by=entry.created_by,
        )

    def _activate(self, entry: Transaction) -> Iterator[Fault]:
        grant = self.scheduled.pop(entry.details.related_id, None)
        if grant is None:
            related = entry.details.related_id or "nothing"
            yield Code.LINK, f"ACTIVATE starts {related}, which is no scheduled grant"
            return
        if grant.left != entry.credits:
            yield (
                Code.GRANT_OVERDRAWN,
                f"ACTIVATE of {entry.credits} starts {grant.id}, which has {grant.left}",
            )
        for part in entry.details.allocations:
            if part.grant_id:
                self.grants[grant.id] = replace(grant, starts_at=None, left=part.credits)

    def _drop_unneeded(self) -> None:
        """Remove the grants that have no credits left and that no open hold refers to."""
        empty = [grant.id for grant in self.grants.values() if not grant.left]
        if not empty:
            return
        held = {part.grant_id for hold in self.holds.values() for part in hold.allocations}
        for grant_id in empty:
            if grant_id not in held:
                del self.grants[grant_id]

    # Alerts and counters.

    def _alert(self, entry: Transaction) -> Iterator[Fault]:
        request = dict(entry.details.request)
        try:
            alert = Alert(credits=entry.credits, direction=Direction(request.get("direction", "")))
        except ValueError:
            yield Code.LINK, "ALERT records no direction"
            return
        changed = changed_alerts(self.alerts, alert, remove="remove" in request)
        if not isinstance(changed, tuple) or changed is self.alerts:
            yield Code.LINK, "ALERT changes nothing"
            return
        self.alerts = changed

    def _count(self, entry: Transaction, reversed_entry: Transaction | None) -> None:
        """Count used credits in the counters of caps, as `credit_models.ledger.caps` does."""
        since = self._counted_since
        if since is None or entry.sequence < since:
            return
        match entry.kind:
            case Kind.USE | Kind.CAP:
                used = entry.credits if entry.kind is Kind.USE else 0
                for period in Period:
                    start = period_start(period, entry.created_at)
                    counted = self._spent.get(period)
                    before = counted[1] if counted is not None and counted[0] == start else 0
                    self._spent[period] = (start, before + used)
            case Kind.REFUND if reversed_entry is not None and reversed_entry.sequence >= since:
                for period, (start, credits_) in self._spent.items():
                    if start == period_start(period, reversed_entry.created_at):
                        self._spent[period] = (start, credits_ - entry.credits)


def _is_capture(release: Transaction) -> bool:
    """Return whether a RELEASE is the first part of a capture: neither requested nor by time."""
    return release.details.effective_at is None and not release.details.released


def _caps_of(entry: Transaction) -> Caps:
    text = dict(entry.details.request).get("caps")
    if text is None:
        return NO_CAPS
    hour, day, month = (int(cap) if cap else None for cap in text.split(","))
    return Caps(hour=hour, day=day, month=month)


def _sums(parts: Iterable[Allocation]) -> list[tuple[str, int]]:
    return [(part.grant_id, part.credits) for part in parts]


def _text(parts: Iterable[tuple[str, int]]) -> str:
    named = [f"{credits_} of {grant_id or 'base credits'}" for grant_id, credits_ in parts]
    return ", ".join(named) or "base credits alone"
