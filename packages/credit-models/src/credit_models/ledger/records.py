"""The records of the ledger: accounts and what they keep for apps, entries, and purchases.

The *base credits* are the part of a balance that belongs to no grant. *Terms* are the end, the
priority and the category of credits. *Burn order* is the order in which credits are used; see
`burning`.
An account is one user's document. What it keeps for one app beyond the balance is an `AppAccount`;
an app without grants, holds, caps and alerts has none.
"""

from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

# The greatest balance, number of credits and id: the contract's integers are uint32.
UINT32_MAX = 2**32 - 1

# The number of apps in which one user may ever have credits. An account is one document, which each
# of its transactions reads and writes. With 20,000 apps a transaction took 0.8 s (2-core machine).
APPS_MAX = 1000

# The number of grants, and of open holds, that one user may have in one app. They are in the
# account's document too.
GRANTS_MAX = 256
HOLDS_MAX = 256

# The number of items that all apps of an account may have together. Items are grants, open holds,
# and allocations of holds. An item takes about 125 bytes, and 1.1 kB with the longest purpose of a
# hold, so the items take at most 5 MB of the 16 MiB that a document may have. Reading this many
# items takes 45 ms (2-core machine).
ACCOUNT_ITEMS_MAX = 4096

# The number of alerts that one user may have in one app, and that an app may have for all users.
# Each of them is compared with each change of a balance.
ALERTS_MAX = 8

# The priority of base credits, and of a grant whose request names none.
PRIORITY_DEFAULT = 500

# Names and values of strings, ordered by name: metadata, and the fields of a request.
Pairs = tuple[tuple[str, str], ...]


class Category(Enum):
    """Where the credits of a grant come from; the values are those in the store."""

    UNSPECIFIED = "unspecified"
    PAID = "paid"
    PROMOTIONAL = "promotional"
    OWN = "own"


class Period(Enum):
    """The period of a cap: an hour, a day or a calendar month of UTC."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """The part of an entry or of a hold that concerns one grant, or the base credits.

    It holds the terms of the grant, so that a refund can restore a grant that has left the account.

    Attributes:
        credits: The number of credits.
        grant_id: The grant; empty for base credits. The other attributes are those of the `Grant`.
    """

    credits: int
    grant_id: str = ""
    sequence: int = 0
    priority: int = PRIORITY_DEFAULT
    category: Category = Category.UNSPECIFIED
    ends_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """Credits with terms of their own.

    A grant stays in the account while credits of it are left or held.

    Attributes:
        id: The id of the GRANT, SCHEDULE or TRANSFER_IN entry that placed it.
        sequence: The `sequence` of that entry.
        credits: The number of credits that were granted, those of grants that joined it included;
            at most 2**32 - 1.
        left: The number of credits that are left to use, 0 to `credits`.
        priority: Credits of the lowest priority are used first, 0 to 1000.
        category: Where the credits come from.
        starts_at: The time from which the credits can be used; None if it has started.
        ends_at: The time from which the credits can no longer be used; None: never.
        created_by: The number of the requester of the entry.
    """

    id: str
    sequence: int
    credits: int
    left: int
    priority: int = PRIORITY_DEFAULT
    category: Category = Category.UNSPECIFIED
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    created_by: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """Credits that are reserved: they have left the balance, but are not used yet.

    Attributes:
        id: The id of the HOLD entry that placed it.
        sequence: The `sequence` of that entry.
        credits: The number of credits that it still holds, at least 1.
        allocations: The grants that these credits are from, in the order in which they were taken;
            empty if all are base credits.
        placed_at: The time at which it was placed.
        ends_at: The time at which it ends. What it still holds then returns to the balance.
        captured: The number of its credits that captures have used so far. It was placed with
            `credits` and `captured` together.
        purpose: What it is for, for people; may be empty.
        created_by: The number of the requester of the entry.
    """

    id: str
    sequence: int
    credits: int
    allocations: tuple[Allocation, ...] = ()
    placed_at: datetime
    ends_at: datetime
    captured: int = 0
    purpose: str = ""
    created_by: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """How many credits may be used in a period; None: there is no cap for it.

    Attributes:
        hour: In an hour of UTC, 1 to 2**32 - 1, like the others.
        day: In a day of UTC.
        month: In a calendar month of UTC.
    """

    hour: int | None = None
    day: int | None = None
    month: int | None = None


NO_CAPS = Caps()


class Direction(Enum):
    """The direction in which a balance crosses a limit; the values are those in the store."""

    FALLS_BELOW = "falls_below"
    RISES_TO = "rises_to"


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """A limit of a balance, and the direction in which a crossing has an event.

    Attributes:
        credits: The limit, 1 to 2**32 - 1.
        direction: The direction.
    """

    credits: int
    direction: Direction

    def is_crossed(self, before: int, after: int) -> bool:
        """Return whether a change of the available balance crosses the limit."""
        match self.direction:
            case Direction.FALLS_BELOW:
                return after < self.credits <= before
            case Direction.RISES_TO:
                return before < self.credits <= after


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertEvent:
    """One crossing of an alert's limit.

    Attributes:
        id: Its id, which follows from the entry and the alert.
        user_id: The user whose balance crossed the limit.
        app_id: The app.
        alert: The alert.
        balance: The available balance after the crossing.
        transaction_id: The last entry of the change.
        sequence: The `sequence` of that entry.
        created_at: The `created_at` of that entry.
    """

    id: str
    user_id: int
    app_id: int
    alert: Alert
    balance: int
    transaction_id: str
    sequence: int
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """The rules of an app for all its users.

    Attributes:
        caps: The caps of each user without caps of its own.
        allow_negative: Whether an adjustment may take more credits than the user has.
        alerts: The alerts for each user, at most `ALERTS_MAX`, by limit and direction.
    """

    caps: Caps = NO_CAPS
    allow_negative: bool = False
    alerts: tuple[Alert, ...] = ()


NO_POLICY = Policy()


@dataclass(frozen=True, kw_only=True, slots=True)
class PeriodSpending:
    """The credits used in one period.

    Attributes:
        period: The kind of period.
        starts_at: The start of the period, UTC.
        credits: The number of credits used in it, less those that were refunded.
        since: The counter counts the entries from this `sequence` on.
    """

    period: Period
    starts_at: datetime
    credits: int
    since: int


def next_due(
    grants: Iterable[Grant], scheduled: Iterable[Grant], holds: Iterable[Hold]
) -> datetime | None:
    """Return the earliest time at which a grant starts or ends, or a hold ends; None: never."""
    times = [
        *(grant.ends_at for grant in grants if grant.left),
        *(grant.starts_at for grant in scheduled),
        *(hold.ends_at for hold in holds),
    ]
    return min((time for time in times if time is not None), default=None)


def count_items(grants: Sized, scheduled: Sized, holds: Iterable[Hold]) -> int:
    """Return how many items of `ACCOUNT_ITEMS_MAX` an app takes up."""
    return len(grants) + len(scheduled) + sum(1 + len(hold.allocations) for hold in holds)


@dataclass(frozen=True, kw_only=True, slots=True)
class AppAccount:
    """What an account keeps for one app beyond the balance. `AppAccount.of` makes it.

    Attributes:
        grants: The grants that have started, in the order in which they are used.
        scheduled: The grants that start later, by start and `sequence`. They are not in the
            balance.
        holds: The open holds, by the order in which they were placed.
        caps: The user's own caps. They replace those of the app's policy.
        spent: What was used in the latest hour, day and month; empty if nothing is counted.
        alerts: The user's own alerts, at most `ALERTS_MAX`, by limit and direction.
        granted: The sum of what is left of `grants`. The rest of the balance are base credits;
            they are negative if the user owes credits.
        due_at: The earliest time at which a grant starts or ends, or a hold ends; None: never.
    """

    grants: tuple[Grant, ...] = ()
    scheduled: tuple[Grant, ...] = ()
    holds: tuple[Hold, ...] = ()
    caps: Caps = NO_CAPS
    spent: tuple[PeriodSpending, ...] = ()
    alerts: tuple[Alert, ...] = ()
    granted: int = 0
    due_at: datetime | None = None

    @classmethod
    def of(
        cls,
        *,
        grants: tuple[Grant, ...] = (),
        scheduled: tuple[Grant, ...] = (),
        holds: tuple[Hold, ...] = (),
        caps: Caps = NO_CAPS,
        spent: tuple[PeriodSpending, ...] = (),
        alerts: tuple[Alert, ...] = (),
    ) -> "AppAccount":
        """Return the record with `granted` and `due_at`, which follow from the rest."""
        return cls(
            grants=grants,
            scheduled=scheduled,
            holds=holds,
            caps=caps,
            spent=spent,
            alerts=alerts,
            granted=sum(grant.left for grant in grants),
            due_at=next_due(grants, scheduled, holds),
        )

    @property
    def held(self) -> int:
        """The number of credits that all open holds hold."""
        return sum(hold.credits for hold in self.holds)

    @property
    def items(self) -> int:
        """The number of grants, of open holds, and of the allocations of these holds."""
        return count_items(self.grants, self.scheduled, self.holds)

    @property
    def expiring_next(self) -> "Expiring | None":
        """What expires next if nothing is used; None if nothing expires."""
        left = [grant for grant in (*self.grants, *self.scheduled) if grant.left]
        at = min((grant.ends_at for grant in left if grant.ends_at is not None), default=None)
        if at is None:
            return None
        return Expiring(credits=sum(grant.left for grant in left if grant.ends_at == at), at=at)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expiring:
    """Credits that expire at one time.

    Attributes:
        credits: Their number, at least 1.
        at: The time.
    """

    credits: int
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One user's balances in all apps. Immutable: each transaction makes a new account.

    Attributes:
        user_id: The user.
        id: The record's id in the store; empty until it was read from there.
        balances: The balance of every app in which the user ever had credits, or owed them:
            -(2**32 - 1) to 2**32 - 1. Held credits are not part of it.
        apps: What the account keeps for an app beyond its balance.
        heads: The hash of the latest entry in an app, for each app whose entries have hashes.
        revision: The number of the user's transactions: the `sequence` of the latest one.
        created_at: The time of the first transaction; None before it.
        updated_at: The time of the latest transaction; None before the first.
        created_by: The number of the requester of the first transaction; 0 before it.
        updated_by: The number of the requester of the latest transaction; 0 before the first.
    """

    user_id: int
    id: str = ""
    balances: Mapping[int, int]
    apps: Mapping[int, AppAccount] = field(default_factory=dict)
    heads: Mapping[int, bytes] = field(default_factory=dict)
    revision: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: int = 0
    updated_by: int = 0

    @classmethod
    def empty(cls, user_id: int) -> "Account":
        """Return the account of a user that never had credits."""
        return cls(user_id=user_id, balances={})

    @property
    def items(self) -> int:
        """The number of items in all apps; see `ACCOUNT_ITEMS_MAX`."""
        return sum(app.items for app in self.apps.values())

    def balance(self, app_id: int) -> int:
        """Return the balance in an app; 0 if the user never had credits there."""
        return self.balances.get(app_id, 0)

    def base(self, app_id: int) -> int:
        """Return the base credits in an app: the balance without those of grants."""
        app = self.apps.get(app_id)
        return self.balance(app_id) - (0 if app is None else app.granted)


class Kind(Enum):
    """What an entry did; the values are those in the store."""

    ADD = "add"
    USE = "use"
    GRANT = "grant"
    SCHEDULE = "schedule"  # of a grant that starts later
    ACTIVATE = "activate"  # of a scheduled grant, at its start
    EXPIRE = "expire"  # of what is left of a grant, at its end
    VOID = "void"  # of what is left of a grant, by request
    HOLD = "hold"
    RELEASE = "release"  # of held credits: by request, at the hold's end, or before a capture's USE
    EXTEND = "extend"  # of a hold
    REFUND = "refund"  # of a USE
    REVOKE = "revoke"  # of an entry that added credits
    TRANSFER_OUT = "transfer_out"
    TRANSFER_IN = "transfer_in"
    ADJUST = "adjust"
    CAP = "cap"
    ALERT = "alert"

    @property
    def sign(self) -> int:
        """1 for a kind that adds to the balance, -1 for one that takes from it, else 0."""
        return _SIGNS[self]

    @property
    def has_end(self) -> bool:
        """Whether it places a grant or a hold, or extends a hold."""
        return self in _WITH_END


_SIGNS = {
    Kind.ADD: 1,
    Kind.USE: -1,
    Kind.GRANT: 1,
    Kind.SCHEDULE: 0,
    Kind.ACTIVATE: 1,
    Kind.EXPIRE: -1,
    Kind.VOID: -1,
    Kind.HOLD: -1,
    Kind.RELEASE: 1,
    Kind.EXTEND: 0,
    Kind.REFUND: 1,
    Kind.REVOKE: -1,
    Kind.TRANSFER_OUT: -1,
    Kind.TRANSFER_IN: 1,
    Kind.ADJUST: 1,
    Kind.CAP: 0,
    Kind.ALERT: 0,
}
_WITH_END = frozenset({Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN, Kind.HOLD, Kind.EXTEND})


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """What an entry has beyond a plain ADD or USE.

    Attributes:
        related_id: The entry that this one refers to; empty if there is none. It is the HOLD of
            RELEASE, EXTEND and the USE of a capture; the reversed entry of REFUND and REVOKE; the
            entry that placed the grant of ACTIVATE, EXPIRE and VOID; the TRANSFER_OUT of a
            TRANSFER_IN; and the first TRANSFER_IN of a TRANSFER_OUT.
        related_total: The credits of the reversed entry that were reversed so far, or the credits
            of the hold that were captured so far; this entry included.
        allocations: The grants that the credits were taken from or added to, in order; empty if
            all are base credits.
        delta: The change of the balance if `Kind.sign` and the credits do not define it; else None.
            It is set for an ADJUST, and is 0 for the VOID or REVOKE of a grant before its start.
        effective_at: For ACTIVATE, EXPIRE and the RELEASE at a hold's end: the time at which it
            took effect, at most `created_at`. For SCHEDULE: the grant's start. Else None.
        ends_at: For GRANT, SCHEDULE and TRANSFER_IN: the grant's end; None: never. For REFUND: the
            new end of grants that had ended; None: they expire at once. For HOLD and EXTEND: the
            hold's end.
        released: For the USE of a capture, and for the RELEASE that a request makes: the credits
            of the hold that returned to the balance. They are not those that were captured.
        held_after: For entries of a hold: the credits that it holds after the entry.
        metadata: The caller's names and values.
        note: The caller's note, for people.
        request: The fields of the request that the entry does not hold, to compare retries.
        final_revision: The `sequence` of the last entry of the same command in the account, if it
            is a later one: of what expired at once, or of a transfer to another app. Else 0.
        final_balance: The balance in the app after that entry; 0 without `final_revision`.
    """

    related_id: str = ""
    related_total: int = 0
    allocations: tuple[Allocation, ...] = ()
    delta: int | None = None
    effective_at: datetime | None = None
    ends_at: datetime | None = None
    released: int = 0
    held_after: int = 0
    metadata: Pairs = ()
    note: str = ""
    request: Pairs = ()
    final_revision: int = 0
    final_balance: int = 0


NO_DETAILS = Details()


@dataclass(frozen=True, kw_only=True, slots=True)
class Transaction:
    """One entry of a user's history. Most entries change a balance.

    Attributes:
        id: Its id, unique among all transactions.
        user_id: The user whose balance changed.
        app_id: The app.
        kind: How it changed the balance.
        credits: The number of credits concerned, 1 to 2**32 - 1. For CAP: the least cap, or
            2**32 - 1 if all caps were removed. For ALERT: the limit.
        balance_after: The balance in the app after it, -(2**32 - 1) to 2**32 - 1.
        sequence: Counts the user's transactions over all apps: 1, 2, 3 and so on without a gap.
        created_at: The time of the decision, UTC, in whole milliseconds. Never before the user's
            previous transaction, unless no correct clock can have given that one its time.
        created_by: The number of the requester.
        key: The client's idempotency key; empty if it sent none.
        purchase_id: The purchase that it paid for; empty for other kinds than USE.
        report_id: The report that was bought; empty for other kinds than USE. It is stored here
            too, with the name, to compare a retry with the first request.
        report_name: Its name for people; empty for other kinds than USE.
        details: What it has beyond a plain ADD or USE.
        previous_hash: The hash of the user's previous entry in the app; empty if this entry is the
            first one with a hash.
        hash: Its hash; see `chain`. Empty if the chain of the user in the app began later.
    """

    id: str
    user_id: int
    app_id: int
    kind: Kind
    credits: int
    balance_after: int
    sequence: int
    created_at: datetime
    created_by: int
    key: str
    purchase_id: str = ""
    report_id: str = ""
    report_name: str = ""
    details: Details = NO_DETAILS
    previous_hash: bytes = b""
    hash: bytes = b""

    @property
    def effect(self) -> int:
        """The signed change of the balance. All effects add up to the balance."""
        delta = self.details.delta
        return _SIGNS[self.kind] * self.credits if delta is None else delta

    @property
    def final_revision(self) -> int:
        """The account's revision after all entries of the command that made this one."""
        return self.details.final_revision or self.sequence

    @property
    def final_balance(self) -> int:
        """The balance in the app after all entries of the command that made this one."""
        details = self.details
        return details.final_balance if details.final_revision else self.balance_after


@dataclass(frozen=True, kw_only=True, slots=True)
class Purchase:
    """One report bought with credits.

    Attributes are those of the contract's `Purchase`, and:
        sequence: The `sequence` of the transaction that paid for it; lists are ordered by it.
        refunded_credits: How many of its credits were refunded so far, 0 to `credits`. It is the
            only attribute that changes.
    """

    id: str
    user_id: int
    app_id: int
    report_id: str
    report_name: str
    credits: int
    created_at: datetime
    created_by: int
    transaction_id: str
    sequence: int
    refunded_credits: int = 0
