"""A sample of the ledger: the accounts that changed last, with the end of their histories.

All of it is read from one snapshot, so that a difference is an error and not a race, and in the
order of indexes, so that it is quick on a large ledger. Only the sums of apps need a scan, which is
bounded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.codec_options import CodecOptions
from bson.objectid import ObjectId
from credit_models.ledger import Account, Purchase, Transaction
from pydantic import ValidationError
from pymongo import ASCENDING, DESCENDING
from pymongo.asynchronous.command_cursor import AsyncCommandCursor
from pymongo.errors import ExecutionTimeout

from credit_server.store import schema
from credit_server.store.documents import AccountDocument, PurchaseDocument, TransactionDocument
from credit_server.store.driver import Client, Collection, Database, Session
from credit_server.store.driver import Document as _Document
from credit_server.store.errors import all_translated

# The accounts are those of the latest transactions: of this many times the number of accounts.
_TRANSACTIONS_PER_ACCOUNT = 20

_FUTURE_MAX = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledAccount:
    """One account of a sample.

    Attributes:
        user_id: The user.
        account: The account; None if it is missing although there is history.
        latest: The latest transactions, the newest first.
        purchases: The purchases in the range of sequences of `latest`.
        first_sequence: The sequence of the first transaction; 0 if there is none.
        transactions: The number of transactions; None: too many to count.
        unreadable: Why a document is not one that this release writes; empty if all are.
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
        app_id: The app.
        total: The sum of its counter shards.
        held: The sum of all balances in it.
    """

    app_id: int
    total: int
    held: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerSample:
    """A sample of the ledger.

    Attributes:
        accounts: The accounts that changed last.
        apps: The apps of the latest transactions.
        apps_unread: Why the sums of apps were not read; empty if they were.
    """

    accounts: tuple[SampledAccount, ...] = ()
    apps: tuple[AppSum, ...] = ()
    apps_unread: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleLimits:
    """The limits of a sample.

    Attributes:
        accounts_max: The most accounts.
        history_max: The most transactions of each account.
        counted_max: The most transactions of an account that are counted.
        apps_max: The most apps.
        summed_max: The most accounts in the ledger with which the sums of apps are read.
        sums_seconds: How long the sums may take.
    """

    accounts_max: int
    history_max: int
    counted_max: int
    apps_max: int
    summed_max: int
    sums_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FutureEntry:
    """An entry that is dated after the store's time.

    Attributes:
        user_id: The user.
        sequence: Its position in the user's history.
        ahead_seconds: How far its date is after the store's time.
    """

    user_id: int
    sequence: int
    ahead_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FutureEntries:
    """The entries that were found; at most a hundred.

    Attributes:
        entries: The entries, those with the newest ids first.
        whole: Whether the search was completed, or ended because enough were found.
    """

    entries: tuple[FutureEntry, ...] = ()
    whole: bool = True


async def sample_ledger(client: Client, *, database: str, limits: SampleLimits) -> LedgerSample:
    """Read the accounts of the latest transactions, and the sums of their apps.

    Args:
        client: A connection to MongoDB 5.0 or later with a primary.
        database: The name of the ledger's database.
        limits: The limits of the sample.

    Raises:
        StoreError: The store cannot be read.
    """
    with all_translated():
        async with client.start_session(snapshot=True) as session:
            sampler = _Sampler(client[database], session, limits)
            users, apps = await sampler.newest()
            accounts = tuple([await sampler.account(user_id) for user_id in users])
            if unread := await sampler.too_many_accounts():
                return LedgerSample(accounts=accounts, apps_unread=unread)
            try:
                return LedgerSample(accounts=accounts, apps=await sampler.sums(apps))
            except ExecutionTimeout:
                unread = f"they take more than {limits.sums_seconds:g} s"
                return LedgerSample(accounts=accounts, apps_unread=unread)


class _Sampler:
    """Reads from one snapshot."""

    def __init__(
        self,
        ledger: Database,
        session: Session,
        limits: SampleLimits,
    ) -> None:
        self._session = session
        self._limits = limits
        self._accounts = ledger[schema.USER_CREDITS]
        self._transactions = ledger[schema.CREDIT_TRANSACTIONS]
        self._purchases = ledger[schema.PURCHASES]
        self._totals = ledger[schema.APP_TOTALS]

    async def newest(self) -> tuple[list[int], list[int]]:
        """Return the users and apps of the latest transactions and of the newest accounts."""
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
        # The transactions do not lead to an account without history.
        accounts = self._accounts.find({}, fields, session=self._session)
        async for entry in accounts.sort("_id", DESCENDING).limit(accounts_max):
            users[entry["user_id"]] = None
        return list(users)[:accounts_max], list(apps)[: self._limits.apps_max]

    async def account(self, user_id: int) -> SampledAccount:
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
            return SampledAccount(
                user_id=user_id,
                account=_account(account),
                latest=_transactions(latest),
                purchases=_purchases(purchases),
                first_sequence=first["sequence"] if first else 0,
                transactions=count if count <= self._limits.counted_max else None,
            )
        except ValidationError as error:
            fields = sorted({".".join(str(part) for part in one["loc"]) for one in error.errors()})
            return SampledAccount(user_id=user_id, unreadable=f"{error.title}: {', '.join(fields)}")

    async def too_many_accounts(self) -> str:
        """Return why the sums are not read; empty if the ledger is small enough."""
        summed_max = self._limits.summed_max
        accounts = await self._accounts.count_documents(
            {}, limit=summed_max + 1, session=self._session
        )
        return f"there are more than {summed_max} accounts" if accounts > summed_max else ""

    async def sums(self, apps: Sequence[int]) -> tuple[AppSum, ...]:
        """Return the totals of apps, and the sums of all balances in them."""
        inside = {"$in": ["$$this.app_id", apps]}
        filtered = {"$filter": {"input": "$balances", "cond": inside}}
        held = await self._by_app(
            await self._accounts.aggregate(
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
            await self._totals.aggregate(
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

    async def _by_app(self, cursor: AsyncCommandCursor[_Document]) -> dict[int, int]:
        return {entry["_id"]: entry["sum"] async for entry in cursor}


def _account(stored: _Document | None) -> Account | None:
    return None if stored is None else AccountDocument.model_validate(stored).to_account()


def _transactions(stored: Iterable[_Document]) -> tuple[Transaction, ...]:
    return tuple(TransactionDocument.model_validate(entry).to_transaction() for entry in stored)


def _purchases(stored: Iterable[_Document]) -> tuple[Purchase, ...]:
    return tuple(PurchaseDocument.model_validate(entry).to_purchase() for entry in stored)


async def future_entries(
    client: Client, *, database: str, tolerance_seconds: float, search_seconds: float
) -> FutureEntries:
    """Find entries that are dated after the store's time.

    An id contains the clock of the server that made it, so an index leads to the entries of a
    server whose clock was ahead. Other servers may have adopted the date: these entries are
    searched without an index, from the newest on, for a limited time.

    Args:
        client: A connection to MongoDB with a primary.
        database: The name of the ledger's database.
        tolerance_seconds: How far a correct server's clock may be ahead of the store's.
        search_seconds: How long the search without an index may take.

    Raises:
        StoreError: The store cannot be read.
    """
    with all_translated():
        hello = await client.admin.command("hello")
        store_time = hello["localTime"].replace(tzinfo=UTC)
        after = store_time + timedelta(seconds=tolerance_seconds)
        transactions = client.get_database(database, codec_options=CodecOptions(tz_aware=True))[
            schema.CREDIT_TRANSACTIONS
        ]
        dated = {"created_at": {"$gt": after}}
        found = await _find_future(
            transactions, {"_id": {"$gte": ObjectId.from_datetime(after)}, **dated}
        )
        whole = True
        if len(found) < _FUTURE_MAX:
            milliseconds = max(1, int(search_seconds * 1000))
            try:
                found = await _find_future(transactions, dated, milliseconds)
            except ExecutionTimeout:
                whole = False
        return FutureEntries(
            entries=tuple(_future_entry(document, store_time) for document in found), whole=whole
        )


async def _find_future(
    transactions: Collection,
    query: Mapping[str, Any],
    milliseconds: int | None = None,
) -> list[_Document]:
    cursor = transactions.find(query, {"user_id": 1, "sequence": 1, "created_at": 1})
    cursor = cursor.sort("_id", DESCENDING).limit(_FUTURE_MAX)
    if milliseconds is not None:
        cursor = cursor.max_time_ms(milliseconds)
    return await cursor.to_list(_FUTURE_MAX)


def _future_entry(document: _Document, store_time: datetime) -> FutureEntry:
    return FutureEntry(
        user_id=document["user_id"],
        sequence=document["sequence"],
        ahead_seconds=(document["created_at"] - store_time).total_seconds(),
    )
