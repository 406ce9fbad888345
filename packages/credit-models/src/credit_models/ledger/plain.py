"""The fast path of a plain add or use, whose decision depends on the balance alone.

Almost all writes take it. Its result is that of `decide` for all commands, in less than half the
time, because it makes no draft: 6 µs for a use (2-core machine), of which the constructors take
three quarters.
"""

from datetime import datetime

from credit_models.ledger.chain import chained, created_at
from credit_models.ledger.commands import Add, Lookup, Use
from credit_models.ledger.invariants import invariant
from credit_models.ledger.outcomes import (
    Accepted,
    BalanceOverflow,
    CreditsLimitExceeded,
    InsufficientCredits,
    Outcome,
    TooManyApps,
)
from credit_models.ledger.records import (
    APPS_MAX,
    NO_CAPS,
    NO_POLICY,
    UINT32_MAX,
    Account,
    Kind,
    Purchase,
    Transaction,
)
from credit_models.ledger.requests import repeated


def decide_plain(
    account: Account,
    command: Add | Use,
    lookup: Lookup,
    now: datetime,
    latest: datetime | None,
    genesis: bytes | None,
) -> Outcome | None:
    """Return the outcome of a plain command, see `decide`; None if the command is not plain.

    Args:
        account: See `decide`.
        command: The command.
        lookup: The parts of the history that the command needs.
        now: The time.
        latest: The latest time that an entry may have.
        genesis: The previous hash of the first entry with a hash; None: no chain begins.
    """
    if (
        command.app_id in account.apps
        or command.expected_revision is not None
        or command.min_available_after is not None
    ):
        return None
    invariant(1 <= command.credits <= UINT32_MAX, "credits are 1 to 2**32 - 1")
    balance = account.balances.get(command.app_id, 0)
    previous = account.heads.get(command.app_id, genesis)
    if isinstance(command, Use):
        # Comparing the same object with itself takes 0.3 µs.
        if command.once or (command.policy is not NO_POLICY and command.policy.caps != NO_CAPS):
            return None
        if lookup.earlier is not None:
            return repeated(command, lookup.earlier)
        if command.credits > balance:
            return InsufficientCredits(available=max(0, balance), required=command.credits)
        at = created_at(account, now, latest)
        return _used(account, command, balance - command.credits, at, previous)
    if lookup.earlier is not None:
        return repeated(command, lookup.earlier)
    if command.credits > command.credits_max:
        return CreditsLimitExceeded(credits=command.credits, limit=command.credits_max)
    if balance + command.credits > UINT32_MAX:
        return BalanceOverflow(balance=balance, credits=command.credits)
    if command.app_id not in account.balances and len(account.balances) >= APPS_MAX:
        return TooManyApps(limit=APPS_MAX)
    at = created_at(account, now, latest)
    return _added(account, command, balance + command.credits, at, previous)


def _added(
    account: Account, command: Add, balance_after: int, at: datetime, previous: bytes | None
) -> Accepted:
    entry = Transaction(
        id=command.transaction_id,
        user_id=command.user_id,
        app_id=command.app_id,
        kind=Kind.ADD,
        credits=command.credits,
        balance_after=balance_after,
        sequence=account.revision + 1,
        created_at=at,
        created_by=command.created_by,
        key=command.key,
    )
    entry = chained(entry, previous)
    return Accepted((_changed(account, entry),), (entry,), entry)


def _used(
    account: Account, command: Use, balance_after: int, at: datetime, previous: bytes | None
) -> Accepted:
    sequence = account.revision + 1
    entry = Transaction(
        id=command.transaction_id,
        user_id=command.user_id,
        app_id=command.app_id,
        kind=Kind.USE,
        credits=command.credits,
        balance_after=balance_after,
        sequence=sequence,
        created_at=at,
        created_by=command.created_by,
        key=command.key,
        purchase_id=command.purchase_id,
        report_id=command.report_id,
        report_name=command.report_name,
    )
    entry = chained(entry, previous)
    purchase = Purchase(
        id=command.purchase_id,
        user_id=command.user_id,
        app_id=command.app_id,
        report_id=command.report_id,
        report_name=command.report_name,
        credits=command.credits,
        created_at=at,
        created_by=command.created_by,
        transaction_id=command.transaction_id,
        sequence=sequence,
    )
    return Accepted((_changed(account, entry),), (entry,), entry, purchase)


def _changed(account: Account, entry: Transaction) -> Account:
    first = account.created_at is None
    return Account(
        user_id=account.user_id,
        id=account.id,
        balances={**account.balances, entry.app_id: entry.balance_after},
        apps=account.apps,
        heads={**account.heads, entry.app_id: entry.hash} if entry.hash else account.heads,
        revision=entry.sequence,
        created_at=entry.created_at if first else account.created_at,
        updated_at=entry.created_at,
        created_by=entry.created_by if first else account.created_by,
        updated_by=entry.created_by,
    )
