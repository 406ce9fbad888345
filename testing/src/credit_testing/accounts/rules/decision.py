"""The state that the rules of all calls share: the request, account, checks and entries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from credit_models import CaptureHoldRequest, CreditRequest, PurchaseRequest, TransactionType

from credit_testing.accounts.book import Book, NameOf, shown
from credit_testing.accounts.model import (
    PERIODS,
    UINT32_MAX,
    Account,
    App,
    Bought,
    Entry,
    Fact,
    Piece,
    period_end,
    period_start,
)
from credit_testing.accounts.policies import AppRules
from credit_testing.accounts.rules.requests import Write, users_of

APPS_MAX = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


class Rejected(Exception):
    """Raised to end a prediction with a rejection."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


def reject(reason: str, **metadata: object) -> Rejected:
    """Return the exception that ends a prediction with a rejection."""
    texts = {name: str(value) for name, value in metadata.items()}
    return Rejected(Refused(reason, tuple(sorted(texts.items()))))


class Decision:
    """One request at one time, and the helpers that the rules of several calls share.

    Attributes:
        request: The request.
        now: The time.
        rules: The policy of its app.
        user: The user who sends it.
        stored: Their account before it.
        book: Writes the new entries.
        app: What the user has in the app; a rule changes it.
    """

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

    def result(self, rule: Callable[["Decision"], Entry]) -> Decided:
        """Return the answer to an accepted request.

        Args:
            rule: Writes what the call is about, and returns its own entry.

        Raises:
            Rejected: The request is rejected.
        """
        main = rule(self)
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
            raise short(available, required)

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


def short(available: int, required: int) -> Rejected:
    """Return the exception for a balance with too few credits."""
    return reject(
        "INSUFFICIENT_CREDITS",
        available=available,
        required=required,
        shortfall=required - available,
    )


def milliseconds(time: datetime) -> int:
    """Return a time as metadata show it."""
    return max(0, (time - _EPOCH) // timedelta(milliseconds=1))
