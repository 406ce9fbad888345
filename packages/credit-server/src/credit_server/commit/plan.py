"""Plan one batch: decide its commands in the order of arrival, and collect all changes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from credit_server.ledger import (
    Accepted,
    Account,
    BalanceOverflow,
    Command,
    InsufficientCredits,
    Kind,
    Outcome,
    Purchase,
    TooManyApps,
    Transaction,
    decide,
)
from credit_server.store.port import AppKey


@dataclass(kw_only=True, slots=True)
class DedupIndex:
    """An index of committed transactions, by key and by id, to detect retries."""

    by_key: dict[AppKey, Transaction] = field(default_factory=dict)
    by_id: dict[str, Transaction] = field(default_factory=dict)

    def add(self, entries: Iterable[Transaction]) -> None:
        """Add transactions."""
        for entry in entries:
            self.by_id[entry.id] = entry
            if entry.key:
                self.by_key[entry.user_id, entry.app_id, entry.key] = entry

    def find(self, command: Command) -> Transaction | None:
        """Return the transaction of this command, or of an earlier one with its key."""
        made = self.by_id.get(command.transaction_id)
        if made is None and command.key:
            return self.by_key.get((command.user_id, command.app_id, command.key))
        return made


@dataclass(kw_only=True, slots=True)
class Plan:
    """The result of a batch.

    Attributes:
        outcomes: One for each command, in their order.
        accounts: The changed accounts.
        transactions: New entries, in order.
        purchases: New purchases, in order.
        totals: The change of each app's total.
        rests_on_balances: Whether a refusal rests on a balance. A cached balance must be read, and
            the keys looked up, before the refusal is certain.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    accounts: dict[int, Account] = field(default_factory=dict)
    transactions: list[Transaction] = field(default_factory=list)
    purchases: list[Purchase] = field(default_factory=list)
    totals: dict[int, int] = field(default_factory=dict)
    rests_on_balances: bool = False

    def _accept(self, accepted: Accepted) -> None:
        entry = accepted.transaction
        self.accounts[entry.user_id] = accepted.account
        self.transactions.append(entry)
        if accepted.purchase is not None:
            self.purchases.append(accepted.purchase)
        delta = entry.credits if entry.kind is Kind.ADD else -entry.credits
        self.totals[entry.app_id] = self.totals.get(entry.app_id, 0) + delta


def plan(
    commands: Sequence[Command],
    accounts: Mapping[int, Account],
    known: DedupIndex,
    now: datetime,
    latest: datetime | None = None,
) -> Plan:
    """Decide a batch in memory.

    A key that is in a batch twice needs no special case: the second command finds the first one's
    transaction. If the first is rejected, the second is a new request, as the contract defines.

    Args:
        commands: The commands, in the order of arrival.
        accounts: The account of each of their users.
        known: Earlier transactions with their keys or ids.
        now: The time, UTC, in whole milliseconds.
        latest: The latest time that an entry may have; None: there is no limit.
    """
    result = Plan()
    fresh = DedupIndex()
    for command in commands:
        account = result.accounts.get(command.user_id) or accounts[command.user_id]
        earlier = known.find(command) or fresh.find(command)
        outcome = decide(account, command, earlier, now, latest)
        match outcome:
            case Accepted():
                result._accept(outcome)  # noqa: SLF001 - a plan is made here and read elsewhere
                fresh.add([outcome.transaction])
            case InsufficientCredits() | BalanceOverflow() | TooManyApps():
                result.rests_on_balances = True
            case _:  # decided by the key: transactions never change
                pass
        result.outcomes.append(outcome)
    return result
