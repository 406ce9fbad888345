"""Fills a database with a valid ledger, faster than by calls: `insert_many` of the documents.

The documents are made by the store's own models, so that they have the same types and pass its
validators. The ledger check passes on the result.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from bson import ObjectId
from bson.int64 import Int64
from credit_models.ledger import (
    Account,
    AppAccount,
    Details,
    Grant,
    Kind,
    Purchase,
    Transaction,
)
from credit_models.ledger.burning import of_grant
from credit_server.store.documents import (
    AccountDocument,
    AppTotalDocument,
    PurchaseDocument,
    TransactionDocument,
)
from pymongo import MongoClient, WriteConcern
from pymongo.database import Database

from credit_bench.generator.requests import APP_ID, FIRST_AT, OPENING_CREDITS
from credit_bench.workloads import Ledger

_CREATED_BY = 1
_FIRST_END = datetime(2100, 1, 1, tzinfo=UTC)
# About 1,800 uses take all credits of a grant, which then leaves the account.
_GRANT_CREDITS = 10_000
_DOCUMENTS_PER_INSERT = 2_000


def fill(uri: str, name: str, ledger: Ledger, *, totals: bool) -> None:
    """Write a ledger into the empty collections of a database.

    Args:
        uri: The replica set.
        name: The database's name.
        ledger: The number of users, and the length of their histories.
        totals: Whether the database holds the totals of apps.
    """
    client: MongoClient[dict[str, Any]]  # documents hold values of many types
    with MongoClient(uri) as client:
        _write(
            client.get_database(name, write_concern=WriteConcern("majority")),
            ledger,
            totals=totals,
        )


def _write(database: Database[dict[str, Any]], ledger: Ledger, *, totals: bool) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "user_credits": [],
        "credit_transactions": [],
        "purchases": [],
    }

    def flush() -> None:
        for collection, documents in rows.items():
            if documents:
                database[collection].insert_many(documents, ordered=False)
                documents.clear()

    for user_id in range(1, ledger.users + 1):
        placed = grants(ledger)
        rows["user_credits"].append(account(user_id, ledger.history, placed))
        for transaction, purchase in history(user_id, ledger.history):
            rows["credit_transactions"].append(transaction)
            if purchase is not None:
                rows["purchases"].append(purchase)
            if len(rows["credit_transactions"]) >= _DOCUMENTS_PER_INSERT:
                flush()
        rows["credit_transactions"].extend(placing(user_id, ledger.history, placed))
    flush()
    if totals:
        balance = balance_after(ledger.history) + ledger.grants * _GRANT_CREDITS
        total = ledger.users * balance
        document = AppTotalDocument(app_id=APP_ID, slot=0, total=total)
        database["app_totals"].insert_one(document.to_bson())


def balance_after(sequence: int) -> int:
    """Return the balance after a transaction: an opening, then USE 1 and ADD 1 in turn."""
    return OPENING_CREDITS - (sequence + 1) % 2


def grants(ledger: Ledger) -> tuple[Grant, ...]:
    """Return new grants for one user, in the order in which they are used."""
    return tuple(
        Grant(
            id=str(ObjectId()),
            sequence=sequence,
            credits=_GRANT_CREDITS,
            left=_GRANT_CREDITS,
            ends_at=_FIRST_END + timedelta(days=sequence),
            created_by=_CREATED_BY,
        )
        for sequence in range(ledger.history + 1, ledger.history + ledger.grants + 1)
    )


def placing(user_id: int, length: int, placed: Sequence[Grant]) -> Iterator[dict[str, Any]]:
    """Yield the documents of the transactions that placed a user's grants.

    Args:
        user_id: The user.
        length: The length of the history before.
        placed: The grants.
    """
    for number, grant in enumerate(placed, start=1):
        entry = Transaction(
            id=grant.id,
            user_id=user_id,
            app_id=APP_ID,
            kind=Kind.GRANT,
            credits=grant.credits,
            balance_after=balance_after(length) + number * _GRANT_CREDITS,
            sequence=grant.sequence,
            created_at=FIRST_AT + timedelta(seconds=grant.sequence - 1),
            created_by=grant.created_by,
            key=f"prefill-{grant.sequence}",
            details=Details(allocations=(of_grant(grant, grant.credits),), ends_at=grant.ends_at),
        )
        yield TransactionDocument.from_transaction(entry).to_bson()


def account(user_id: int, length: int, placed: Sequence[Grant] = ()) -> dict[str, Any]:
    """Return the document of a user with a number of transactions, and with grants after them."""
    revision = length + len(placed)
    document = AccountDocument.from_account(
        Account(
            user_id=user_id,
            balances={APP_ID: balance_after(length) + len(placed) * _GRANT_CREDITS},
            apps={APP_ID: AppAccount.of(grants=tuple(placed))} if placed else {},
            revision=revision,
            created_at=FIRST_AT,
            updated_at=FIRST_AT + timedelta(seconds=revision - 1),
            created_by=_CREATED_BY,
            updated_by=_CREATED_BY,
        )
    )
    return document.to_bson()


def history(user_id: int, length: int) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Yield the documents of a user's transactions, and of the purchases that they paid for."""
    for sequence in range(1, length + 1):
        # An opening entry, then USE and ADD in turn.
        transaction, purchase = _template(min(sequence, 2 + sequence % 2))
        own = {
            "_id": ObjectId(),
            "user_id": Int64(user_id),
            "sequence": Int64(sequence),
            "created_at": FIRST_AT + timedelta(seconds=sequence - 1),
        }
        paid = {**transaction, **own, "idempotency_key": f"prefill-{sequence}"}
        if purchase is None:
            yield paid, None
            continue
        report = {"report_id": f"report-{sequence}"}
        bought = {**purchase, **own, **report, "_id": ObjectId(), "transaction_id": own["_id"]}
        paid["purchase_id"] = bought["_id"]
        paid["fingerprint"] = {**transaction["fingerprint"], **report}
        yield paid, bought


@cache
def _template(sequence: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the documents of user 1 at a sequence.

    Those of other users and later sequences are copies with other ids, times and numbers, because
    the models take 35 µs for a transaction, and a copy 4 µs.
    """
    uses = sequence % 2 == 0
    common: dict[str, Any] = {  # fields of two models
        "user_id": 1,
        "app_id": APP_ID,
        "credits": 1 if sequence > 1 else OPENING_CREDITS,
        "created_at": FIRST_AT + timedelta(seconds=sequence - 1),
        "created_by": _CREATED_BY,
        "sequence": sequence,
    }
    report: dict[str, Any] = {}  # as above
    if uses:
        report = {"report_id": f"report-{sequence}", "report_name": "Annual report"}
    transaction = Transaction(
        **common,
        **report,
        id=str(ObjectId()),
        kind=Kind.USE if uses else Kind.ADD,
        balance_after=balance_after(sequence),
        key=f"prefill-{sequence}",
        purchase_id=str(ObjectId()) if uses else "",
    )
    purchase = None
    if uses:
        paid = Purchase(
            **common, **report, id=transaction.purchase_id, transaction_id=transaction.id
        )
        purchase = PurchaseDocument.from_purchase(paid).to_bson()
    return TransactionDocument.from_transaction(transaction).to_bson(), purchase
