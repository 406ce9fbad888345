"""A history of commands in memory, with the look-ups that the commit layer makes in the store."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from credit_models.ledger import (
    Accepted,
    Account,
    Add,
    AppAccount,
    Command,
    GrantCredits,
    Kind,
    Lookup,
    Outcome,
    PlaceHold,
    Purchase,
    Transaction,
    Use,
    decide,
    settle,
)

NOON = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)


class History:
    """What a store keeps: accounts, entries and purchases of all users."""

    def __init__(self, users: Iterable[int]) -> None:
        self.accounts = {user_id: Account.empty(user_id) for user_id in users}
        self.entries: dict[int, list[Transaction]] = {user_id: [] for user_id in self.accounts}
        self.purchases: dict[str, Purchase] = {}

    def lookup(self, command: Command) -> Lookup:
        """Return what a command must know."""
        entries = self.entries[command.user_id]
        owned = [
            purchase
            for purchase in self.purchases.values()
            if (purchase.user_id, purchase.app_id, purchase.report_id) == command.once_key
            and purchase.refunded_credits < purchase.credits
        ]
        referenced = _last(e for e in entries if e.id == command.reference)
        return Lookup(
            earlier=_last(e for e in entries if command.key and self._has_key(e, command)),
            referenced=referenced,
            latest_related=_last(
                e
                for e in entries
                if command.reference and e.details.related_id == command.reference
            ),
            voided={
                e.details.related_id: e.created_at
                for e in entries
                if e.kind is Kind.VOID
                and referenced is not None
                and e.sequence > referenced.sequence
                and e.details.related_id in parts(referenced)
            },
            owned_purchase=owned[0] if owned else None,
        )

    def _has_key(self, entry: Transaction, command: Command) -> bool:
        return (entry.app_id, entry.key) == (command.app_id, command.key)

    def decide(self, command: Command, now: datetime) -> Outcome:
        """Return the outcome of a command."""
        target = self.accounts[command.users[-1]] if len(command.users) > 1 else None
        account, lookup = self.accounts[command.user_id], self.lookup(command)
        return decide(account, command, lookup, now, target=target)

    def write(self, outcome: Accepted) -> None:
        """Write the effects of a command, and check what holds for all of them."""
        for account in outcome.accounts:
            self.accounts[account.user_id] = account
        for entry in outcome.transactions:
            entries = self.entries[entry.user_id]
            entries.append(entry)
            assert entry.sequence == len(entries)
            before = sum(e.effect for e in entries if e.app_id == entry.app_id)
            assert entry.balance_after == before
        if outcome.purchase is not None:
            assert outcome.purchase.id == outcome.main.purchase_id
            self.purchases[outcome.purchase.id] = outcome.purchase
        if outcome.refunded is not None:
            purchase = self.purchases[outcome.refunded.purchase_id]
            credits_ = outcome.refunded.refunded_credits
            assert purchase.refunded_credits < credits_ <= purchase.credits
            self.purchases[purchase.id] = replace(purchase, refunded_credits=credits_)
        for account in outcome.accounts:
            assert account.revision == len(self.entries[account.user_id])
        main = outcome.main
        account = self.accounts[main.user_id]
        assert main in self.entries[main.user_id]
        assert (main.final_revision, main.final_balance) == (
            account.revision,
            account.balance(main.app_id),
        )


def _last(items: Iterable[Transaction]) -> Transaction | None:
    return next(iter(reversed(list(items))), None)


class Ledger(History):
    """A history with a clock, whose commands are of the user 7 in the app 1 unless they set others.

    The id of an entry is the `id` that the test gives its command.
    """

    def __init__(self) -> None:
        super().__init__((7, 8, 9))
        self.now = NOON
        self._number = 0

    def wait(self, **span: float) -> None:
        """Move the clock; the arguments are those of `timedelta`."""
        self.now += timedelta(**span)

    def common(self, id: str = "") -> dict[str, Any]:  # noqa: A002 - the attribute's name
        """Return the arguments that all commands have."""
        self._number += 1
        id_ = id or f"t{self._number}"
        return {"user_id": 7, "app_id": 1, "created_by": 3, "key": "", "transaction_id": id_}

    def do(self, call: type[Command], id: str = "", **arguments: Any) -> Transaction:  # noqa: A002
        """Write a command that is accepted; return its own entry."""
        outcome = self.outcome(call, id, **arguments)
        assert isinstance(outcome, Accepted), outcome
        self.write(outcome)
        return outcome.main

    def outcome(self, call: type[Command], id: str = "", **arguments: Any) -> Outcome:  # noqa: A002
        """Return the outcome of a command, and write nothing."""
        return self.decide(call(**{**self.common(id), **arguments}), self.now)

    def add(self, credits_: int, id: str = "", **arguments: Any) -> Transaction:  # noqa: A002
        return self.do(Add, id, credits=credits_, **arguments)

    def grant(self, credits_: int, id: str = "", **arguments: Any) -> Transaction:  # noqa: A002
        return self.do(GrantCredits, id, credits=credits_, **arguments)

    def use(self, credits_: int, id: str = "", **arguments: Any) -> Transaction:  # noqa: A002
        return self.do(Use, id, credits=credits_, **self.report(), **arguments)

    def hold(self, credits_: int, id: str = "", **arguments: Any) -> Transaction:  # noqa: A002
        return self.do(PlaceHold, id, credits=credits_, **arguments)

    def report(self, report: str = "r") -> dict[str, Any]:
        """Return the arguments of a purchase."""
        return {"report_id": report, "report_name": "R", "purchase_id": f"p{self._number + 1}"}

    @property
    def account(self) -> Account:
        """The account as it is now, with what is due."""
        return settle(self.accounts[7], self.now).account

    @property
    def app(self) -> AppAccount:
        """What the account keeps for the app."""
        return self.account.apps.get(1, AppAccount())

    @property
    def balance(self) -> int:
        """The balance in the app."""
        return self.account.balance(1)

    @property
    def left(self) -> dict[str, int]:
        """What is left of each grant, in burn order."""
        return {grant.id: grant.left for grant in self.app.grants}

    @property
    def kinds(self) -> list[str]:
        """The kinds of all entries of the user."""
        return [entry.kind.value for entry in self.entries[7]]


def parts(entry: Transaction) -> dict[str, int]:
    """Return the credits of an entry by grant; those of the empty id are base credits."""
    return {part.grant_id: part.credits for part in entry.details.allocations}
