"""A model of the ledger that keeps every single credit as a token.

It shares no code with the ledger, only the names of commands and refusals. A token is in a pot (its
grant, or the base credits), and is free, scheduled, held or gone. The model moves tokens as soon as
they are due, and the ledger with the next write: both must agree at any moment.
"""

import copy
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby

from credit_models.ledger import (
    NO_CAPS,
    Add,
    AdjustBalance,
    Alert,
    AlertUnchanged,
    AlreadyPurchased,
    AvailableTooLow,
    CapExceeded,
    Caps,
    CaptureHold,
    Category,
    Command,
    ExpiresTooEarly,
    ExtendHold,
    GrantCredits,
    GrantEmpty,
    GrantNotFound,
    GrantsFull,
    HoldAlreadyCaptured,
    HoldAlreadyReleased,
    HoldExceeded,
    HoldExpired,
    HoldLifeExceeded,
    HoldNotFound,
    HoldsFull,
    InsufficientCredits,
    Kind,
    NothingDue,
    NotReversible,
    Period,
    PlaceHold,
    Policy,
    Refusal,
    ReleaseHold,
    ReversalExceeds,
    ReverseTransaction,
    RevisionChanged,
    SetAlert,
    SetSpendingCap,
    Settle,
    TooManyAlerts,
    Transaction,
    TransactionNotFound,
    TransferCredits,
    Use,
    VoidGrant,
)

# The model's own limits; the test gives the ledger the same.
GRANTS_MAX = 4
HOLDS_MAX = 3
ALERTS_MAX = 2

FREE, SCHEDULED, GONE = "free", "scheduled", "gone"
FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(eq=False)
class Pot:
    """The terms that tokens have in common; the id is empty for base credits."""

    id: str = ""
    sequence: int = 0
    priority: int = 500
    category: Category = Category.UNSPECIFIED
    start: datetime | None = None
    end: datetime | None = None
    closed: bool = False  # whether tokens of it have expired or were voided

    @property
    def rank(self) -> tuple[int, datetime, int]:
        return self.priority, self.end or FOREVER, self.sequence


@dataclass(eq=False)
class Token:
    """One credit. Its place is free, scheduled, gone, or the id of a hold or of a use."""

    pot: Pot
    place: str
    end_when_taken: datetime | None = None

    def take(self, place: str) -> None:
        self.place, self.end_when_taken = place, self.pot.end


@dataclass(eq=False)
class Held:
    """A hold. It stays in the model after it is settled."""

    id: str
    tokens: list[Token]
    placed_at: datetime
    ends_at: datetime
    placed: int
    captured: int = 0
    settled: type[HoldAlreadyCaptured | HoldAlreadyReleased | HoldExpired] | None = None
    settled_at: datetime | None = None


@dataclass(eq=False)
class Made:
    """What the model knows of an entry that can be referred to."""

    kind: Kind
    app_id: int
    credits: int
    at: datetime
    tokens: list[Token] = field(default_factory=list)
    pot: Pot | None = None
    reversed: int = 0
    purchase_id: str = ""


@dataclass(frozen=True)
class Event:
    """What time has done: the kind, the grant or hold, the credits and the instant."""

    kind: Kind
    related_id: str
    credits: int
    instant: datetime


@dataclass(eq=False)
class Purse:
    """What one user has in one app."""

    base: Pot = field(default_factory=Pot)
    tokens: list[Token] = field(default_factory=list)
    debt: int = 0
    holds: dict[str, Held] = field(default_factory=dict)
    caps: Caps = NO_CAPS
    alerts: set[Alert] = field(default_factory=set)
    counting: datetime | None = None  # when a use was last counted, or caps were last set
    uses: dict[str, tuple[datetime, int]] = field(default_factory=dict)  # those that were counted
    unwritten: list[Event] = field(default_factory=list)

    def free(self) -> list[Token]:
        """Return the spendable tokens in the order in which they are spent."""
        free = [token for token in self.tokens if token.place == FREE]
        return sorted(free, key=lambda token: token.pot.rank)

    @property
    def open_holds(self) -> list[Held]:
        return [hold for hold in self.holds.values() if hold.settled is None]

    @property
    def held(self) -> int:
        return sum(len(hold.tokens) for hold in self.open_holds)

    def pots(self) -> list[Pot]:
        """Return the grants that are in the account, in the order in which they are spent."""
        held = {hold.id for hold in self.open_holds}
        live = {FREE, SCHEDULED} | held
        pots = {token.pot for token in self.tokens if token.place in live and token.pot.id}
        return sorted(pots, key=lambda pot: pot.rank)

    def in_pot(self, pot: Pot, place: str = FREE) -> list[Token]:
        return [token for token in self.tokens if token.pot is pot and token.place == place]

    # Tokens come and go.

    def put(self, token: Token, *, pays: bool = True) -> None:
        """Make a token spendable, unless it pays a debt."""
        if self.debt and pays:
            self.debt -= 1
            token.place = GONE
        else:
            token.place = FREE
            if token not in self.tokens:
                self.tokens.append(token)

    def new(self, pot: Pot, number: int) -> Pot | None:
        """Make new tokens of a grant; return their pot, or None if there is no room."""
        paying = min(self.debt, number)
        self.debt -= paying
        number -= paying
        pots = self.pots()
        if number and len(pots) >= GRANTS_MAX:
            terms = (pot.priority, pot.category, pot.end)
            alike = [
                other
                for other in pots
                if (other.priority, other.category, other.end) == terms
                and not self.in_pot(other, SCHEDULED)
            ]
            if not alike:
                return None
            pot = alike[0]
        self.tokens += [Token(pot, FREE) for _ in range(number)]
        return pot if number else self.base

    def give_back(self, token: Token, restore_until: datetime | None, now: datetime) -> bool:
        """Return a token to its pot, unless it pays a debt; return whether it did.

        A token of a grant that has ended pays nothing.
        """
        pot = token.pot
        end = pot.end if pot in self.pots() else token.end_when_taken
        if end is not None and end <= now and restore_until is not None:
            end = restore_until
        pays = self.debt > 0 and (end is None or end > now)
        if pot.id and not pays:
            pot.end = end
        self.put(token, pays=pays)
        return pays

    # Time.

    def advance(self, now: datetime) -> None:
        """Do what is due by a time, in order."""
        self.tokens = [token for token in self.tokens if token.place != GONE]
        while (instant := self.next_instant()) is not None and instant <= now:
            self._at(instant)

    def next_instant(self) -> datetime | None:
        """Return the time at which something is due."""
        times = [hold.ends_at for hold in self.open_holds]
        for token in self.tokens:
            if token.place == SCHEDULED and token.pot.start is not None:
                times.append(token.pot.start)
            if token.place == FREE and token.pot.end is not None:
                times.append(token.pot.end)
        return min(times, default=None)

    def _at(self, instant: datetime) -> None:
        starting = {t.pot for t in self.tokens if t.place == SCHEDULED and t.pot.start == instant}
        for pot in sorted(starting, key=lambda pot: pot.sequence):
            tokens = self.in_pot(pot, SCHEDULED)
            for token in tokens:
                self.put(token)
            self._note(Kind.ACTIVATE, pot.id, len(tokens), instant)
        for hold in [hold for hold in self.open_holds if hold.ends_at == instant]:
            tokens = hold.tokens
            for token in tokens:
                self.give_back(token, None, instant)
            self.settle(hold, HoldExpired, instant)
            self._note(Kind.RELEASE, hold.id, len(tokens), instant)
            for pot in dict.fromkeys(token.pot for token in tokens):
                if pot.end is not None and pot.end < instant:
                    self._expire(pot, instant)
        self.expire_ended(instant)

    def expire_ended(self, now: datetime) -> None:
        ended = {t.pot for t in self.tokens if t.place == FREE and t.pot.end and t.pot.end <= now}
        for pot in sorted(ended, key=lambda pot: (pot.end, pot.sequence)):
            self._expire(pot, now)

    def _expire(self, pot: Pot, instant: datetime) -> None:
        tokens = self.in_pot(pot)
        for token in tokens:
            token.place = GONE
        if tokens:
            pot.closed = True
            self._note(Kind.EXPIRE, pot.id, len(tokens), instant)

    def _note(self, kind: Kind, id_: str, number: int, instant: datetime) -> None:
        self.unwritten.append(Event(kind, id_, number, instant))

    def settle(
        self,
        hold: Held,
        how: type[HoldAlreadyCaptured | HoldAlreadyReleased | HoldExpired],
        at: datetime,
    ) -> list[Token]:
        """Close a hold; return the tokens that it held."""
        tokens, hold.tokens = hold.tokens, []
        hold.settled, hold.settled_at = how, at
        return tokens

    # Caps.

    def capped(self, policy: Policy) -> dict[Period, int]:
        caps = policy.caps if self.caps == NO_CAPS else self.caps
        every = {Period.HOUR: caps.hour, Period.DAY: caps.day, Period.MONTH: caps.month}
        return {period: cap for period, cap in every.items() if cap is not None}

    def over_cap(self, policy: Policy, number: int, now: datetime) -> CapExceeded | None:
        for period, cap in self.capped(policy).items():
            spent = self.spent(period, now)
            if spent + self.held + number > cap:
                return CapExceeded(
                    period=period,
                    cap=cap,
                    spent=spent,
                    held=self.held,
                    required=number,
                    resets_at=window_end(period, now),
                )
        return None

    def count(self, policy: Policy, use: str, number: int, now: datetime) -> None:
        """Count a use; or nothing, if no cap applies and nothing was counted this month."""
        month = Period.MONTH
        this_month = self.counting and window(month, self.counting) == window(month, now)
        if not this_month and not self.capped(policy):
            self.counting, self.uses = None, {}
            return
        self.counting = now
        if number:
            self.uses[use] = (now, number)

    def spent(self, period: Period, now: datetime) -> int:
        wanted = window(period, now)
        return sum(number for at, number in self.uses.values() if window(period, at) == wanted)

    def uncount(self, use: str, number: int) -> None:
        if use in self.uses:
            at, counted = self.uses[use]
            self.uses[use] = (at, counted - number)

    @property
    def counted(self) -> dict[Period, dict[str, int]]:
        """What the counters show: the periods of the time of the last count."""
        at = self.counting
        if at is None:
            return {}
        return {period: {window(period, at): self.spent(period, at)} for period in Period}


def window(period: Period, at: datetime) -> str:
    """Return the name of an hour, a day or a month: a prefix of the ISO date."""
    return at.isoformat()[: {Period.HOUR: 13, Period.DAY: 10, Period.MONTH: 7}[period]]


def window_end(period: Period, at: datetime) -> datetime:
    """Return the first instant after the window of a time."""
    hour = datetime(at.year, at.month, at.day, at.hour, tzinfo=UTC)
    day = datetime(at.year, at.month, at.day, tzinfo=UTC)
    days_left = monthrange(at.year, at.month)[1] - at.day + 1
    return {
        Period.HOUR: hour + timedelta(hours=1),
        Period.DAY: day + timedelta(days=1),
        Period.MONTH: day + timedelta(days=days_left),
    }[period]


@dataclass(eq=False)
class Person:
    """One user."""

    revision: int = 0
    purses: dict[int, Purse] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)
    bought: list[tuple[int, str, str]] = field(default_factory=list)  # app, report, the USE's id

    def purse(self, app_id: int) -> Purse:
        return self.purses.setdefault(app_id, Purse())


@dataclass(frozen=True)
class Expected:
    """What an accepted command does.

    Attributes:
        kind: The kind of its own entry.
        credits: Its credits.
        effect: Its effect.
        parts: The grants and numbers of credits of its allocations.
        refunded: The purchase and its refunded credits.
    """

    kind: Kind
    credits: int
    effect: int
    parts: list[tuple[str, int]]
    refunded: tuple[str, int] | None = None


def grouped(tokens: list[Token]) -> list[tuple[str, int]]:
    """Return the parts that tokens make: neighbours of one pot are one part."""
    return [(id_, len(list(group))) for id_, group in groupby(tokens, lambda t: t.pot.id)]


def _grouped_ids(ids: list[str]) -> list[tuple[str, int]]:
    return [(id_, len(list(group))) for id_, group in groupby(ids)]


class Model:
    """All users. `apply` decides a command and moves the tokens."""

    def __init__(self) -> None:
        self.people: dict[int, Person] = {}
        self._received: list[tuple[Pot, Pot, int]] = []

    def person(self, user_id: int) -> Person:
        return self.people.setdefault(user_id, Person())

    def advance(self, now: datetime) -> None:
        """Do what is due by a time."""
        for person in self.people.values():
            for purse in person.purses.values():
                purse.advance(now)

    def apply(self, command: Command, now: datetime) -> Expected | Refusal:
        """Decide a command; a rejected one changes nothing."""
        late = command.min_available_after is not None or isinstance(command, TransferCredits)
        before = copy.deepcopy(self.people) if late else self.people
        outcome = self._apply(command, now)
        if not isinstance(outcome, Expected):
            self.people = before
            return outcome
        purse = self.person(command.user_id).purse(command.app_id)
        purse.expire_ended(now)
        least, free = command.min_available_after, len(purse.free())
        if least is not None and free < least:
            self.people = before
            return AvailableTooLow(available_after=free, required=least)
        return outcome

    def _apply(self, command: Command, now: datetime) -> Expected | Refusal:
        person = self.person(command.user_id)
        purse = person.purse(command.app_id)
        refusal = self._refers_to_nothing(command, person, purse, now)
        if refusal is not None:
            return refusal
        if command.expected_revision not in (None, person.revision):
            return RevisionChanged(revision=person.revision)
        name = f"_{type(command).__name__}"
        outcome: Expected | Refusal = getattr(self, name)(command, person, purse, now)
        return outcome

    def written(self, command: Command, entries: Sequence[Transaction]) -> None:
        """Note what the ledger wrote: the ids of all entries, the revisions, and what was due."""
        for entry in entries:
            person = self.person(entry.user_id)
            person.revision = entry.sequence
            made = Made(entry.kind, entry.app_id, entry.credits, entry.created_at)
            person.made.setdefault(entry.id, made)
        self.person(command.user_id).purse(command.app_id).unwritten.clear()
        if isinstance(command, TransferCredits):
            self.person(command.to_user_id).purse(command.to_app_id).unwritten.clear()

    def received(self, command: TransferCredits, entries: list[Transaction]) -> None:
        """Note the ids of the entries by which a transfer arrived."""
        person = self.person(command.to_user_id)
        for entry, (copied, joined, size) in zip(entries, self._received, strict=True):
            copied.id = entry.id
            assert entry.credits == size
            person.made[entry.id] = Made(
                Kind.TRANSFER_IN, command.to_app_id, size, entry.created_at, pot=joined
            )

    # References.

    def _refers_to_nothing(
        self, command: Command, person: Person, purse: Purse, now: datetime
    ) -> Refusal | None:
        made = person.made.get(command.reference)
        if made is not None and made.app_id != command.app_id:
            made = None
        match command:
            case GrantCredits():
                start, end = self._span(command, now)
                if end is not None and end <= start:
                    return ExpiresTooEarly(expires_at=end, starts_at=start)
            case VoidGrant(grant_id=id_):
                if made is None or made.kind not in (Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN):
                    return GrantNotFound(grant_id=id_)
                if not self._left_of(purse, id_):
                    return GrantEmpty(grant_id=id_)
            case CaptureHold(hold_id=id_) | ReleaseHold(hold_id=id_) | ExtendHold(hold_id=id_):
                hold = purse.holds.get(id_)
                if hold is None:
                    return HoldNotFound(hold_id=id_)
                if hold.settled is not None:
                    assert hold.settled_at is not None
                    return hold.settled(
                        captured=hold.captured,
                        released=hold.placed - hold.captured,
                        settled_at=hold.settled_at,
                    )
                if isinstance(command, ExtendHold):
                    limit = timedelta(days=7)
                    if now + command.expires_after > hold.placed_at + limit:
                        return HoldLifeExceeded(limit_seconds=604800, placed_at=hold.placed_at)
            case ReverseTransaction(reversed_id=id_):
                if made is None:
                    return TransactionNotFound(transaction_id=id_)
                reversible = (Kind.USE, Kind.ADD, Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN)
                if made.kind not in reversible:
                    return NotReversible(kind=made.kind)
            case _:
                pass
        return None

    def _left_of(self, purse: Purse, grant_id: str) -> list[Token]:
        return [t for t in purse.tokens if t.pot.id == grant_id and t.place in (FREE, SCHEDULED)]

    def _span(self, command: GrantCredits, now: datetime) -> tuple[datetime, datetime | None]:
        start = now
        if command.effective_at is not None and command.effective_at > now:
            start = command.effective_at
        if command.expires_after is not None:
            return start, start + command.expires_after
        return start, command.expires_at

    # Commands.

    def _Add(self, command: Add, person: Person, purse: Purse, now: datetime) -> Expected:  # noqa: N802
        for _ in range(command.credits):
            purse.put(Token(purse.base, FREE))
        made = Made(Kind.ADD, command.app_id, command.credits, now)
        person.made[command.transaction_id] = made
        parts = [("", command.credits)]
        return Expected(Kind.ADD, command.credits, command.credits, parts)

    def _Use(  # noqa: N802
        self, command: Use, person: Person, purse: Purse, now: datetime
    ) -> Expected | Refusal:
        if command.once and (owned := self._owned(person, command)):
            return AlreadyPurchased(purchase_id=owned)
        if refusal := purse.over_cap(command.policy, command.credits, now):
            return refusal
        tokens = purse.free()
        if len(tokens) < command.credits:
            return InsufficientCredits(available=len(tokens), required=command.credits)
        return self._bought(command, person, purse, tokens[: command.credits], now)

    def _owned(self, person: Person, command: Use) -> str:
        """Return a purchase of the report that is not refunded in full."""
        for app_id, report_id, id_ in person.bought:
            made = person.made[id_]
            if (app_id, report_id) == (command.app_id, command.report_id) and (
                made.reversed < made.credits
            ):
                return made.purchase_id
        return ""

    def _bought(
        self,
        command: Use | CaptureHold,
        person: Person,
        purse: Purse,
        tokens: list[Token],
        now: datetime,
    ) -> Expected:
        id_ = command.transaction_id
        for token in tokens:
            token.take(id_)
        purse.count(command.policy, id_, len(tokens), now)
        person.made[id_] = Made(
            Kind.USE,
            command.app_id,
            len(tokens),
            now,
            tokens=tokens,
            purchase_id=command.purchase_id,
        )
        person.bought.append((command.app_id, command.report_id, id_))
        return Expected(Kind.USE, len(tokens), -len(tokens), grouped(tokens))

    def _GrantCredits(  # noqa: N802
        self, command: GrantCredits, person: Person, purse: Purse, now: datetime
    ) -> Expected | Refusal:
        start, end = self._span(command, now)
        id_, number = command.transaction_id, command.credits
        sequence = person.revision + len(purse.unwritten) + 1
        pot = Pot(id_, sequence, command.priority, command.category, start, end)
        debt = min(purse.debt, number)
        kind = Kind.GRANT if start == now else Kind.SCHEDULE
        if kind is Kind.SCHEDULE:
            if len(purse.pots()) >= GRANTS_MAX:
                return GrantsFull(limit=GRANTS_MAX)
            purse.tokens += [Token(pot, SCHEDULED) for _ in range(number)]
            parts, effect = [(id_, number)], 0
        else:
            joined = purse.new(pot, number)
            if joined is None:
                return GrantsFull(limit=GRANTS_MAX)
            pot = joined
            parts, effect = _grouped_ids([""] * debt + [pot.id] * (number - debt)), number
        person.made[id_] = Made(kind, command.app_id, number, now, pot=pot)
        return Expected(kind, number, effect, parts)

    def _VoidGrant(  # noqa: N802
        self, command: VoidGrant, person: Person, purse: Purse, now: datetime
    ) -> Expected:
        tokens = self._left_of(purse, command.grant_id)
        pot, number = tokens[0].pot, len(tokens)
        effect = -number if tokens[0].place == FREE else 0
        for token in tokens:
            token.place = GONE
        if effect:
            pot.end = now
        # What was taken has ended with its grant: it does not become spendable by a refund.
        for token in purse.tokens:
            if token.pot is pot:
                token.end_when_taken = now
        pot.closed = True
        return Expected(Kind.VOID, number, effect, [(pot.id, number)])

    def _PlaceHold(  # noqa: N802
        self, command: PlaceHold, person: Person, purse: Purse, now: datetime
    ) -> Expected | Refusal:
        tokens = purse.free()
        number = command.credits
        if command.allow_partial:
            number = min(number, len(tokens))
        if refusal := purse.over_cap(command.policy, number, now):
            return refusal
        if number == 0 or number > len(tokens):
            return InsufficientCredits(available=len(tokens), required=command.credits)
        if len(purse.open_holds) >= HOLDS_MAX:
            return HoldsFull(limit=HOLDS_MAX)
        id_, taken = command.transaction_id, tokens[:number]
        parts = grouped(taken)
        for token in taken:
            token.take(id_)
        ends_at = now + (command.expires_after or timedelta(minutes=15))
        purse.holds[id_] = Held(id_, taken, now, ends_at, number)
        person.made[id_] = Made(Kind.HOLD, command.app_id, number, now)
        return Expected(Kind.HOLD, number, -number, parts)

    def _CaptureHold(  # noqa: N802
        self, command: CaptureHold, person: Person, purse: Purse, now: datetime
    ) -> Expected | Refusal:
        hold = purse.holds[command.hold_id]
        price = command.credits or len(hold.tokens)
        excess = max(0, price - len(hold.tokens))
        if excess and not command.allow_excess:
            return HoldExceeded(held=len(hold.tokens), required=price)
        free = purse.free()
        if excess:
            if refusal := purse.over_cap(command.policy, excess, now):
                return refusal
            if excess > len(free):
                return InsufficientCredits(available=len(free), required=excess)
        tokens = hold.tokens[:price]
        hold.tokens = hold.tokens[price:]
        hold.captured += len(tokens)
        if command.final or not hold.tokens:
            self._given(purse, hold.tokens, None, now)
            purse.settle(hold, HoldAlreadyCaptured, now)
        return self._bought(command, person, purse, tokens + free[:excess], now)

    def _ReleaseHold(  # noqa: N802
        self, command: ReleaseHold, person: Person, purse: Purse, now: datetime
    ) -> Expected:
        hold = purse.holds[command.hold_id]
        tokens = hold.tokens
        ids = self._given(purse, tokens, None, now)
        purse.settle(hold, HoldAlreadyReleased, now)
        return Expected(Kind.RELEASE, len(tokens), len(tokens), _grouped_ids(ids))

    def _given(
        self, purse: Purse, tokens: list[Token], restore_until: datetime | None, now: datetime
    ) -> list[str]:
        """Return tokens to their pots; return where each of them went: a debt is base credits."""
        ids = []
        for token in tokens:
            pays = purse.give_back(token, restore_until, now)
            ids.append("" if pays else token.pot.id)
        return ids

    def _ExtendHold(  # noqa: N802
        self, command: ExtendHold, person: Person, purse: Purse, now: datetime
    ) -> Expected:
        hold = purse.holds[command.hold_id]
        hold.ends_at = now + command.expires_after
        number = len(hold.tokens)
        return Expected(Kind.EXTEND, number, 0, [("", number)])

    def _ReverseTransaction(  # noqa: N802
        self, command: ReverseTransaction, person: Person, purse: Purse, now: datetime
    ) -> Expected | Refusal:
        made = person.made[command.reversed_id]
        if made.kind is Kind.USE:
            return self._refund(command, made, purse, now)
        return self._revoke(command, made, purse)

    def _refund(
        self, command: ReverseTransaction, made: Made, purse: Purse, now: datetime
    ) -> Expected | Refusal:
        rest = made.credits - made.reversed
        number = command.credits or rest
        if not 0 < number <= rest:
            return ReversalExceeds(reversible=rest, required=command.credits)
        tokens = made.tokens[made.reversed : made.reversed + number]
        present = purse.pots()
        coming = set()
        for token in tokens:
            end = token.end_when_taken
            if end is not None and end <= now and command.restore_until is not None:
                end = command.restore_until
            if token.pot.id and token.pot not in present and (end is None or end > now):
                coming.add(token.pot)
        if len(present) + len(coming) > GRANTS_MAX:
            return GrantsFull(limit=GRANTS_MAX)
        made.reversed += number
        ids = self._given(purse, tokens, command.restore_until, now)
        purse.uncount(command.reversed_id, number)
        refunded = (made.purchase_id, made.reversed)
        return Expected(Kind.REFUND, number, number, _grouped_ids(ids), refunded)

    def _revoke(self, command: ReverseTransaction, made: Made, purse: Purse) -> Expected | Refusal:
        pot = made.pot or purse.base
        places = (FREE, SCHEDULED)
        tokens = [t for t in purse.tokens if t.pot is pot and t.place in places]
        if pot.closed and pot.id == command.reversed_id:
            tokens = []
        rest = made.credits - made.reversed if tokens else 0
        number = command.credits or min(rest, len(tokens))
        if not 0 < number <= rest:
            return ReversalExceeds(reversible=rest, required=command.credits)
        if number > len(tokens):
            return InsufficientCredits(available=len(tokens), required=number)
        made.reversed += number
        effect = -number if tokens[0].place == FREE else 0
        for token in tokens[:number]:
            token.place = GONE
        return Expected(Kind.REVOKE, number, effect, [(pot.id, number)])

    def _TransferCredits(  # noqa: N802
        self, command: TransferCredits, person: Person, purse: Purse, now: datetime
    ) -> Expected | Refusal:
        tokens = purse.free()
        number = command.credits
        if number > len(tokens):
            return InsufficientCredits(available=len(tokens), required=number)
        goal_person = self.person(command.to_user_id)
        goal = goal_person.purse(command.to_app_id)
        parts = []
        for pot, group in groupby(tokens[:number], lambda token: token.pot):
            moved = list(group)
            parts.append((pot, len(moved)))
            for token in moved:
                token.place = GONE
        self._received = []
        sequence = goal_person.revision + len(goal.unwritten)
        if goal_person is person:
            sequence += len(purse.unwritten) + 1
        for pot, size in parts:
            sequence += 1
            if not pot.id:
                for _ in range(size):
                    goal.put(Token(goal.base, FREE))
                self._received.append((Pot(), goal.base, size))
                continue
            # The id is not known yet: see `received`.
            copied = Pot(f"{sequence}", sequence, pot.priority, pot.category, None, pot.end)
            joined = goal.new(copied, size)
            if joined is None:
                return GrantsFull(limit=GRANTS_MAX)
            self._received.append((copied, joined, size))
        sizes = [(pot.id, size) for pot, size in parts]
        return Expected(Kind.TRANSFER_OUT, number, -number, sizes)

    def _AdjustBalance(  # noqa: N802
        self, command: AdjustBalance, person: Person, purse: Purse, now: datetime
    ) -> Expected | Refusal:
        delta = command.delta
        if delta > 0:
            for _ in range(delta):
                purse.put(Token(purse.base, FREE))
            return Expected(Kind.ADJUST, delta, delta, [("", delta)])
        tokens = purse.free()
        if -delta > len(tokens) and not command.policy.allow_negative:
            return InsufficientCredits(available=len(tokens), required=-delta)
        taken = tokens[:-delta]
        ids = [token.pot.id for token in taken] + [""] * (-delta - len(taken))
        for token in taken:
            token.place = GONE
        purse.debt += -delta - len(taken)
        return Expected(Kind.ADJUST, -delta, delta, _grouped_ids(ids))

    def _SetSpendingCap(  # noqa: N802
        self, command: SetSpendingCap, person: Person, purse: Purse, now: datetime
    ) -> Expected:
        purse.caps = command.caps
        purse.count(command.policy, "", 0, now)
        caps = [command.caps.hour, command.caps.day, command.caps.month]
        least = min([cap for cap in caps if cap is not None], default=2**32 - 1)
        return Expected(Kind.CAP, least, 0, [("", least)])

    def _SetAlert(  # noqa: N802
        self, command: SetAlert, person: Person, purse: Purse, now: datetime
    ) -> Expected | Refusal:
        alert = Alert(credits=command.credits, direction=command.direction)
        if (alert in purse.alerts) is not command.remove:
            return AlertUnchanged(revision=person.revision)
        if command.remove:
            purse.alerts.remove(alert)
        elif len(purse.alerts) == ALERTS_MAX:
            return TooManyAlerts(limit=ALERTS_MAX)
        else:
            purse.alerts.add(alert)
        return Expected(Kind.ALERT, command.credits, 0, [("", command.credits)])

    def _Settle(  # noqa: N802
        self, command: Settle, person: Person, purse: Purse, now: datetime
    ) -> Expected | Refusal:
        if not purse.unwritten:
            return NothingDue()
        return Expected(Kind.CAP, 0, 0, [])
