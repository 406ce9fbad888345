"""Write the entries of a history, also those that are due by time, with their sums."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from credit_models import TransactionType

from credit_testing.accounts.model import BASE, Account, App, Entry, Fact, Lot, OpenHold, Piece

NameOf = Callable[[int, int], str]
"""Returns the id of the entry of a user with a sequence."""


class Book:
    """Writes entries, and applies them to copies of accounts.

    Attributes:
        now: The time of all entries.
        accounts: The accounts, by user.
        entries: The new entries, by user.
    """

    def __init__(self, accounts: Mapping[int, Account], now: datetime, name: NameOf) -> None:
        self.now = now
        self.accounts = {user: account.copy() for user, account in accounts.items()}
        self.entries: dict[int, list[Entry]] = {user: [] for user in accounts}
        self._name = name
        self._balances: dict[tuple[int, int], int] = {}

    def app(self, user: int, app_id: int) -> App:
        """Return what a user has in an app, to change it."""
        app = self.accounts[user].apps.get(app_id) or App()
        self._balances.setdefault((user, app_id), app.balance)
        # An app belongs to the account once it has an entry.
        return app

    def next_id(self, user: int, ahead: int = 1) -> str:
        """Return the id of the next entry of a user, or of one after it."""
        return self._name(user, self.accounts[user].sequence + ahead)

    # Any: the further fields of an entry.
    def write(
        self,
        user: int,
        app_id: int,
        app: App,
        type_: TransactionType,
        credits: int,  # noqa: A002 - the contract's word
        effect: int,
        **more: Any,
    ) -> Entry:
        """Write an entry. The balance that it shows is the sum of the effects."""
        account = self.accounts[user]
        account.apps[app_id] = app
        self._balances[user, app_id] += effect
        entry = Entry(
            id=self.next_id(user),
            user_id=user,
            app_id=app_id,
            sequence=account.sequence + 1,
            type=type_,
            credits=credits,
            effect=effect,
            balance=self._balances[user, app_id],
            at=self.now,
            **more,
        )
        account.sequence += 1
        account.latest_at = self.now
        account.facts[entry.id] = Fact(
            type=type_, app_id=app_id, credits=credits, sequence=entry.sequence
        )
        self.entries[user].append(entry)
        return entry

    def note(self, user: int, id_: str, **changes: Any) -> None:
        """Change what is remembered of an entry. Any: the fields of `Fact`."""
        facts = self.accounts[user].facts
        if id_ in facts:
            facts[id_] = replace(facts[id_], **changes)

    def settle(self, user: int, app_id: int, floor: datetime | None = None) -> None:
        """Write what is due in an app.

        Args:
            user: The user.
            app_id: The app.
            floor: The earliest time at which it can have taken effect; None: there is none.
        """
        if app_id not in self.accounts[user].apps:
            return
        app = self.app(user, app_id)
        while (event := app.next_event(self.now)) is not None:
            instant, kind, _, id_ = event
            instant = instant if floor is None else max(instant, floor)
            if kind == 0:
                self._start(user, app_id, app, app.lots[id_], instant)
            elif kind == 1:
                self._end_hold(user, app_id, app, app.holds[id_], instant)
            else:
                self._expire(user, app_id, app, app.lots[id_], instant)
        app.forget_empty_lots()

    def close(self) -> None:
        """Check that the model itself is sound: the effects of the entries are what has changed."""
        for (user, app_id), balance in self._balances.items():
            app = self.accounts[user].app(app_id)
            assert app.balance == balance, f"the model of {user} in {app_id}: {app}, not {balance}"
            app.forget_empty_lots()

    def _start(self, user: int, app_id: int, app: App, lot: Lot, instant: datetime) -> None:
        del app.lots[lot.terms.id]
        given = app.place(replace(lot, starts_at=None))
        assert given is not None
        self.write(
            *(user, app_id, app, TransactionType.ACTIVATE, lot.left, lot.left),
            related_id=lot.terms.id,
            allocations=shown(given),
            effective_at=instant,
            created_by=lot.created_by,
        )

    def _expire(self, user: int, app_id: int, app: App, lot: Lot, instant: datetime) -> None:
        app.lots[lot.terms.id] = replace(lot, left=0)
        self.note(user, lot.terms.id, closed=True)
        self.write(
            *(user, app_id, app, TransactionType.EXPIRE, lot.left, -lot.left),
            related_id=lot.terms.id,
            allocations=((lot.terms.id, lot.left),),
            effective_at=instant,
            created_by=lot.created_by,
        )

    def _end_hold(
        self, user: int, app_id: int, app: App, hold: OpenHold, instant: datetime
    ) -> None:
        del app.holds[hold.id]
        given = app.put(hold.pieces, instant, hold.created_by)
        self.write(
            *(user, app_id, app, TransactionType.RELEASE, hold.held, hold.held),
            related_id=hold.id,
            allocations=shown(given),
            effective_at=instant,
            created_by=hold.created_by,
        )
        settled = ("HOLD_EXPIRED", hold.captured, hold.held, instant)
        self.note(user, hold.id, settled=settled)
        for terms, _ in given:
            lot = app.lots.get(terms.id)
            ends_at = None if lot is None else lot.terms.ends_at
            if lot is not None and lot.left and ends_at is not None and ends_at < instant:
                self._expire(user, app_id, app, lot, instant)


def shown(pieces: Sequence[Piece]) -> tuple[tuple[str, int], ...]:
    """Return pieces as an entry shows them: not at all if none is of a grant."""
    if all(terms.id == BASE for terms, _ in pieces):
        return ()
    return tuple((terms.id, credits_) for terms, credits_ in pieces)


def as_of(account: Account, now: datetime) -> tuple[Account, list[Entry]]:
    """Return an account as reads show it at a time, and what is due; nothing is written."""
    book = Book({account.user_id: account}, now, lambda user, sequence: f"due-{user}-{sequence}")
    for app_id in sorted(account.apps):
        book.settle(account.user_id, app_id)
    settled = book.accounts[account.user_id]
    settled.sequence = account.sequence
    return settled, book.entries[account.user_id]
