"""Audit what the service returns: it adds up, and it agrees with the answers to the callers."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from credit_client import (
    AppTotalOverflow,
    CreditClient,
    CreditTransaction,
    Purchase,
    TransactionType,
    UserCredits,
)

from tests.e2e.workload import Journal, Operation, Sending


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerView:
    """Everything that the service returns for some users and apps."""

    held: dict[int, UserCredits]
    transactions: dict[int, list[CreditTransaction]]
    purchases: dict[int, list[Purchase]]
    totals: dict[int, int]


async def read_ledger(
    client: CreditClient, users: Iterable[int], apps: Iterable[int]
) -> LedgerView:
    """Read everything that the service returns for some users and apps."""
    return LedgerView(
        held={user: await client.user_credits(user_id=user) for user in users},
        transactions={
            user: [entry async for entry in client.transactions(user_id=user)] for user in users
        },
        purchases={
            user: [entry async for entry in client.purchases(user_id=user)] for user in users
        },
        totals={app: await _total(client, app) for app in apps},
    )


async def _total(client: CreditClient, app: int) -> int:
    try:
        return await client.balance(app_id=app)
    except AppTotalOverflow as error:
        return error.total


def audit(
    view: LedgerView, operations: Sequence[Operation], journal: Journal, *, calm: bool
) -> list[str]:
    """Find what must never be in a ledger.

    Args:
        view: The ledger at the end.
        operations: All operations that were sent.
        journal: The answers to them.
        calm: Whether no process was killed, so that only cancelled callers lost answers.

    Returns:
        One sentence for each finding; an empty list for a correct ledger.
    """
    return [
        *journal.complaints,
        *(finding for user in view.held for finding in _history_findings(view, user)),
        *(finding for user in view.held for finding in _purchase_findings(view, user)),
        *_total_findings(view),
        *_effect_findings(view, operations, journal),
        *_receipt_findings(view, journal),
        *_replay_findings(operations, journal, calm=calm),
    ]


def _history_findings(view: LedgerView, user: int) -> Iterator[str]:
    """Yield gaps, balances below 0, and sums that differ from what the user holds."""
    balances: dict[int, int] = {}
    entries = view.transactions[user]
    for place, entry in enumerate(entries, start=1):
        if entry.sequence != place:
            yield f"user {user}: entry {place} has the sequence {entry.sequence}"
        sign = 1 if entry.type is TransactionType.ADD else -1
        balance = balances.get(entry.app_id, 0) + sign * entry.credits
        balances[entry.app_id] = balance
        if not 0 <= balance < 2**32:
            yield f"user {user}: the balance was {balance} after entry {place}"
        if balance != entry.balance_after:
            yield f"user {user}: entry {place} has the balance {entry.balance_after}, not {balance}"
    held = view.held[user]
    if {entry.app_id: entry.balance for entry in held.balances} != balances:
        yield f"user {user}: holds {held.balances}, and the history adds up to {balances}"
    if held.revision != len(entries):
        yield f"user {user}: revision {held.revision} after {len(entries)} entries"


def _purchase_findings(view: LedgerView, user: int) -> Iterator[str]:
    """Yield purchases and USE transactions that do not match one to one and in order."""
    paid = [
        (entry.purchase_id, entry.id, entry.app_id, entry.credits, entry.created_by)
        for entry in view.transactions[user]
        if entry.type is TransactionType.USE
    ]
    bought = [
        (entry.id, entry.transaction_id, entry.app_id, entry.credits, entry.created_by)
        for entry in view.purchases[user]
    ]
    if paid != bought:
        differing = Counter(paid) - Counter(bought), Counter(bought) - Counter(paid)
        yield f"user {user}: purchases and payments differ: {differing}"


def _total_findings(view: LedgerView) -> Iterator[str]:
    for app, total in view.totals.items():
        balances = (
            entry.balance
            for held in view.held.values()
            for entry in held.balances
            if entry.app_id == app
        )
        if total != (expected := sum(balances)):
            yield f"app {app}: the total is {total}, the users hold {expected}"


def _effect_findings(
    view: LedgerView, operations: Sequence[Operation], journal: Journal
) -> Iterator[str]:
    """Yield entries that no operation requested, and operations with two entries."""
    sent = {operation.key: operation for operation in operations}
    effects: Counter[str] = Counter()
    for user, entries in view.transactions.items():
        for entry in entries:
            effects[entry.idempotency_key] += 1
            operation = sent.get(entry.idempotency_key)
            if operation is None:
                yield f"user {user}: no operation requested {entry}"
            elif _asked(operation) != _done(entry):
                yield f"user {user}: {entry} is not what was asked for: {operation}"
    yield from (f"{key} has happened {count} times" for key, count in effects.items() if count > 1)
    for operation in operations:
        if operation.sending is Sending.ONCE and operation.key in journal.refused & effects.keys():
            yield f"{operation} was refused and has happened"


def _asked(operation: Operation) -> tuple[object, ...]:
    kind = TransactionType.USE if operation.buys else TransactionType.ADD
    return (
        operation.user_id,
        operation.app_id,
        operation.credits,
        operation.created_by,
        kind,
    )


def _done(entry: CreditTransaction) -> tuple[object, ...]:
    return (entry.user_id, entry.app_id, entry.credits, entry.created_by, entry.type)


def _receipt_findings(view: LedgerView, journal: Journal) -> Iterator[str]:
    """Yield receipts that differ from their entry of the history, or have none."""
    entries = {entry.id: entry for of_user in view.transactions.values() for entry in of_user}
    for key, receipts in journal.receipts.items():
        for receipt in receipts:
            entry = entries.get(receipt.transaction_id)
            if entry is None:
                yield f"{key}: acknowledged and lost: {receipt}"
            elif (key, receipt.balance, receipt.sequence, receipt.purchase_id) != (
                entry.idempotency_key,
                entry.balance_after,
                entry.sequence,
                entry.purchase_id,
            ):
                yield f"{key}: {receipt} is not of {entry}"


def _replay_findings(
    operations: Sequence[Operation], journal: Journal, *, calm: bool
) -> Iterator[str]:
    """Yield operations that were not acknowledged as new exactly once.

    If answers may be lost, yield only those that were acknowledged as new more than once.
    """
    for operation in operations:
        receipts = journal.receipts.get(operation.key, [])
        first = sum(not receipt.replayed for receipt in receipts)
        lossless = calm and operation.sending is not Sending.CANCELLED_AND_RESENT
        if first > 1 or (first == 0 and receipts and lossless):
            yield f"{operation} was acknowledged as new {first} times"
