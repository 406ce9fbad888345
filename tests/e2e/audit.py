"""Audit the ledger that the service returns: it matches the answers to the callers and adds up.

`ledger_check` finds what does not add up. This module also checks the callers' journal and the
order of the lists.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from credit_client import (
    AppTotalOverflow,
    CreditClient,
    CreditTransaction,
    Purchase,
    TransactionType,
    UserCredits,
)
from credit_testing.ledger_check import findings
from pymongo import MongoClient
from pymongo.database import Database

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
    view: LedgerView, operations: Sequence[Operation], journal: Journal, *, uri: str, calm: bool
) -> list[str]:
    """Find what must never be in a ledger.

    Args:
        view: The ledger at the end.
        operations: All operations that were sent.
        journal: The answers to them.
        uri: A MongoDB for `ledger_check`, in which a database of its own is created and dropped.
        calm: Whether no process was killed, so that only cancelled callers lost answers.

    Returns:
        One sentence for each finding; an empty list for a correct ledger.
    """
    return [
        *journal.complaints,
        *_order_findings(view),
        *_sum_findings(view, uri),
        *_effect_findings(view, operations, journal),
        *_receipt_findings(view, journal),
        *_replay_findings(operations, journal, calm=calm),
    ]


def _order_findings(view: LedgerView) -> Iterator[str]:
    """Yield lists that are not in the order of their sequences, or repeat an entry."""
    for name, lists in (("transactions", view.transactions), ("purchases", view.purchases)):
        for user, entries in lists.items():
            sequences = [entry.sequence for entry in entries]
            if sequences != sorted(set(sequences)):
                yield f"user {user}: the {name} are listed as {sequences}"


def _sum_findings(view: LedgerView, uri: str) -> list[str]:
    """Store what the service returned as a ledger of its own, and check that it adds up."""
    client: MongoClient[dict[str, Any]]  # documents hold values of many types
    with MongoClient(uri) as client:
        database: Database[dict[str, Any]] = client[f"audit_{uuid4().hex}"]
        try:
            for name, documents in _documents(view).items():
                if documents:
                    database[name].insert_many(documents)
            return findings(database)
        finally:
            client.drop_database(database.name)


def _documents(view: LedgerView) -> dict[str, list[dict[str, Any]]]:
    """Return the documents of each collection; an entry that is listed twice is one document."""
    transactions = {
        entry.id: _document(
            entry,
            type=entry.type.name.lower(),
            balance_after=entry.balance_after,
            idempotency_key=entry.idempotency_key,
            **({"purchase_id": entry.purchase_id} if entry.purchase_id else {}),
        )
        for entries in view.transactions.values()
        for entry in entries
    }
    purchases = {
        entry.id: _document(entry, transaction_id=entry.transaction_id)
        for entries in view.purchases.values()
        for entry in entries
    }
    accounts = [
        {
            "user_id": user,
            "balances": [{"app_id": one.app_id, "balance": one.balance} for one in held.balances],
            "revision": held.revision,
        }
        for user, held in view.held.items()
        if held != UserCredits(user_id=user)  # what is returned for a user without an account
    ]
    return {
        "credit_transactions": list(transactions.values()),
        "purchases": list(purchases.values()),
        "user_credits": accounts,
        "app_totals": [{"app_id": app, "total": total} for app, total in view.totals.items()],
    }


def _document(entry: CreditTransaction | Purchase, **more: object) -> dict[str, Any]:
    names = ("user_id", "app_id", "credits", "created_by", "created_at", "sequence")
    return {"_id": entry.id, **{name: getattr(entry, name) for name in names}, **more}


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
