"""A sample of the books: the accounts that were touched last, with the end of their histories.

All of it is read at one snapshot, so that what does not add up was never right, and in the order of
indexes, so that it is quick on a large ledger. Only the sums of apps need a scan, which is bounded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession, AsyncIOMotorDatabase
from pydantic import ValidationError
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import ExecutionTimeout

from credit_server.ledger import Account, Purchase, Transaction
from credit_server.store import schema
from credit_server.store.documents import AccountDocument, PurchaseDocument, TransactionDocument
from credit_server.store.inspection import told

_TRANSACTIONS_PER_ACCOUNT = 20
"""Among how many times as many of the latest transactions the accounts are looked for."""

# Any: the driver's documents, which the models check.
_Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """One account of a sample.

    Attributes:
        user_id: Whose it is.
        account: The account; None where there is none although there is history.
        latest: The latest transactions, the last one first.
        purchases: The purchases of the sequences that `latest` goes through.
        first_sequence: The sequence of the first transaction; 0 where there is none.
        transactions: How many transactions there are; None: too many to count.
        unreadable: Why a document is not what this release writes; empty when all are.
    """

    user_id: int
    account: Account | None = None
    latest: tuple[Transaction, ...] = ()
    purchases: tuple[Purchase, ...] = ()
    first_sequence: int = 0
    transactions: int | None = None
    unreadable: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AppSum:
    """One app of a sample.

    Attributes:
        app_id: Which app.
        total: What the parts of its total add up to.
        held: What all accounts hold in it.
    """

    app_id: int
    total: int
    held: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What was read of the books.

    Attributes:
        accounts: The accounts that were touched last.
        apps: The apps of the latest transactions.
        apps_unread: Why the sums of apps were not looked at; empty when they were.
    """

    accounts: tuple[Sampled, ...] = ()
    apps: tuple[AppSum, ...] = ()
    apps_unread: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleLimits:
    """How much of the books is read.

    Attributes:
        accounts_max: How many accounts.
        history_max: How many transactions of each.
        counted_max: Up to how many transactions those of an account are counted.
        apps_max: How many apps.
        summed_max: Up to how many accounts in the ledger the sums of apps are looked at.
        sums_seconds: How long the sums may take.
    """

    accounts_max: int
    history_max: int
    counted_max: int
    apps_max: int
    summed_max: int
    sums_seconds: float


async def sample_books(
    client: AsyncIOMotorClient[_Document], *, database: str, limits: SampleLimits
) -> Sample:
    """Read the accounts of the latest transactions, and the sums of their apps.

    Args:
        client: A connection to MongoDB 5.0 or later with a primary.
        database: The name of the ledger's database.
        limits: How much is read.

    Raises:
        StoreError: The store cannot be read.
    """
    with told():
        async with await client.start_session(snapshot=True) as session:
            sampler = _Sampler(client[database], session, limits)
            users, apps = await sampler.newest()
            accounts = tuple([await sampler.account(user_id) for user_id in users])
            if unread := await sampler.too_many_accounts():
                return Sample(accounts=accounts, apps_unread=unread)
            try:
                return Sample(accounts=accounts, apps=await sampler.sums(apps))
            except ExecutionTimeout:
                unread = f"they take more than {limits.sums_seconds:g} s"
                return Sample(accounts=accounts, apps_unread=unread)


class _Sampler:
    """Reads at one snapshot."""

    def __init__(
        self,
        books: AsyncIOMotorDatabase[_Document],
        session: AsyncIOMotorClientSession,
        limits: SampleLimits,
    ) -> None:
        self._session = session
        self._limits = limits
        self._accounts = books[schema.USER_CREDITS]
        self._transactions = books[schema.CREDIT_TRANSACTIONS]
        self._purchases = books[schema.PURCHASES]
        self._totals = books[schema.APP_TOTALS]

    async def newest(self) -> tuple[list[int], list[int]]:
        """Return the users and the apps of the latest transactions, and the newest accounts'."""
        accounts_max = self._limits.accounts_max
        fields = {"user_id": 1, "app_id": 1}
        newest = self._transactions.find({}, fields, session=self._session)
        users: dict[int, None] = {}
        apps: dict[int, None] = {}
        async for entry in newest.sort("_id", DESCENDING).limit(
            accounts_max * _TRANSACTIONS_PER_ACCOUNT
        ):
            users[entry["user_id"]] = None
            apps[entry["app_id"]] = None
        # An account without any history is not among those.
        accounts = self._accounts.find({}, fields, session=self._session)
        async for entry in accounts.sort("_id", DESCENDING).limit(accounts_max):
            users[entry["user_id"]] = None
        return list(users)[:accounts_max], list(apps)[: self._limits.apps_max]

    async def account(self, user_id: int) -> Sampled:
        """Read an account with the end of its history."""
        whose, history_max = {"user_id": user_id}, self._limits.history_max
        account = await self._accounts.find_one(whose, session=self._session)
        cursor = self._transactions.find(whose, session=self._session)
        latest = await cursor.sort("sequence", DESCENDING).limit(history_max).to_list(history_max)
        if len(latest) < history_max:
            first, count = latest[-1] if latest else None, len(latest)
        else:
            first = await self._transactions.find_one(
                whose, sort=[("sequence", ASCENDING)], session=self._session
            )
            count = await self._transactions.count_documents(
                whose, limit=self._limits.counted_max + 1, session=self._session
            )
        since = {"sequence": {"$gte": latest[-1]["sequence"]}} if latest else {}
        bought = self._purchases.find({**whose, **since}, session=self._session)
        purchases = await bought.limit(history_max + 1).to_list(history_max + 1)
        try:
            return Sampled(
                user_id=user_id,
                account=_account(account),
                latest=_transactions(latest),
                purchases=_purchases(purchases),
                first_sequence=first["sequence"] if first else 0,
                transactions=count if count <= self._limits.counted_max else None,
            )
        except ValidationError as error:
            fields = sorted({".".join(str(part) for part in one["loc"]) for one in error.errors()})
            return Sampled(user_id=user_id, unreadable=f"{error.title}: {', '.join(fields)}")

    async def too_many_accounts(self) -> str:
        """Say why the sums are not looked at; empty when the ledger is small enough."""
        summed_max = self._limits.summed_max
        accounts = await self._accounts.count_documents(
            {}, limit=summed_max + 1, session=self._session
        )
        return f"there are more than {summed_max} accounts" if accounts > summed_max else ""

    async def sums(self, apps: Sequence[int]) -> tuple[AppSum, ...]:
        """Add up apps' totals, and what all accounts hold in them."""
        inside = {"$in": ["$$this.app_id", apps]}
        filtered = {"$filter": {"input": "$balances", "cond": inside}}
        held = await self._by_app(
            self._accounts.aggregate(
                [
                    {"$project": {"balances": filtered}},
                    {"$unwind": "$balances"},
                    {"$group": {"_id": "$balances.app_id", "sum": {"$sum": "$balances.balance"}}},
                ],
                session=self._session,
                maxTimeMS=max(1, int(self._limits.sums_seconds * 1000)),
            )
        )
        totals = await self._by_app(
            self._totals.aggregate(
                [
                    {"$match": {"app_id": {"$in": apps}}},
                    {"$group": {"_id": "$app_id", "sum": {"$sum": "$total"}}},
                ],
                session=self._session,
            )
        )
        return tuple(
            AppSum(app_id=app_id, total=totals.get(app_id, 0), held=held.get(app_id, 0))
            for app_id in apps
        )

    # Any: motor has no type for the cursor of an aggregation.
    async def _by_app(self, cursor: Any) -> dict[int, int]:
        return {entry["_id"]: entry["sum"] async for entry in cursor}


def _account(stored: _Document | None) -> Account | None:
    return None if stored is None else AccountDocument.model_validate(stored).to_account()


def _transactions(stored: Iterable[_Document]) -> tuple[Transaction, ...]:
    return tuple(TransactionDocument.model_validate(entry).to_transaction() for entry in stored)


def _purchases(stored: Iterable[_Document]) -> tuple[Purchase, ...]:
    return tuple(PurchaseDocument.model_validate(entry).to_purchase() for entry in stored)
