"""The peer's ledger: one MongoDB transaction per entry.

The usual case uses the minimum of statements: one conditional update of the account, the inserts
and the commit. The unique index detects a known key, so no look-up precedes the write. Only an
entry that the update did not match costs further reads.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any

from bson import ObjectId
from pymongo import ASCENDING, AsyncMongoClient, IndexModel, ReturnDocument, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

UINT32_MAX = 2**32 - 1
Document = dict[str, Any]  # as the driver returns it; only this ledger writes the collections

_SNAPSHOT = ReadConcern("snapshot")
_MAJORITY = WriteConcern("majority")
# Two first transactions of a user can conflict; the second attempt finds the account.
_ATTEMPTS = 3


class Kind(StrEnum):
    """The effect of an entry on the balance."""

    ADD = "add"
    USE = "use"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A valid request to change a balance. `report_id` and `report_name` are empty for an ADD."""

    kind: Kind
    user_id: int
    app_id: int
    credits: int
    created_by: int
    idempotency_key: str
    report_id: str = ""
    report_name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Posted:
    """The result of an entry; `replayed` if an earlier call with the same key made it."""

    transaction_id: str
    purchase_id: str
    balance: int
    sequence: int
    replayed: bool


class Rejected(Exception):
    """The ledger's rules forbid the entry. Nothing was written."""


class KeyReused(Rejected):
    """The idempotency key was used in this app for another request."""


class InsufficientCredits(Rejected):
    """The user's balance is smaller than the price of the purchase."""


class BalanceOverflow(Rejected):
    """The balance would exceed 2**32 - 1."""


class Ledger:
    """Accounts, transactions and purchases in one database, in the same shape as the service's.

    Args:
        client: A client of a replica set; the caller closes it.
        database: The database's name.
    """

    def __init__(self, client: AsyncMongoClient[Document], database: str) -> None:
        self._client = client
        # Reads outside a transaction also see only majority-committed data.
        self._database = client.get_database(
            database, read_concern=ReadConcern("majority"), write_concern=_MAJORITY
        )
        self._accounts = self._database["user_credits"]
        self._transactions = self._database["credit_transactions"]
        self._purchases = self._database["purchases"]

    async def prepare(self) -> None:
        """Create the indexes, and with them the collections. Idempotent."""
        sequence = IndexModel([("user_id", ASCENDING), ("sequence", ASCENDING)], unique=True)
        key = IndexModel(
            [("user_id", ASCENDING), ("app_id", ASCENDING), ("idempotency_key", ASCENDING)],
            unique=True,
            partialFilterExpression={"idempotency_key": {"$exists": True}},
        )
        await self._accounts.create_indexes([IndexModel([("user_id", ASCENDING)], unique=True)])
        await self._transactions.create_indexes([sequence, key])
        await self._purchases.create_indexes([sequence])

    async def post(self, entry: Entry) -> Posted:
        """Make an entry, or return the result of the same earlier entry.

        Raises:
            KeyReused: The key was used for another request.
            InsufficientCredits: The user's balance is smaller than the price of the purchase.
            BalanceOverflow: The balance would exceed 2**32 - 1.
            pymongo.errors.PyMongoError: The database failed or timed out.
        """
        for remaining in reversed(range(_ATTEMPTS)):
            try:
                async with self._client.start_session() as session:
                    return await session.with_transaction(
                        partial(self._apply, entry),
                        read_concern=_SNAPSHOT,
                        write_concern=_MAJORITY,
                    )
            except DuplicateKeyError:
                earlier = await self._earlier(entry)
                if earlier is not None:
                    return earlier
                if not remaining:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def balance(self, app_id: int, user_id: int) -> int:
        """Return a user's balance in an app; 0 for an unknown user or app."""
        account = await self._accounts.find_one({"user_id": user_id})
        return (None if account is None else _balance(account, app_id)) or 0

    async def account(self, user_id: int) -> Document | None:
        """Return a user's document; None for an unknown user."""
        return await self._accounts.find_one({"user_id": user_id})

    def history(self, user_id: int, after_sequence: int) -> AsyncCursor[Document]:
        """Return a user's transactions after a sequence, oldest first."""
        return self._transactions.find(
            {"user_id": user_id, "sequence": {"$gt": after_sequence}}
        ).sort("sequence", ASCENDING)

    async def total(self, app_id: int) -> int:
        """Return the sum of all users' balances in an app."""
        cursor = await self._accounts.aggregate(
            [
                {"$unwind": "$balances"},
                {"$match": {"balances.app_id": app_id}},
                {"$group": {"_id": None, "total": {"$sum": "$balances.balance"}}},
            ]
        )
        return sum([int(row["total"]) async for row in cursor])

    async def _apply(self, entry: Entry, session: AsyncClientSession) -> Posted:
        now = datetime.now(UTC)
        account = await self._change_balance(entry, now, session)
        if account is None:
            known = await self._accounts.find_one({"user_id": entry.user_id}, session=session)
            balance = None if known is None else _balance(known, entry.app_id)
            if entry.kind is Kind.USE or balance is not None:
                return await self._reject(entry, balance or 0, session)
            account = await self._create_balance(entry, now, session)
        return await self._record(entry, account, now, session)

    async def _change_balance(
        self, entry: Entry, now: datetime, session: AsyncClientSession
    ) -> Document | None:
        """Change the balance in one statement, if it exists and the rules allow it."""
        if entry.kind is Kind.ADD:
            change, allowed = entry.credits, {"$lte": UINT32_MAX - entry.credits}
        else:
            change, allowed = -entry.credits, {"$gte": entry.credits}
        return await self._accounts.find_one_and_update(
            {
                "user_id": entry.user_id,
                "balances": {"$elemMatch": {"app_id": entry.app_id, "balance": allowed}},
            },
            {
                "$inc": {"balances.$.balance": change, "revision": 1},
                "$set": {"updated_at": now, "updated_by": entry.created_by},
            },
            return_document=ReturnDocument.AFTER,
            session=session,
        )

    async def _create_balance(
        self, entry: Entry, now: datetime, session: AsyncClientSession
    ) -> Document:
        """Create the balance in the app and, for a new user, the account."""
        account = await self._accounts.find_one_and_update(
            {"user_id": entry.user_id},
            {
                "$push": {"balances": {"app_id": entry.app_id, "balance": entry.credits}},
                "$inc": {"revision": 1},
                "$set": {"updated_at": now, "updated_by": entry.created_by},
                "$setOnInsert": {"created_at": now, "created_by": entry.created_by},
            },
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if account is None:
            raise AssertionError("unreachable: an upsert finds or makes the document")
        return account

    async def _record(
        self, entry: Entry, account: Document, now: datetime, session: AsyncClientSession
    ) -> Posted:
        balance = _balance(account, entry.app_id)
        if balance is None:
            raise AssertionError("unreachable: the account was just changed in this app")
        common = {
            "user_id": entry.user_id,
            "app_id": entry.app_id,
            "credits": entry.credits,
            "created_at": now,
            "created_by": entry.created_by,
            "sequence": account["revision"],
        }
        transaction = {
            **common,
            "_id": ObjectId(),
            "type": entry.kind.value,
            "balance_after": balance,
        }
        if entry.idempotency_key:
            transaction["idempotency_key"] = entry.idempotency_key
        if entry.kind is Kind.USE:
            report = {"report_id": entry.report_id, "report_name": entry.report_name}
            purchase = {
                **common,
                **report,
                "_id": ObjectId(),
                "transaction_id": transaction["_id"],
            }
            transaction |= {"purchase_id": purchase["_id"], "fingerprint": report}
            await self._purchases.insert_one(purchase, session=session)
        await self._transactions.insert_one(transaction, session=session)
        return _posted(transaction, replayed=False)

    async def _reject(self, entry: Entry, balance: int, session: AsyncClientSession) -> Posted:
        """Reject the entry, or return the result of the same earlier entry."""
        earlier = await self._earlier(entry, session)
        if earlier is not None:
            return earlier
        if entry.kind is Kind.USE:
            raise InsufficientCredits(
                f"the balance is {balance}, {entry.credits} credits are required"
            )
        raise BalanceOverflow(
            f"a balance of {balance} and {entry.credits} credits exceed the maximum"
        )

    async def _earlier(
        self, entry: Entry, session: AsyncClientSession | None = None
    ) -> Posted | None:
        if not entry.idempotency_key:
            return None
        found = await self._transactions.find_one(
            {
                "user_id": entry.user_id,
                "app_id": entry.app_id,
                "idempotency_key": entry.idempotency_key,
            },
            session=session,
        )
        if found is None:
            return None
        if _requested(entry) != _stored(found):
            raise KeyReused("the idempotency key was used for another request")
        return _posted(found, replayed=True)


def _requested(entry: Entry) -> tuple[str | int, ...]:
    return (
        entry.kind.value,
        entry.app_id,
        entry.credits,
        entry.created_by,
        entry.report_id,
        entry.report_name,
    )


def _stored(transaction: Document) -> tuple[str | int, ...]:
    report = transaction.get("fingerprint", {"report_id": "", "report_name": ""})
    return (
        transaction["type"],
        transaction["app_id"],
        transaction["credits"],
        transaction["created_by"],
        report["report_id"],
        report["report_name"],
    )


def _balance(account: Document, app_id: int) -> int | None:
    for entry in account["balances"]:
        if entry["app_id"] == app_id:
            return int(entry["balance"])
    return None


def _posted(transaction: Document, *, replayed: bool) -> Posted:
    purchase_id = transaction.get("purchase_id")
    return Posted(
        transaction_id=str(transaction["_id"]),
        purchase_id="" if purchase_id is None else str(purchase_id),
        balance=transaction["balance_after"],
        sequence=transaction["sequence"],
        replayed=replayed,
    )
