"""Check a sample of the ledger: do the latest accounts and apps add up, without a gap?"""

from collections.abc import Iterator

from credit_models.ledger import Account, Kind, Purchase, Transaction

from credit_server.doctor.report import Finding, counted, fails, ok, warning
from credit_server.doctor.subject import AppSum, FutureEntry, LedgerSample, SampledAccount, Subject

# One fault is enough to stop the servers, so few are reported.
_FAULTS_MAX = 5
_FUTURE_MAX = 3

# The kinds of the entries of a hold. A USE is one if it captured a hold.
_OF_HOLD = (Kind.HOLD, Kind.EXTEND, Kind.RELEASE, Kind.USE)


def check_ledger(subject: Subject) -> Iterator[Finding]:
    """Check that the sampled accounts and apps add up. Other accounts are not checked."""
    check, report, ledger = "ledger check (sample)", subject.store.report, subject.store.ledger
    if report is None:
        return
    if ledger is None:
        reason = "the store has no schema" if report.schema is None else "the schema has drifted"
        remedy = "correct the findings above first"
        yield warning(check, f"the ledger was not checked: {reason}", remedy)
        return
    if ledger.error:
        remedy = "read MongoDB's log; the state of the ledger is unknown"
        yield fails(check, ledger.error, remedy)
        return
    sample = ledger.sample
    if not sample.accounts:
        yield ok(check, "there are no transactions yet")
        return
    found = (*map(account_fault, sample.accounts), *map(app_fault, sample.apps))
    faults = [fault for fault in found if fault]
    if not faults:
        yield ok(check, f"{_extent_of(sample)}; all add up, without a gap{_left_out(sample)}")
        return
    more = f"; and {len(faults) - _FAULTS_MAX} more" if len(faults) > _FAULTS_MAX else ""
    yield fails(
        check,
        "; ".join(faults[:_FAULTS_MAX]) + more + _left_out(sample),
        "stop the servers, keep a backup of this state, and find out what wrote to the database;"
        " credit-server does not write such data",
    )


def check_dates(subject: Subject) -> Iterator[Finding]:
    """Check for entries that are dated after the store's time.

    Balances and the order of the history do not depend on dates, and entries never change. So it is
    a warning, which ends when the store's time has passed the dates.
    """
    check, ledger = "dates", subject.store.ledger
    if ledger is None or ledger.error:
        return
    future = ledger.future
    part = "" if future.whole else "; older entries were not searched, which would take too long"
    if not future.entries:
        yield ok(check, f"no entry is dated after MongoDB's time{part}")
        return
    entries = sorted(future.entries, key=lambda entry: entry.ahead_seconds, reverse=True)
    more = f"; and {len(entries) - _FUTURE_MAX} more" if len(entries) > _FUTURE_MAX else ""
    yield warning(
        check,
        "; ".join(map(_described, entries[:_FUTURE_MAX])) + more + part,
        "find the server whose clock is or was ahead and synchronize it with NTP; balances and the"
        " order of the history are right, and new entries get the right time",
    )


def account_fault(entry: SampledAccount) -> str:
    """Return what is wrong with an account; empty if nothing is."""
    user = f"user {entry.user_id}"
    if entry.unreadable:
        return f"{user}: a document cannot be read ({entry.unreadable})"
    if entry.account is None:
        return f"{user}: there is history but no account"
    account = entry.account
    faults = (
        *_history(entry, account),
        *_extent(entry, account),
        *_bought(entry),
        *_refunded(entry),
        *_held(entry, account),
        *_granted(account),
    )
    return f"{user}: {faults[0]}" if faults else ""


def app_fault(app: AppSum) -> str:
    """Return how an app's total differs from the sum of its users; empty if it does not."""
    if app.total == app.held:
        return ""
    return f"app {app.app_id}: its total is {app.total}, but its users hold {app.held}"


def _history(entry: SampledAccount, account: Account) -> Iterator[str]:
    """Follow the history backwards from the balances.

    Each transaction must have left the balance that is known after it. The balance before it
    follows from that.
    """
    balances = dict(account.balances)
    expected = account.revision
    for transaction in entry.latest:
        if transaction.sequence != expected:
            yield f"found sequence {transaction.sequence} instead of {expected}"
            return
        app_id, balance = transaction.app_id, balances.get(transaction.app_id, 0)
        if transaction.balance_after != balance:
            left = transaction.balance_after
            yield f"sequence {expected} left {left} in app {app_id}, not {balance}"
            return
        balances[app_id] = balance - transaction.effect
        expected -= 1
    if expected and not entry.latest:
        yield f"there is no history, but {counted(expected, 'transaction')} should exist"
    if not expected and any(balances.values()):
        yield "the history does not add up to the balances"


def _extent(entry: SampledAccount, account: Account) -> Iterator[str]:
    """Compare the history's start and length: what is older than the sample has no gap either."""
    if entry.first_sequence > 1:
        yield f"the history begins with sequence {entry.first_sequence}, not 1"
    if entry.transactions not in (None, account.revision):
        found = counted(entry.transactions or 0, "transaction")
        verb = "is" if entry.transactions == 1 else "are"
        yield f"there {verb} {found} instead of {account.revision}"


def _bought(entry: SampledAccount) -> Iterator[str]:
    """Compare the transactions that paid for purchases with the purchases."""
    bought = {purchase.sequence: purchase for purchase in entry.purchases}
    for paid in entry.latest:
        purchase = bought.pop(paid.sequence, None)
        if paid.kind is not Kind.USE:
            if purchase is not None:
                yield f"sequence {paid.sequence} uses no credits, but has a purchase"
        elif purchase is None:
            yield f"sequence {paid.sequence} paid for a purchase that does not exist"
        elif not _fits(paid, purchase):
            yield f"sequence {paid.sequence} and its purchase differ"
    for sequence in sorted(bought):
        yield f"there is a purchase of sequence {sequence}, which does not exist"


def _refunded(entry: SampledAccount) -> Iterator[str]:
    """Compare the refunds of purchases with the latest entry that refunded them."""
    bought = {purchase.transaction_id: purchase for purchase in entry.purchases}
    for refund in entry.latest:
        if refund.kind is Kind.REFUND:
            purchase = bought.pop(refund.details.related_id, None)
            refunded = refund.details.related_total
            if purchase is not None and purchase.refunded_credits != refunded:
                yield (
                    f"the purchase of sequence {purchase.sequence} shows"
                    f" {counted(purchase.refunded_credits, 'refunded credit')}, not {refunded}"
                )


def _held(entry: SampledAccount, account: Account) -> Iterator[str]:
    """Compare the open holds with the latest entry of each hold."""
    holds = {hold.id: hold.credits for app in account.apps.values() for hold in app.holds}
    seen: set[str] = set()
    for of_hold in entry.latest:
        hold_id = of_hold.id if of_hold.kind is Kind.HOLD else of_hold.details.related_id
        if of_hold.kind not in _OF_HOLD or not hold_id or hold_id in seen:
            continue
        seen.add(hold_id)
        left, held = of_hold.details.held_after, holds.get(hold_id, 0)
        if left != held:
            yield f"sequence {of_hold.sequence} left {left} in a hold, not {held}"


def _granted(account: Account) -> Iterator[str]:
    """Compare what is left of grants with the balances."""
    for app_id, app in sorted(account.apps.items()):
        balance = max(0, account.balance(app_id))
        if app.granted > balance:
            yield f"grants have {app.granted} in app {app_id}, but the balance is {balance}"


def _fits(paid: Transaction, purchase: Purchase) -> bool:
    both = ("app_id", "credits", "report_id", "report_name", "created_at", "created_by")
    return (purchase.id, purchase.transaction_id) == (paid.purchase_id, paid.id) and all(
        getattr(purchase, name) == getattr(paid, name) for name in both
    )


def _extent_of(sample: LedgerSample) -> str:
    entries = sum(len(entry.latest) for entry in sample.accounts)
    purchases = sum(len(entry.purchases) for entry in sample.accounts)
    apps = f", apps' totals: {len(sample.apps)}" if sample.apps else ""
    return (
        f"latest accounts: {len(sample.accounts)}, their latest transactions: {entries},"
        f" purchases: {purchases}{apps}"
    )


def _left_out(sample: LedgerSample) -> str:
    return f"; apps' totals were not compared: {sample.apps_unread}" if sample.apps_unread else ""


def _described(entry: FutureEntry) -> str:
    return (
        f"user {entry.user_id}, sequence {entry.sequence}: dated {entry.ahead_seconds:.1f} s after"
        " MongoDB's time"
    )
