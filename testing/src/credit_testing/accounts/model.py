"""Keep what a user has: credits in lots, holds, caps, and the history that later requests refer to.

The model was written only from the contract, and unlike the server, so that the two do not share a
mistake. It stores no derived values, such as an order of lots, a sum or the earliest due time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from credit_models import AlertDirection, GrantCategory, TransactionType

UINT32_MAX = 2**32 - 1
LIVE_MAX = 256
"""How many live grants, and how many open holds, a user may have in an app."""
BASE = ""
"""The id of the credits that belong to no grant."""
_NEVER = datetime.max.replace(tzinfo=UTC)
_BEGINNING = datetime.min.replace(tzinfo=UTC)
PERIODS = ("hour", "day", "month")


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """The terms that decide when credits are spent, and when they end."""

    id: str = BASE
    age: int = 0
    priority: int = 500
    category: GrantCategory = GrantCategory.UNSPECIFIED
    ends_at: datetime | None = None

    @property
    def rank(self) -> tuple[int, datetime, int]:
        """Return the place in the order in which credits are spent."""
        return self.priority, self.ends_at or _NEVER, self.age


Limit = tuple[int, AlertDirection]
"""The credits and the direction of an alert."""

Piece = tuple[Terms, int]
"""Some credits of one lot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lot:
    """A grant: `starts_at` is None from its start on."""

    terms: Terms
    credits: int
    left: int
    created_by: int
    starts_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenHold:
    """A hold that is not settled."""

    id: str
    age: int
    pieces: tuple[Piece, ...]
    placed_at: datetime
    ends_at: datetime
    created_by: int
    purpose: str = ""
    captured: int = 0

    @property
    def held(self) -> int:
        return total(self.pieces)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """The facts about an entry that later requests need.

    Attributes:
        sequence: Its place in the history.
        pieces: Of a use: where the credits came from.
        taken_back: How many of its credits were reversed.
        lot: Of credits that were added: the grant that got them; `BASE` for none.
        closed: Whether an EXPIRE or a VOID of its grant was written.
        settled: Of a hold: how it was settled, with the figures of the rejection.
    """

    type: TransactionType
    app_id: int
    credits: int
    sequence: int = 0
    pieces: tuple[Piece, ...] = ()
    taken_back: int = 0
    lot: str = BASE
    closed: bool = False
    settled: tuple[str, int, int, datetime] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One entry of a history, as the model expects it; the balance is negative for a debt."""

    id: str
    user_id: int
    app_id: int
    sequence: int
    type: TransactionType
    credits: int
    effect: int
    balance: int
    at: datetime
    created_by: int
    key: str = ""
    note: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    related_id: str = ""
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    allocations: tuple[tuple[str, int], ...] = ()
    report: tuple[str, str] = ("", "")
    held: int = 0
    released: int = 0
    # The revision and the balance after its request, which a list does not show.
    final: tuple[int, int] | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bought:
    """A purchase and what of it was refunded."""

    entry: Entry
    refunded: int = 0


@dataclass(kw_only=True, slots=True)
class App:
    """What a user has in one app; `base` is negative for a debt.

    `spent` has the start and the credits of each counter, and counts entries from `since` on.
    `alerts` has the alerts of the user, without the alerts of the app.
    """

    base: int = 0
    lots: dict[str, Lot] = field(default_factory=dict)
    holds: dict[str, OpenHold] = field(default_factory=dict)
    caps: dict[str, int] = field(default_factory=dict)
    spent: dict[str, tuple[datetime, int]] = field(default_factory=dict)
    since: int = 0
    alerts: frozenset[Limit] = frozenset()

    def copy(self) -> "App":
        return App(
            base=self.base,
            lots=dict(self.lots),
            holds=dict(self.holds),
            caps=dict(self.caps),
            spent=dict(self.spent),
            since=self.since,
            alerts=self.alerts,
        )

    @property
    def balance(self) -> int:
        return self.base + sum(lot.left for lot in self.started())

    @property
    def available(self) -> int:
        return max(0, self.balance)

    @property
    def held(self) -> int:
        return sum(hold.held for hold in self.holds.values())

    @property
    def coming(self) -> int:
        """Return the balance with what time adds to it."""
        return self.balance + self.held + sum(lot.left for lot in self.scheduled())

    def started(self) -> list[Lot]:
        return [lot for lot in self.lots.values() if lot.starts_at is None]

    def scheduled(self) -> list[Lot]:
        return [lot for lot in self.lots.values() if lot.starts_at is not None]

    def take(self, credits: int) -> tuple[Piece, ...]:  # noqa: A002 - the contract's word
        """Take available credits in the order in which they are spent."""
        there = [(lot.terms, lot.left) for lot in self.started()] + [(Terms(), self.base)]
        pieces: list[Piece] = []
        for terms, left in sorted(there, key=lambda piece: piece[0].rank):
            taken = min(max(0, left), credits - total(pieces))
            if taken:
                pieces.append((terms, taken))
                self._change(terms.id, -taken)
        assert total(pieces) == credits
        return tuple(pieces)

    def put(
        self, pieces: Iterable[Piece], now: datetime, created_by: int, until: datetime | None = None
    ) -> list[Piece]:
        """Return credits to their lots, after a debt is paid; return where they are now.

        Credits of a grant that has ended pay nothing.

        Args:
            pieces: The credits.
            now: The time.
            created_by: Who is recorded for a grant that has to be restored.
            until: The new end of grants that have ended; None: they stay ended.
        """
        debt = max(0, -self.base)
        given: list[Piece] = []
        for terms, credits_ in pieces:
            lot = self.lots.get(terms.id)
            ends_at = terms.ends_at if lot is None else lot.terms.ends_at
            if until is not None and ends_at is not None and ends_at <= now:
                ends_at = until
            pays = min(debt, credits_) if ends_at is None or ends_at > now else 0
            paid = credits_ if terms.id == BASE else pays
            debt -= min(debt, paid)
            self.base += paid
            if paid:
                given.append((Terms(), paid))
            if credits_ > paid:
                given.append((self._restored(terms, now, created_by, until), credits_ - paid))
                self._change(terms.id, credits_ - paid)
        return given

    def place(self, lot: Lot) -> list[Piece] | None:
        """Add a grant that has started, after a debt is paid; None if there is no room."""
        paid = min(lot.left, max(0, -self.base))
        given = [(Terms(), paid)] if paid else []
        rest = lot.left - paid
        if rest:
            home = lot if len(self.lots) < LIVE_MAX else self._alike(lot)
            if home is None:
                return None
            if home is lot:
                self.lots[lot.terms.id] = replace(lot, left=rest)
            else:
                left, credits_ = home.left + rest, home.credits + rest
                self.lots[home.terms.id] = replace(home, left=left, credits=credits_)
            given.append((home.terms, rest))
        self.base += paid
        return given

    def forget_empty_lots(self) -> None:
        """Drop the grants that are not live."""
        held = {terms.id for hold in self.holds.values() for terms, _ in hold.pieces}
        self.lots = {id_: lot for id_, lot in self.lots.items() if lot.left or id_ in held}

    def next_event(self, now: datetime) -> tuple[datetime, int, int, str] | None:
        """Return what is due first: its instant, its kind (start, hold's end, end), age and id."""
        events = [
            *((lot.starts_at, 0, lot.terms.age, lot.terms.id) for lot in self.scheduled()),
            *((hold.ends_at, 1, hold.age, hold.id) for hold in self.holds.values()),
            *(
                (lot.terms.ends_at, 2, lot.terms.age, lot.terms.id)
                for lot in self.started()
                if lot.left
            ),
        ]
        due = [
            (instant, kind, age, id_)
            for instant, kind, age, id_ in events
            if instant is not None and instant <= now
        ]
        return min(due, default=None)

    def instants(self) -> Iterator[datetime]:
        """Yield all times at which something starts or ends."""
        for lot in self.lots.values():
            yield from (time for time in (lot.starts_at, lot.terms.ends_at) if time is not None)
        yield from (hold.ends_at for hold in self.holds.values())

    def spent_in(self, period: str, now: datetime) -> int:
        start, credits_ = self.spent.get(period, (now, 0))
        return credits_ if start == period_start(period, now) else 0

    def _alike(self, lot: Lot) -> Lot | None:
        """Return the live grant that a new one joins when there is no room."""
        terms = (lot.terms.priority, lot.terms.category, lot.terms.ends_at)
        alike = [
            other
            for other in self.started()
            if (other.terms.priority, other.terms.category, other.terms.ends_at) == terms
        ]
        return min(alike, key=lambda other: other.terms.age, default=None)

    def _restored(
        self, terms: Terms, now: datetime, created_by: int, until: datetime | None
    ) -> Terms:
        lot = self.lots.get(terms.id)
        if lot is not None:
            terms = lot.terms
        if until is not None and terms.ends_at is not None and terms.ends_at <= now:
            terms = replace(terms, ends_at=until)
        if lot is None:
            lot = Lot(terms=terms, credits=0, left=0, created_by=created_by)
        self.lots[terms.id] = replace(lot, terms=terms)
        return terms

    def _change(self, id_: str, change: int) -> None:
        if id_ == BASE:
            self.base += change
            return
        lot = self.lots[id_]
        left = lot.left + change
        self.lots[id_] = replace(lot, left=left, credits=max(lot.credits, left))


@dataclass(kw_only=True, slots=True)
class Account:
    """The current and earlier state of a user; `latest_at` is the time of the latest entry."""

    user_id: int
    sequence: int = 0
    latest_at: datetime = _BEGINNING
    apps: dict[int, App] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    # By app and key: the request, whose type only the auditor knows, and the entry.
    keys: dict[tuple[int, str], tuple[object, Entry]] = field(default_factory=dict)
    bought: dict[str, Bought] = field(default_factory=dict)

    def copy(self) -> "Account":
        return Account(
            user_id=self.user_id,
            sequence=self.sequence,
            latest_at=self.latest_at,
            apps={app_id: app.copy() for app_id, app in self.apps.items()},
            facts=dict(self.facts),
            keys=dict(self.keys),
            bought=dict(self.bought),
        )

    def app(self, app_id: int) -> App:
        """Return what the user has in an app; at first it is empty."""
        return self.apps.get(app_id) or App()


def total(pieces: Iterable[Piece]) -> int:
    """Return the number of credits of all pieces."""
    return sum(credits_ for _, credits_ in pieces)


def split(pieces: Iterable[Piece], credits: int) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:  # noqa: A002 - the contract's word
    """Return the first credits of pieces, and the rest."""
    first: list[Piece] = []
    rest: list[Piece] = []
    for terms, credits_ in pieces:
        taken = min(credits_, credits - total(first))
        first += [(terms, taken)] if taken else []
        rest += [(terms, credits_ - taken)] if credits_ > taken else []
    return tuple(first), tuple(rest)


def period_start(period: str, at: datetime) -> datetime:
    """Return the start of the hour, day or month (UTC) of a time."""
    if period == "hour":
        return datetime(at.year, at.month, at.day, at.hour, tzinfo=UTC)
    if period == "day":
        return datetime(at.year, at.month, at.day, tzinfo=UTC)
    return datetime(at.year, at.month, 1, tzinfo=UTC)


def period_end(period: str, at: datetime) -> datetime:
    """Return the start of the next hour, day or month (UTC)."""
    if period == "month":
        following = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
        return datetime(*following, 1, tzinfo=UTC)
    return period_start(period, at) + timedelta(hours=1 if period == "hour" else 24)
