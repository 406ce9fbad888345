"""Predict the answer to any write, from the entries before it and the time.

The order of the rejections is that of the contract's option `errors`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import betterproto2
from credit_models import (
    AdjustBalanceRequest,
    CaptureHoldRequest,
    CreditRequest,
    ExtendHoldRequest,
    GrantCreditsRequest,
    PlaceHoldRequest,
    PurchaseRequest,
    ReleaseHoldRequest,
    ReverseTransactionRequest,
    SetSpendingCapRequest,
    SpendingCaps,
    TransactionType,
    TransferCreditsRequest,
    VoidGrantRequest,
)

from tests.fuzz.account_book import Book, NameOf, shown
from tests.fuzz.account_model import (
    BASE,
    LIVE_MAX,
    PERIODS,
    UINT32_MAX,
    Account,
    App,
    Bought,
    Entry,
    Fact,
    Lot,
    OpenHold,
    Piece,
    Terms,
    period_end,
    period_start,
    split,
    total,
)

APPS_MAX = 1000
HOLD_DEFAULT, HOLD_MAX = timedelta(minutes=15), timedelta(days=7)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Write = (
    CreditRequest
    | PurchaseRequest
    | GrantCreditsRequest
    | VoidGrantRequest
    | PlaceHoldRequest
    | CaptureHoldRequest
    | ReleaseHoldRequest
    | ExtendHoldRequest
    | ReverseTransactionRequest
    | TransferCreditsRequest
    | AdjustBalanceRequest
    | SetSpendingCapRequest
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AppRules:
    """The policy of an app."""

    caps: Mapping[str, int] = field(default_factory=dict)
    allow_negative: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The request was rejected: the contract's reason, and the metadata."""

    reason: str
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """The request was accepted, now or before.

    Attributes:
        main: Its own entry.
        replayed: Whether that was written before.
        accounts: The accounts after it, by user.
        entries: All new entries, by user.
    """

    main: Entry
    replayed: bool = False
    accounts: Mapping[int, Account] = field(default_factory=dict)
    entries: Mapping[int, list[Entry]] = field(default_factory=dict)


class _Rejected(Exception):
    """Ends a prediction."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


def reject(reason: str, **metadata: object) -> _Rejected:
    """Return the exception that ends a prediction with a rejection."""
    texts = {name: str(value) for name, value in metadata.items()}
    return _Rejected(Refused(reason, tuple(sorted(texts.items()))))


def users_of(request: Write) -> tuple[int, ...]:
    """Return the users whose accounts a request concerns; the first one sends it."""
    assert request.user_id is not None
    if isinstance(request, TransferCreditsRequest):
        return tuple(dict.fromkeys((request.user_id, request.to_user_id or request.user_id)))
    return (request.user_id,)


def decide(
    accounts: Mapping[int, Account],
    request: Write,
    now: datetime,
    rules: Mapping[int, AppRules],
    name: NameOf,
) -> Decided | Refused:
    """Return the answer that a request has at a time.

    Args:
        accounts: The accounts of its users, as the entries before it left them.
        request: The request, valid by the contract's constraints.
        now: The time.
        rules: The policies of apps that have one.
        name: Returns the ids of new entries.
    """
    account = accounts[users_of(request)[0]]
    known = account.keys.get((request.app_id, request.idempotency_key))
    if known is not None and request.idempotency_key:
        earlier, entry = known
        differing = differing_fields(earlier, request)
        if differing:
            return Refused("IDEMPOTENCY_KEY_REUSED", (("fields", ",".join(differing)),))
        return Decided(main=entry, replayed=True)
    decision = _Decision(accounts, request, now, rules.get(request.app_id, AppRules()), name)
    try:
        return decision.result()
    except _Rejected as rejected:
        return rejected.refused


_SAME = {"user_id", "app_id", "idempotency_key", "validate_only"}


def differing_fields(earlier: Any, later: Any) -> list[str]:
    """Return the fields that differ, in the contract's order. Any: two requests of any types."""
    if type(earlier) is not type(later):
        return ["call"]
    names = [entry.name for entry in fields(later) if entry.name not in _SAME]
    return [name for name in names if _meaning(earlier, name) != _meaning(later, name)]


def _meaning(request: Any, name: str) -> object:
    """Return the value of a field, or what the contract defines for an unset one."""
    value = getattr(request, name)
    if value is not None:
        return value
    defaults = {
        "priority": 500,
        "final": True,
        "caps": SpendingCaps(),
        "to_user_id": getattr(request, "user_id", None),
        "to_app_id": request.app_id,
    }
    return defaults.get(name)


class _Decision:
    """One request at one time: each method is the rule of one call."""

    def __init__(
        self,
        accounts: Mapping[int, Account],
        request: Write,
        now: datetime,
        rules: AppRules,
        name: NameOf,
    ) -> None:
        self.request = request
        self.now = now
        self.rules = rules
        self.user = users_of(request)[0]
        self.stored = accounts[self.user]
        self.book = Book({user: accounts[user] for user in users_of(request)}, now, name)
        self.book.settle(self.user, request.app_id)
        self.app = self.book.app(self.user, request.app_id)

    def result(self) -> Decided:
        main = _RULES[type(self.request)](self)
        book, request = self.book, self.request
        book.settle(self.user, request.app_id, floor=self.now)
        required = request.min_available_after
        if required is not None and self.app.available < required:
            raise reject("AVAILABLE_TOO_LOW", available_after=self.app.available, required=required)
        book.close()
        final = (book.accounts[self.user].sequence, self.app.balance)
        written = book.entries[self.user]
        position = written.index(main)
        main = written[position] = replace(main, final=final)
        keys = book.accounts[self.user].keys
        if request.idempotency_key:
            keys[request.app_id, request.idempotency_key] = (request, main)
        return Decided(main=main, accounts=book.accounts, entries=book.entries)

    # What several rules share.

    def fact(self, id_: str, missing: str, name: str) -> Fact:
        """Return what is known of an entry of the user in the app."""
        fact = self.book.accounts[self.user].facts.get(id_)
        if fact is None or fact.app_id != self.request.app_id:
            raise reject(missing, **{name: id_})
        return fact

    def revision(self) -> None:
        expected = self.request.expected_revision
        if expected is not None and expected != self.stored.sequence:
            raise reject("REVISION_CHANGED", revision=self.stored.sequence)

    def room(self, user: int, app_id: int, app: App, credits: int) -> None:  # noqa: A002
        if app.coming + credits > UINT32_MAX:
            raise reject("BALANCE_OVERFLOW", balance=app.coming, credits=credits)
        self.new_app(user, app_id)

    def new_app(self, user: int, app_id: int) -> None:
        apps = self.book.accounts[user].apps
        if app_id not in apps and len(apps) >= APPS_MAX:
            raise reject("TOO_MANY_APPS", limit=APPS_MAX)

    def enough(self, required: int) -> None:
        available = self.app.available
        if required > available:
            raise _short(available, required)

    def caps(self) -> Mapping[str, int]:
        return self.app.caps or self.rules.caps

    def within_caps(self, required: int) -> None:
        for period in PERIODS:
            cap = self.caps().get(period)
            spent, held = self.app.spent_in(period, self.now), self.app.held
            if cap is not None and spent + held + required > cap:
                raise reject(
                    "CAP_EXCEEDED",
                    period=period,
                    cap=cap,
                    spent=spent,
                    held=held,
                    required=required,
                    resets_at=milliseconds(period_end(period, self.now)),
                )

    def count(self, credits: int) -> None:  # noqa: A002 - the contract's word
        """Count used credits, if there is a cap or anything was counted this month."""
        app = self.app
        this_month = app.spent and app.spent["month"][0] == period_start("month", self.now)
        if not this_month and not self.caps():
            app.spent = {}
            return
        if not app.spent:
            app.since = self.book.accounts[self.user].sequence + 1
        app.spent = {
            period: (period_start(period, self.now), app.spent_in(period, self.now) + credits)
            for period in PERIODS
        }

    # Any: the further fields of an entry.
    def write(
        self,
        type_: TransactionType,
        credits: int,  # noqa: A002 - the contract's word
        effect: int,
        **more: Any,
    ) -> Entry:
        """Write the request's own entry."""
        request = self.request
        if not isinstance(request, CreditRequest | PurchaseRequest):
            more = {
                "note": request.note,
                "metadata": tuple(sorted(request.metadata.items())),
                **more,
            }
        return self.book.write(
            *(self.user, request.app_id, self.app, type_, credits, effect),
            created_by=request.created_by,
            key=request.idempotency_key,
            **more,
        )

    def buy(self, pieces: tuple[Piece, ...], price: int, **more: Any) -> Entry:
        """Write the USE of a purchase."""
        request = self.request
        assert isinstance(request, PurchaseRequest | CaptureHoldRequest)
        self.count(price)
        report = (request.report_id, request.report_name)
        allocations = shown(pieces)
        main = self.write(
            TransactionType.USE, price, -price, allocations=allocations, report=report, **more
        )
        self.book.note(self.user, main.id, pieces=pieces)
        self.book.accounts[self.user].bought[main.id] = Bought(entry=main)
        return main


def _short(available: int, required: int) -> _Rejected:
    return reject(
        "INSUFFICIENT_CREDITS",
        available=available,
        required=required,
        shortfall=required - available,
    )


def milliseconds(time: datetime) -> int:
    """Return a time as metadata show it."""
    return max(0, (time - _EPOCH) // timedelta(milliseconds=1))


# Any, from here on: the request has the type of the rule.
def _add(on: _Decision) -> Entry:
    request: Any = on.request
    on.revision()
    on.room(on.user, request.app_id, on.app, request.credits)
    on.app.base += request.credits
    return on.write(TransactionType.ADD, request.credits, request.credits)


def _use(on: _Decision) -> Entry:
    request: Any = on.request
    on.revision()
    if request.once:
        owned = [
            bought
            for bought in on.stored.bought.values()
            if bought.entry.app_id == request.app_id
            and bought.entry.report[0] == request.report_id
            and bought.refunded < bought.entry.credits
        ]
        if owned:
            raise reject("ALREADY_PURCHASED", purchase_of=owned[-1].entry.id)
    on.within_caps(request.credits)
    on.enough(request.credits)
    return on.buy(on.app.take(request.credits), request.credits)


def _grant(on: _Decision) -> Entry:
    request: Any = on.request
    starts_at = max(request.effective_at or on.now, on.now)
    ends_at = request.expires_at
    if request.expires_after_seconds is not None:
        ends_at = starts_at + timedelta(seconds=request.expires_after_seconds)
    if ends_at is not None and ends_at <= starts_at:
        raise reject(
            "EXPIRES_TOO_EARLY",
            expires_at=milliseconds(ends_at),
            starts_at=milliseconds(starts_at),
        )
    on.revision()
    on.room(on.user, request.app_id, on.app, request.credits)
    terms = Terms(
        id=on.book.next_id(on.user),
        age=on.book.accounts[on.user].sequence + 1,
        priority=500 if request.priority is None else request.priority,
        category=request.category,
        ends_at=ends_at,
    )
    lot = Lot(
        terms=terms,
        credits=request.credits,
        left=request.credits,
        created_by=request.created_by,
        starts_at=starts_at if starts_at > on.now else None,
    )
    given: list[Piece] | None
    if lot.starts_at is None:
        given = on.app.place(lot)
    elif len(on.app.lots) >= LIVE_MAX:
        given = None
    else:
        on.app.lots[terms.id] = lot
        given = [(terms, lot.left)]
    if given is None:
        raise reject("GRANTS_FULL", limit=LIVE_MAX)
    later = lot.starts_at is not None
    main = on.write(
        TransactionType.SCHEDULE if later else TransactionType.GRANT,
        request.credits,
        0 if later else request.credits,
        allocations=shown(given),
        effective_at=lot.starts_at,
        expires_at=ends_at,
    )
    on.book.note(on.user, main.id, lot=_home(given))
    return main


def _home(given: list[Piece]) -> str:
    """Return the grant to which credits were added; `BASE` for none."""
    return next((terms.id for terms, _ in given if terms.id != BASE), BASE)


_PLACING = (TransactionType.GRANT, TransactionType.SCHEDULE, TransactionType.TRANSFER_IN)


def _void(on: _Decision) -> Entry:
    request: Any = on.request
    fact = on.fact(request.grant_id, "GRANT_NOT_FOUND", "grant_id")
    if fact.type not in _PLACING:
        raise reject("GRANT_NOT_FOUND", grant_id=request.grant_id)
    lot = on.app.lots.get(request.grant_id)
    if lot is None or not lot.left:
        raise reject("GRANT_EMPTY", grant_id=request.grant_id)
    on.revision()
    later = lot.starts_at is not None
    # What holds return to it expires at once, so it has ended.
    ended = replace(lot.terms, ends_at=on.now)
    on.app.lots[request.grant_id] = replace(lot, left=0, terms=ended, starts_at=None)
    on.book.note(on.user, request.grant_id, closed=True)
    facts = on.book.accounts[on.user].facts
    for id_, used in facts.items():
        if any(terms.id == request.grant_id for terms, _ in used.pieces):
            # A refund of what it paid for finds it ended.
            facts[id_] = replace(used, pieces=_ended_pieces(used.pieces, ended))
    return on.write(
        TransactionType.VOID,
        lot.left,
        0 if later else -lot.left,
        related_id=request.grant_id,
        allocations=((request.grant_id, lot.left),),
    )


def _ended_pieces(pieces: tuple[Piece, ...], ended: Terms) -> tuple[Piece, ...]:
    return tuple(
        (replace(terms, ends_at=ended.ends_at) if terms.id == ended.id else terms, credits_)
        for terms, credits_ in pieces
    )


def _place_hold(on: _Decision) -> Entry:
    request: Any = on.request
    on.revision()
    available = on.app.available
    held = min(request.credits, available) if request.allow_partial else request.credits
    on.within_caps(held)
    if not held:
        raise _short(available, request.credits)
    on.enough(held)
    if len(on.app.holds) >= LIVE_MAX:
        raise reject("HOLDS_FULL", limit=LIVE_MAX)
    after = request.expires_after_seconds
    ends_at = on.now + (HOLD_DEFAULT if after is None else timedelta(seconds=after))
    hold = OpenHold(
        id=on.book.next_id(on.user),
        age=on.book.accounts[on.user].sequence + 1,
        pieces=on.app.take(held),
        placed_at=on.now,
        ends_at=ends_at,
        created_by=request.created_by,
        purpose=request.purpose,
    )
    on.app.holds[hold.id] = hold
    return on.write(
        TransactionType.HOLD,
        held,
        -held,
        allocations=shown(hold.pieces),
        expires_at=ends_at,
        held=held,
    )


def _open_hold(on: _Decision, id_: str) -> OpenHold:
    hold = on.app.holds.get(id_)
    if hold is not None:
        return hold
    fact = on.fact(id_, "HOLD_NOT_FOUND", "hold_id")
    if fact.type is not TransactionType.HOLD:
        raise reject("HOLD_NOT_FOUND", hold_id=id_)
    assert fact.settled is not None
    reason, captured, released, at = fact.settled
    raise reject(reason, captured=captured, released=released, settled_at=milliseconds(at))


def _capture(on: _Decision) -> Entry:
    request: Any = on.request
    hold = _open_hold(on, request.hold_id)
    on.revision()
    price = request.credits or hold.held
    excess = max(0, price - hold.held)
    if excess and not request.allow_excess:
        raise reject("HOLD_EXCEEDED", held=hold.held, required=price)
    if excess:
        on.within_caps(excess)
    on.enough(excess)
    captured, rest = split(hold.pieces, price)
    # The terms of a grant may have changed since it was held; it is live as long as it is.
    captured = tuple(
        (terms if terms.id == BASE else on.app.lots[terms.id].terms, credits_)
        for terms, credits_ in captured
    )
    keeps = request.final is False and bool(rest)
    more = on.app.take(excess)
    freed = () if keeps else rest
    if keeps:
        on.app.holds[hold.id] = replace(hold, pieces=rest, captured=hold.captured + total(captured))
    else:
        del on.app.holds[hold.id]
    kept = total(rest) if keeps else 0
    given = on.app.put(freed, on.now, request.created_by)
    back = total(captured) + total(given)
    on.book.write(
        *(on.user, request.app_id, on.app, TransactionType.RELEASE, back, back),
        related_id=hold.id,
        allocations=shown([*captured, *given]),
        created_by=request.created_by,
    )
    main = on.buy((*captured, *more), price, related_id=hold.id, held=kept, released=total(freed))
    if not keeps:
        so_far = hold.captured + total(captured)
        placed = on.book.accounts[on.user].facts[hold.id].credits
        settled = ("HOLD_ALREADY_CAPTURED", so_far, placed - so_far, on.now)
        on.book.note(on.user, hold.id, settled=settled)
    return main


def _release(on: _Decision) -> Entry:
    request: Any = on.request
    hold = _open_hold(on, request.hold_id)
    on.revision()
    del on.app.holds[hold.id]
    given = on.app.put(hold.pieces, on.now, request.created_by)
    settled = ("HOLD_ALREADY_RELEASED", hold.captured, hold.held, on.now)
    on.book.note(on.user, hold.id, settled=settled)
    return on.write(
        TransactionType.RELEASE,
        hold.held,
        hold.held,
        related_id=hold.id,
        allocations=shown(given),
        released=hold.held,
    )


def _extend(on: _Decision) -> Entry:
    request: Any = on.request
    hold = _open_hold(on, request.hold_id)
    ends_at = on.now + timedelta(seconds=request.expires_after_seconds)
    if ends_at > hold.placed_at + HOLD_MAX:
        limit = int(HOLD_MAX.total_seconds())
        raise reject(
            "HOLD_LIFE_EXCEEDED", limit_seconds=limit, placed_at=milliseconds(hold.placed_at)
        )
    on.revision()
    on.app.holds[hold.id] = replace(hold, ends_at=ends_at)
    return on.write(
        TransactionType.EXTEND,
        hold.held,
        0,
        related_id=hold.id,
        expires_at=ends_at,
        held=hold.held,
    )


_ADDED = (TransactionType.ADD, *_PLACING)


def _reverse(on: _Decision) -> Entry:
    request: Any = on.request
    fact = on.fact(request.transaction_id, "TRANSACTION_NOT_FOUND", "transaction_id")
    if fact.type is not TransactionType.USE and fact.type not in _ADDED:
        raise reject("NOT_REVERSIBLE", type=fact.type.name)
    on.revision()
    if fact.type is TransactionType.USE:
        return _refund(on, request, fact)
    return _revoke(on, request, fact)


def _refund(on: _Decision, request: Any, fact: Fact) -> Entry:
    left = fact.credits - fact.taken_back
    credits_ = request.credits or left
    if not 0 < credits_ <= left:
        raise reject("REVERSAL_EXCEEDS", reversible=left, required=request.credits or 0)
    if on.app.coming + credits_ > UINT32_MAX:
        raise reject("BALANCE_OVERFLOW", balance=on.app.coming, credits=credits_)
    _, open_ = split(fact.pieces, fact.taken_back)
    back, _ = split(open_, credits_)
    until = request.restore_until
    gone = {
        terms.id
        for terms, _ in back
        if terms.id != BASE and terms.id not in on.app.lots and not _ended(terms, on.now, until)
    }
    if gone and len(on.app.lots) + len(gone) > LIVE_MAX:
        raise reject("GRANTS_FULL", limit=LIVE_MAX)
    given = on.app.put(back, on.now, request.created_by, until)
    if fact.sequence >= on.app.since:
        used_at = on.stored.bought[request.transaction_id].entry.at
        on.app.spent = {
            period: (start, spent - credits_ * (start == period_start(period, used_at)))
            for period, (start, spent) in on.app.spent.items()
        }
    refunded = fact.taken_back + credits_
    on.book.note(on.user, request.transaction_id, taken_back=refunded)
    bought = on.book.accounts[on.user].bought
    bought[request.transaction_id] = replace(bought[request.transaction_id], refunded=refunded)
    return on.write(
        TransactionType.REFUND,
        credits_,
        credits_,
        related_id=request.transaction_id,
        allocations=shown(given),
    )


def _ended(terms: Terms, now: datetime, until: datetime | None) -> bool:
    ends_at = terms.ends_at
    if ends_at is None or ends_at > now:
        return False
    return until is None or until <= now


def _revoke(on: _Decision, request: Any, fact: Fact) -> Entry:
    lot = None
    if fact.lot == BASE:
        there = max(0, on.app.base)
    else:
        lot = None if fact.closed else on.app.lots.get(fact.lot)
        there = 0 if lot is None else lot.left
    left = fact.credits - fact.taken_back if there else 0
    credits_ = request.credits or min(left, there)
    if not 0 < credits_ <= left:
        raise reject("REVERSAL_EXCEEDS", reversible=left, required=request.credits or 0)
    if credits_ > there:
        raise _short(there, credits_)
    later = lot is not None and lot.starts_at is not None
    if lot is None:
        on.app.base -= credits_
    else:
        on.app.lots[fact.lot] = replace(lot, left=lot.left - credits_)
    on.book.note(on.user, request.transaction_id, taken_back=fact.taken_back + credits_)
    return on.write(
        TransactionType.REVOKE,
        credits_,
        0 if later else -credits_,
        related_id=request.transaction_id,
        allocations=() if lot is None else ((fact.lot, credits_),),
    )


def _transfer(on: _Decision) -> Entry:
    request: Any = on.request
    to_user = request.to_user_id or request.user_id
    to_app = request.to_app_id or request.app_id
    on.book.settle(to_user, to_app)
    on.revision()
    on.enough(request.credits)
    there = on.book.app(to_user, to_app)
    on.room(to_user, to_app, there, request.credits)
    pieces = on.app.take(request.credits)
    main = on.write(
        TransactionType.TRANSFER_OUT,
        request.credits,
        -request.credits,
        related_id=on.book.next_id(to_user, 2 if to_user == on.user else 1),
        allocations=shown(pieces),
    )
    for terms, credits_ in pieces:
        id_, age = on.book.next_id(to_user), on.book.accounts[to_user].sequence + 1
        given: list[Piece] | None
        if terms.id == BASE:
            there.base += credits_
            given = [(terms, credits_)]
        else:
            lot = Lot(
                terms=replace(terms, id=id_, age=age),
                credits=credits_,
                left=credits_,
                created_by=request.created_by,
            )
            given = there.place(lot)
        if given is None:
            raise reject("GRANTS_FULL", limit=LIVE_MAX)
        received = on.book.write(
            *(to_user, to_app, there, TransactionType.TRANSFER_IN, credits_, credits_),
            related_id=main.id,
            allocations=shown(given),
            expires_at=terms.ends_at,
            created_by=request.created_by,
        )
        on.book.note(to_user, received.id, lot=_home(given))
    return main


def _adjust(on: _Decision) -> Entry:
    request: Any = on.request
    on.revision()
    credits_ = abs(request.delta)
    pieces: tuple[Piece, ...] = ()
    if request.delta > 0:
        on.room(on.user, request.app_id, on.app, credits_)
        on.app.base += credits_
    else:
        least = -UINT32_MAX if on.rules.allow_negative else 0
        if on.app.balance - credits_ < least:
            raise _short(on.app.available, credits_)
        on.new_app(on.user, request.app_id)
        pieces = on.app.take(min(credits_, on.app.available))
        debt = credits_ - total(pieces)
        on.app.base -= debt
        pieces += ((Terms(), debt),) if debt else ()
    return on.write(TransactionType.ADJUST, credits_, request.delta, allocations=shown(pieces))


def _set_cap(on: _Decision) -> Entry:
    request: Any = on.request
    on.revision()
    on.new_app(on.user, request.app_id)
    caps = request.caps or SpendingCaps()
    on.app.caps = caps_of(caps)
    on.count(0)
    least = min(on.app.caps.values(), default=UINT32_MAX)
    return on.write(TransactionType.CAP, least, 0)


def caps_of(caps: SpendingCaps) -> dict[str, int]:
    """Return the caps of a message by period."""
    given = {"hour": caps.per_hour, "day": caps.per_day, "month": caps.per_month}
    return {period: cap for period, cap in given.items() if cap is not None}


_RULES: Mapping[type[betterproto2.Message], Callable[[_Decision], Entry]] = {
    CreditRequest: _add,
    PurchaseRequest: _use,
    GrantCreditsRequest: _grant,
    VoidGrantRequest: _void,
    PlaceHoldRequest: _place_hold,
    CaptureHoldRequest: _capture,
    ReleaseHoldRequest: _release,
    ExtendHoldRequest: _extend,
    ReverseTransactionRequest: _reverse,
    TransferCreditsRequest: _transfer,
    AdjustBalanceRequest: _adjust,
    SetSpendingCapRequest: _set_cap,
}
