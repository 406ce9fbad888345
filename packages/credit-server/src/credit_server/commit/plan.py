"""Plans one batch: commands in the order of their arrival in, outcomes and all changes out."""

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
class Known:
    """Transactions that are known to be in the history, to be found by key and by id."""

    by_key: dict[AppKey, Transaction] = field(default_factory=dict)
    by_id: dict[str, Transaction] = field(default_factory=dict)

    def add(self, entries: Iterable[Transaction]) -> None:
        """Take in transactions."""
        for entry in entries:
            self.by_id[entry.id] = entry
            if entry.key:
                self.by_key[entry.user_id, entry.app_id, entry.key] = entry

    def find(self, command: Command) -> Transaction | None:
        """Return the transaction that a command made, or that an earlier one with its key made."""
        made = self.by_id.get(command.transaction_id)
        if made is None and command.key:
            return self.by_key.get((command.user_id, command.app_id, command.key))
        return made


@dataclass(kw_only=True, slots=True)
class Plan:
    """What a batch comes to.

    Attributes:
        outcomes: One for each command, in their order.
        accounts: The accounts that change, as they are afterwards.
        transactions: New entries, in order.
        purchases: New purchases, in order.
        totals: By how much each app's total changes.
        rests_on_balances: Whether a refusal rests on a balance that was read or remembered:
            remembered ones must be read, and the keys looked up, before it is true.
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
    known: Known,
    now: datetime,
    latest: datetime | None = None,
) -> Plan:
    """Decide a batch in memory.

    A key that comes twice in one batch needs no care of its own: what the first one writes is
    known to the second. If the first is refused, the second is a new request, as the contract says.

    Args:
        commands: In the order of their arrival.
        accounts: The account of every user among them.
        known: Earlier transactions with their keys or ids.
        now: The time, UTC, in whole milliseconds.
        latest: The latest time that an entry may have; None: there is no limit.
    """
    result = Plan()
    fresh = Known()
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
            case _:  # a transaction's key decided: transactions never change
                pass
        result.outcomes.append(outcome)
    return result
