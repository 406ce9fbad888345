"""Replay the histories of all users, to get the model's state after each entry."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from credit_models import (
    CreditTransaction,
    Purchase,
    Receipt,
    RemoveAlertRequest,
    SetAlertRequest,
    TransactionType,
)

from credit_testing.accounts.book import Book
from credit_testing.accounts.journal import Call, Journal, Kind, Read
from credit_testing.accounts.model import Account, Entry, Limit
from credit_testing.accounts.policies import AppRules, Policies, applicable
from credit_testing.accounts.rules.decide import decide
from credit_testing.accounts.rules.decision import Decided, Refused
from credit_testing.accounts.rules.requests import Write, apps_of, differing_fields, users_of


class Inexplicable(Exception):
    """No order of the requests and of due changes explains the histories."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertChange:
    """A request that sets or removes an alert of a user, and when it was first sent."""

    began: int
    request: SetAlertRequest | RemoveAlertRequest

    @property
    def limit(self) -> Limit:
        """The alert."""
        return self.request.credits, self.request.direction

    def applied(self, alerts: frozenset[Limit]) -> frozenset[Limit]:
        """Return the alerts after the request."""
        if isinstance(self.request, SetAlertRequest):
            return alerts | {self.limit}
        return alerts - {self.limit}


@dataclass(kw_only=True, slots=True)
class History:
    """What happened to one user.

    Attributes:
        shown: All transactions, as the last list shows them.
        purchases: All purchases.
        entries: The same transactions, as the model has them.
        states: The state after so many entries; None within a group that was written together.
        asked: When the request of each entry was first sent; 0 for entries without a request.
    """

    shown: Sequence[CreditTransaction]
    purchases: Sequence[Purchase]
    entries: list[Entry] = field(default_factory=list)
    states: list[Account | None]
    asked: list[int] = field(default_factory=list)

    def purchase_id(self, entry_id: str) -> str:
        """Return the id of the purchase that an entry paid for."""
        return next((one.purchase_id for one in self.shown if one.id == entry_id), "")

    def hash(self, entry_id: str) -> bytes:
        """Return the hash of an entry."""
        return next((one.hash for one in self.shown if one.id == entry_id), b"")


class Replay:
    """The histories of all users.

    A group of entries was written together: the due entries, and the request's own ones. A transfer
    between users is a group in two histories.
    """

    def __init__(
        self,
        journal: Journal,
        users: Sequence[int],
        policies: Policies,
        *,
        clocks_differ: bool = False,
        alert_changes: Sequence[AlertChange] = (),
    ) -> None:
        """Replay all histories.

        Args:
            journal: All calls; the last ones read everything.
            users: All users.
            policies: The policies of apps.
            clocks_differ: Whether entries with the same time may be in different groups. A server
                with a slow clock gives its entries the time of the latest entry.
            alert_changes: The changes to alerts of users. They have no keys, so `created_by`
                identifies each of them.

        Raises:
            Inexplicable: The requests and time cannot explain them.
        """
        self.policies = policies
        self._clocks_differ = clocks_differ
        self.histories = {
            user: History(
                shown=_last(journal, Kind.TRANSACTIONS, user),
                purchases=_last(journal, Kind.PURCHASES, user),
                states=[Account(user_id=user)],
            )
            for user in users
        }
        self._accounts = {user: Account(user_id=user) for user in users}
        self._sent = journal.sent()
        self._alert_changes = {change.request.created_by: change for change in alert_changes}
        self._obstacles: dict[int, str] = {}
        while any(self._advance(user) for user in users):
            pass
        stuck = [user for user in users if self._rest(user)]
        if stuck:
            raise Inexplicable("\n".join(self._obstacles[user] for user in stuck))
        for user, history in self.histories.items():
            for before, after in itertools.pairwise(history.entries):
                if after.at < before.at:
                    raise Inexplicable(f"user {user}: {after} is older than the entry before it")

    def name(self, user: int, sequence: int) -> str:
        """Return the id of an entry."""
        shown = self.histories[user].shown
        return shown[sequence - 1].id if 0 < sequence <= len(shown) else f"?{user}.{sequence}"

    def _rest(self, user: int) -> Sequence[CreditTransaction]:
        return self.histories[user].shown[self._accounts[user].sequence :]

    def _advance(self, user: int) -> bool:
        """Explain the next group of a user; return whether it could be explained."""
        rest = self._rest(user)
        if not rest:
            return False
        at = rest[0].created_at
        own = next(
            (
                entry
                for entry in rest
                if entry.created_at != at
                or entry.idempotency_key
                or entry.type is TransactionType.ALERT
            ),
            None,
        )
        predictions: list[object] = []
        if own is not None and own.created_at == at and own.type is TransactionType.ALERT:
            if self._changes_alert(own, predictions):
                return True
        elif own is not None and own.created_at == at:
            key = (user, own.app_id, own.idempotency_key)
            # Of requests that differ only in their conditions, the one with the receipt made it.
            sent = self._sent.get(key, [])
            for call, request in sorted(sent, key=partial(_has_no_receipt, own.id)):
                for rules in applicable(self.policies, (own.app_id,), call.began):
                    if self._explains(request, rules, own, predictions):
                        return True
        return self._is_due(user, rest[0], predictions)

    def _explains(
        self,
        request: Write,
        rules: Mapping[int, AppRules],
        own: CreditTransaction,
        predictions: list[object],
    ) -> bool:
        assert own.created_at is not None
        accounts = {user: self._accounts[user] for user in users_of(request)}
        predicted = decide(accounts, request, own.created_at, rules, self.name)
        predictions.append(predicted if isinstance(predicted, Refused) else dict(predicted.entries))
        if isinstance(predicted, Refused) or predicted.replayed:
            return False
        if not all(self._matches(user, new) for user, new in predicted.entries.items()):
            return False
        calls = self._sent[own.user_id, own.app_id, own.idempotency_key]
        asked = min(call.began for call, sent in calls if not differing_fields(sent, request))
        self._take(predicted, asked)
        users, apps = users_of(request), apps_of(request)
        places = (users[0], apps[0]), (users[-1], apps[-1])
        self._take_due_before(accounts, places, own.created_at)
        return True

    def _changes_alert(self, own: CreditTransaction, predictions: list[object]) -> bool:
        """Explain an entry that sets or removes an alert, and the entries due before it."""
        assert own.created_at is not None
        change = self._alert_changes.get(own.created_by)
        if change is None or own.app_id != change.request.app_id:
            return False
        user, app_id = own.user_id, own.app_id
        accounts = {user: self._accounts[user]}
        book = Book(accounts, own.created_at, self.name)
        book.settle(user, app_id)
        app = book.app(user, app_id)
        alerts = change.applied(app.alerts)
        if alerts == app.alerts:
            return False
        app.alerts = alerts
        main = book.write(
            *(user, app_id, app, TransactionType.ALERT, change.request.credits, 0),
            created_by=own.created_by,
        )
        predictions.append(book.entries[user])
        if not self._matches(user, book.entries[user]):
            return False
        decided = Decided(main=main, accounts=book.accounts, entries=book.entries)
        self._take(decided, change.began)
        self._take_due_before(accounts, ((user, app_id),), own.created_at)
        return True

    def _take_due_before(
        self,
        accounts: Mapping[int, Account],
        places: Sequence[tuple[int, int]],
        at: datetime,
    ) -> None:
        """Add the states that include the entries due at the time of a request, if there are any.

        A sweeper may have written these entries before the request was decided.

        Args:
            accounts: The accounts before the request.
            places: The users and apps that were settled.
            at: The time of the entries.
        """
        if not self._clocks_differ:
            return
        book = Book(accounts, at, self.name)
        for user, app_id in dict.fromkeys(places):
            since = book.accounts[user].sequence
            book.settle(user, app_id)
            due = book.accounts[user].copy()
            if due.sequence > since:
                history = self.histories[user]
                history.states[due.sequence] = due
                history.asked[since : due.sequence] = [0] * (due.sequence - since)

    def _is_due(self, user: int, first: CreditTransaction, predictions: list[object]) -> bool:
        """Explain due entries: of a sweeper, or written before a request's own ones."""
        assert first.created_at is not None
        book = Book({user: self._accounts[user]}, first.created_at, self.name)
        book.settle(user, first.app_id)
        due = book.entries[user]
        if due and self._matches(user, due):
            self._take(Decided(main=due[-1], accounts=book.accounts, entries=book.entries), 0)
            return True
        sequence = self._accounts[user].sequence + 1
        self._obstacles[user] = (
            f"user {user}: entry {sequence} is {first}, where the model predicts"
            f" {predictions or due or 'nothing'}"
        )
        return False

    def _matches(self, user: int, new: Sequence[Entry]) -> bool:
        there = [as_shown(entry) for entry in self._rest(user)[: len(new)]]
        return there == [replace(entry, held=0, released=0) for entry in new]

    def _take(self, predicted: Decided, asked: int) -> None:
        for user, new in predicted.entries.items():
            history = self.histories[user]
            history.entries += new
            history.asked += [asked] * len(new)
            history.states += [None] * len(new)
            account = predicted.accounts[user]
            if new:
                history.states[account.sequence] = account
            self._accounts[user] = account


def as_shown(entry: CreditTransaction) -> Entry:
    """Return an entry of a list in the form of the model."""
    assert entry.created_at is not None
    return Entry(
        id=entry.id,
        user_id=entry.user_id,
        app_id=entry.app_id,
        sequence=entry.sequence,
        type=entry.type,
        credits=entry.credits,
        effect=entry.effect,
        balance=entry.balance_after - entry.owed_after,
        at=entry.created_at,
        created_by=entry.created_by,
        key=entry.idempotency_key,
        note=entry.note,
        metadata=tuple(sorted(entry.metadata.items())),
        related_id=entry.related_id,
        effective_at=entry.effective_at,
        expires_at=entry.expires_at,
        allocations=tuple((part.grant_id, part.credits) for part in entry.allocations),
        report=(entry.report_id, entry.report_name),
    )


def purchase_findings(replay: Replay) -> Iterator[str]:
    """Yield users whose purchases are not those that were paid for, refunds included."""
    for user, history in replay.histories.items():
        state = history.states[-1]
        assert state is not None
        paid = [(bought.entry, bought.refunded) for bought in state.bought.values()]
        expected = [
            (
                *(entry.id, entry.sequence, entry.at, entry.user_id, entry.app_id, entry.credits),
                *(entry.created_by, *entry.report, refunded, history.purchase_id(entry.id)),
            )
            for entry, refunded in paid
        ]
        there = [
            (
                *(one.transaction_id, one.sequence, one.created_at, one.user_id, one.app_id),
                *(one.credits, one.created_by, one.report_id, one.report_name),
                *(one.refunded_credits, one.id),
            )
            for one in history.purchases
        ]
        if there != expected:
            yield f"user {user}: the purchases are {there}, and paid were {expected}"


def _has_no_receipt(transaction_id: str, sent: tuple[Call, Write]) -> bool:
    """Return whether a request was not answered with the receipt of a transaction."""
    call, request = sent
    return not any(
        one == request and isinstance(answer, Receipt) and answer.transaction_id == transaction_id
        for one, answer in call.writes()
    )


# Any: the rows of a list, transactions or purchases.
def _last(journal: Journal, kind: Kind, user: int) -> list[Any]:
    found: list[Call] = [
        call
        for call in journal.calls
        if isinstance(call.question, Read)
        and (call.question.kind, call.question.user_id) == (kind, user)
    ]
    answer = found[-1].answer if found else None
    if not isinstance(answer, list):
        raise Inexplicable(f"user {user}: {kind.value} cannot be read: {answer}")
    return answer
