"""A spot check of the books: do the latest accounts and apps add up, and have they no gap?"""

from collections.abc import Iterator

from credit_server.doctor.finding import Finding, fails, ok, warning
from credit_server.ledger import Account, Kind, Purchase, Transaction
from credit_server.store.sample import AppSum, LedgerSample, SampledAccount

_CHECK = "books (spot check)"

_SHOWN_MAX = 5
"""How many of the differences are told: one is enough to stop and look."""


def check_books(sample: LedgerSample) -> Finding:
    """Judge a sample of the books. It says nothing about accounts that are not in the sample."""
    if not sample.accounts:
        return ok(_CHECK, "there are no transactions yet")
    faults = [
        fault
        for fault in (*map(account_fault, sample.accounts), *map(app_fault, sample.apps))
        if fault
    ]
    if not faults:
        return ok(_CHECK, f"{_looked_at(sample)}; all add up, without a gap{_left_out(sample)}")
    more = f"; and {len(faults) - _SHOWN_MAX} more" if len(faults) > _SHOWN_MAX else ""
    return fails(
        _CHECK,
        "; ".join(faults[:_SHOWN_MAX]) + more + _left_out(sample),
        "stop the servers, keep a backup as it is, and find out who wrote to the database; nothing"
        " of this server's own writes such books",
    )


def unread(reason: str) -> Finding:
    """Make the finding of books that could not be read."""
    return fails(_CHECK, reason, "look at MongoDB's log; nothing is known of the books")


def not_looked_at(reason: str) -> Finding:
    """Make the finding of books that cannot be judged before something else is mended."""
    return warning(_CHECK, f"were not looked at: {reason}", "mend that first")


def account_fault(entry: SampledAccount) -> str:
    """Say what in an account must never be; empty when all is well."""
    who = f"user {entry.user_id}"
    if entry.unreadable:
        return f"{who}: a document cannot be read ({entry.unreadable})"
    if entry.account is None:
        return f"{who}: there is history and no account"
    faults = (*_history(entry, entry.account), *_extent(entry, entry.account), *_bought(entry))
    return f"{who}: {faults[0]}" if faults else ""


def app_fault(app: AppSum) -> str:
    """Say how an app's total differs from what its users hold; empty when it does not."""
    if app.total == app.held:
        return ""
    return f"app {app.app_id}: its total is {app.total}, and all users hold {app.held}"


def _history(entry: SampledAccount, account: Account) -> Iterator[str]:
    """Follow the history backwards from the balances.

    Each transaction must have left the balance that is known after it, and what was there before it
    follows.
    """
    balances = dict(account.balances)
    expected = account.revision
    for transaction in entry.latest:
        if transaction.sequence != expected:
            yield f"sequence {transaction.sequence} is where {expected} should be"
            return
        app_id, balance = transaction.app_id, balances.get(transaction.app_id, 0)
        if transaction.balance_after != balance:
            left = transaction.balance_after
            yield f"sequence {expected} left {left} in app {app_id}, not {balance}"
            return
        sign = 1 if transaction.kind is Kind.ADD else -1
        balances[app_id] = balance - sign * transaction.credits
        expected -= 1
    if expected and not entry.latest:
        yield f"there is no history, where {expected} transactions should be"
    if not expected and any(balances.values()):
        yield "the history does not add up to the balances"


def _extent(entry: SampledAccount, account: Account) -> Iterator[str]:
    """Compare the history's begin and length; what is older than the sample has no gap either."""
    if entry.first_sequence > 1:
        yield f"the history begins with sequence {entry.first_sequence}, not 1"
    if entry.transactions not in (None, account.revision):
        yield f"there are {entry.transactions} transactions, where {account.revision} should be"


def _bought(entry: SampledAccount) -> Iterator[str]:
    """Compare what was paid for with what was bought."""
    bought = {purchase.sequence: purchase for purchase in entry.purchases}
    for paid in entry.latest:
        purchase = bought.pop(paid.sequence, None)
        if paid.kind is Kind.ADD:
            if purchase is not None:
                yield f"sequence {paid.sequence} adds credits, and there is a purchase of it"
        elif purchase is None:
            yield f"sequence {paid.sequence} paid for a purchase that is not there"
        elif not _fits(paid, purchase):
            yield f"sequence {paid.sequence} and its purchase tell different things"
    for sequence in sorted(bought):
        yield f"there is a purchase of sequence {sequence}, which is not there"


def _fits(paid: Transaction, purchase: Purchase) -> bool:
    both = ("app_id", "credits", "report_id", "report_name", "created_at", "created_by")
    return (purchase.id, purchase.transaction_id) == (paid.purchase_id, paid.id) and all(
        getattr(purchase, name) == getattr(paid, name) for name in both
    )


def _looked_at(sample: LedgerSample) -> str:
    entries = sum(len(entry.latest) for entry in sample.accounts)
    purchases = sum(len(entry.purchases) for entry in sample.accounts)
    apps = f", apps' totals: {len(sample.apps)}" if sample.apps else ""
    return (
        f"accounts touched last: {len(sample.accounts)}, their latest transactions: {entries},"
        f" purchases: {purchases}{apps}"
    )


def _left_out(sample: LedgerSample) -> str:
    return f"; apps' totals were not compared: {sample.apps_unread}" if sample.apps_unread else ""
