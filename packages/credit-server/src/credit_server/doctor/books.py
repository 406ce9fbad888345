"""A spot check of the books: do the latest accounts add up, and have they no gap?"""

from collections.abc import Sequence

from credit_server.doctor.finding import Finding, fails, ok
from credit_server.ledger import Kind
from credit_server.store.sample import Sampled

_CHECK = "books (spot check)"

_SHOWN_MAX = 5
"""How many of the differences are told: one is enough to stop and look."""


def check_books(sample: Sequence[Sampled]) -> Finding:
    """Judge a sample of the books. It says nothing about accounts that are not in the sample."""
    if not sample:
        return ok(_CHECK, "there are no transactions yet")
    faults = [fault for entry in sample if (fault := account_fault(entry))]
    if not faults:
        entries = sum(len(entry.latest) for entry in sample)
        return ok(
            _CHECK,
            f"accounts touched last: {len(sample)}, their latest transactions: {entries};"
            " all add up, without a gap",
        )
    more = f"; and {len(faults) - _SHOWN_MAX} more" if len(faults) > _SHOWN_MAX else ""
    return fails(
        _CHECK,
        "; ".join(faults[:_SHOWN_MAX]) + more,
        "stop the servers, keep a backup as it is, and find out who wrote to the database; nothing"
        " of this server's own writes such books",
    )


def unread(reason: str) -> Finding:
    """Make the finding of books that could not be read."""
    return fails(_CHECK, reason, "look at MongoDB's log; nothing is known of the books")


def account_fault(entry: Sampled) -> str:
    """Say what in an account must never be; empty when all is well.

    The history is followed backwards from the balances: each transaction must have left the
    balance that is known after it, and what was there before it follows.
    """
    who = f"user {entry.user_id}"
    if entry.unreadable:
        return f"{who}: a document cannot be read ({entry.unreadable})"
    if entry.account is None:
        return f"{who}: there is history and no account"
    balances = dict(entry.account.balances)
    expected = entry.account.revision
    for transaction in entry.latest:
        if transaction.sequence != expected:
            return f"{who}: sequence {transaction.sequence} is where {expected} should be"
        app_id, balance = transaction.app_id, balances.get(transaction.app_id, 0)
        if transaction.balance_after != balance:
            left = transaction.balance_after
            return f"{who}: sequence {expected} left {left} in app {app_id}, not {balance}"
        sign = 1 if transaction.kind is Kind.ADD else -1
        balances[app_id] = balance - sign * transaction.credits
        expected -= 1
    if expected and not entry.latest:
        return f"{who}: there is no history, where {expected} transactions should be"
    if not expected and any(balances.values()):
        return f"{who}: the history does not add up to the balances"
    return ""
