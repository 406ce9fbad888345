"""Provide memory stores that misbehave in one way each."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from credit_models.ledger import (
    ACCOUNT_ITEMS_MAX,
    APPS_MAX,
    GRANTS_MAX,
    Account,
    AppAccount,
    Grant,
)
from credit_server.store.alert_events import EventPage, MemoryAlertEvents
from credit_server.store.checkpoints import MemoryCheckpoints, StoredCheckpoint
from credit_server.store.history import (
    SUMMARIZED_MAX,
    BalanceAt,
    GroupBy,
    HistoryQuery,
    Page,
    PurchaseQuery,
    PurchaseRow,
    Summary,
    SummaryRow,
    TransactionQuery,
    TransactionRow,
)
from credit_server.store.memory import MemoryStore
from credit_server.store.port import (
    AppKey,
    AppPolicy,
    Changes,
    ClockReading,
    DirectoryUser,
    ExternalId,
    Head,
    HoldRow,
    LogPage,
    LogPosition,
    StoreTransaction,
)
from credit_server.store.webhooks import Delivery, MemoryWebhooks, Webhook


class HeldStore(MemoryStore):
    """Hold every transaction until the test releases them.

    Attributes:
        entered: Set when a transaction has begun.
        released: Set by the test to let all transactions run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Event()
        self.released = asyncio.Event()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        self.entered.set()
        await self.released.wait()
        async with super().begin() as transaction:
            yield transaction


class GatedStore(MemoryStore):
    """Return a page of transactions only for each permit of the test.

    Attributes:
        asked: The users whose pages were requested, in order.
        allowed: One permit for each page.
    """

    def __init__(self) -> None:
        super().__init__(page_size=1)
        self.asked: list[int] = []
        self.allowed = asyncio.Semaphore(0)

    async def list_transactions(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[TransactionRow]]:
        pages = super().list_transactions(user_id, apps, after_sequence=after_sequence)
        while True:
            self.asked.append(user_id)
            await self.allowed.acquire()
            page = await anext(pages, None)
            if page is None:
                return
            yield page


class EndlessStore(MemoryStore):
    """Return the same history again and again, without an end."""

    async def list_transactions(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[TransactionRow]]:
        while True:
            async for page in super().list_transactions(user_id, apps):
                yield page
            await asyncio.sleep(0)


class _FailingAlertEvents(MemoryAlertEvents):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def order(self, limit: int) -> int:
        raise self._error

    async def newest(self) -> int:
        raise self._error

    async def remove_before(self, time: datetime, limit: int) -> int:
        raise self._error

    async def page(
        self, app_id: int, user_id: int | None = None, *, after_position: int = 0, limit: int
    ) -> EventPage:
        raise self._error


class _FailingWebhooks(MemoryWebhooks):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def set(self, webhook: Webhook, *, keep_secret: bool = False) -> Webhook:
        raise self._error

    async def of_app(self, app_id: int) -> Sequence[Webhook]:
        raise self._error

    async def remove(self, app_id: int, url: str) -> None:
        raise self._error

    async def dead_letters(
        self, app_id: int, *, after_id: str = "", limit: int
    ) -> Sequence[tuple[Delivery, Webhook]]:
        raise self._error

    async def resend(self, app_id: int, id_: str, now: datetime) -> int:
        raise self._error


class _FailingCheckpoints(MemoryCheckpoints):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def newest(self, app_id: int, limit: int) -> Sequence[StoredCheckpoint]:
        raise self._error


class LaggingStore(MemoryStore):
    """Return the remembered account of a user for the next `lag` reads.

    A node that lags behind does this. `account_since` does the same, as if the log was read from
    that node, too.

    Attributes:
        lag: How many of the next reads return the account of the past; see `remember`.
        reads: How often an account was read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lag = 0
        self.reads = 0
        self._past: dict[int, Account | None] = {}

    async def remember(self, user_id: int) -> None:
        """Let the account as it is now be the one of the past."""
        self._past[user_id] = await super().account(user_id)

    async def account(self, user_id: int) -> Account | None:
        self.reads += 1
        if self.lag > 0 and user_id in self._past:
            self.lag -= 1
            return self._past[user_id]
        return await super().account(user_id)

    async def account_since(self, user_id: int, position: LogPosition) -> Account | None:
        return await self.account(user_id)


class FailingStore(MemoryStore):
    """Raise one exception from every operation."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error
        self.webhooks = _FailingWebhooks(error)
        self.alert_events = _FailingAlertEvents(error)
        self.checkpoints = _FailingCheckpoints(error)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        raise self._error
        yield  # a generator needs one

    async def account(self, user_id: int) -> Account | None:
        raise self._error

    async def account_since(self, user_id: int, position: LogPosition) -> Account | None:
        raise self._error

    async def latest_revision(self, user_id: int) -> int:
        raise self._error

    async def app_total(self, app_id: int) -> int:
        raise self._error

    async def hold_entries(
        self,
        user_id: int,
        app_id: int,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
        limit: int,
    ) -> Sequence[HoldRow]:
        raise self._error

    async def query_transactions(self, query: TransactionQuery) -> Page[TransactionRow]:
        raise self._error

    async def query_purchases(self, query: PurchaseQuery) -> Page[PurchaseRow]:
        raise self._error

    async def summarize(self, query: HistoryQuery, group_by: GroupBy) -> Summary:
        raise self._error

    async def balance_at(
        self, user_id: int, app_id: int, *, end: int, at: datetime | None = None
    ) -> BalanceAt:
        raise self._error

    async def follow_log(self) -> AsyncGenerator[LogPage, None]:
        raise self._error
        yield LogPage([], LogPosition(0, b""), at_end=True)

    async def find_transaction(self, name: str | AppKey) -> TransactionRow | None:
        raise self._error

    async def find_user(self, name: int | ExternalId) -> DirectoryUser | None:
        raise self._error

    async def ping(self) -> ClockReading:
        raise self._error

    async def heads(self, app_id: int, *, page_size: int) -> AsyncIterator[Sequence[Head]]:
        raise self._error
        yield []

    async def policy(self, app_id: int) -> AppPolicy:
        raise self._error

    async def latest_policy(self, app_id: int) -> AppPolicy:
        raise self._error

    async def set_policy(self, changed: AppPolicy) -> None:
        raise self._error

    async def list_transactions(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[TransactionRow]]:
        raise self._error
        yield []

    async def list_purchases(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[PurchaseRow]]:
        raise self._error
        yield []


class LongHistoryStore(MemoryStore):
    """Return a summary of one transaction more than are added up."""

    async def summarize(self, query: HistoryQuery, group_by: GroupBy) -> Summary:
        return Summary([SummaryRow("", SUMMARIZED_MAX + 1, 0, 0, 0, 0, 0)], None)


async def crowded_store() -> MemoryStore:
    """Return a store in which user 7 can have one more grant or hold, and has none in app 1."""
    store, now = MemoryStore(), datetime(2026, 1, 2, tzinfo=UTC)
    sequences = itertools.count(1)
    apps: dict[int, AppAccount] = {}
    while (missing := ACCOUNT_ITEMS_MAX - 1 - sum(app.items for app in apps.values())) > 0:
        grants = [
            Grant(id=f"{number:024x}", sequence=number, credits=2, left=2, created_by=1)
            for number in itertools.islice(sequences, min(missing, GRANTS_MAX))
        ]
        apps[2 + len(apps)] = AppAccount.of(grants=tuple(grants))
    await _put(
        store,
        Account(
            user_id=7,
            balances={app_id: app.granted for app_id, app in apps.items()},
            apps=apps,
            revision=next(sequences) - 1,
            created_at=now,
            updated_at=now,
            created_by=1,
            updated_by=1,
        ),
    )
    return store


async def full_store() -> MemoryStore:
    """Return a store in which user 7 has credits in `APPS_MAX` apps, and none in app 1."""
    store, now = MemoryStore(), datetime(2026, 1, 2, tzinfo=UTC)
    full = Account(
        user_id=7,
        balances=dict.fromkeys(range(2, APPS_MAX + 2), 1),
        revision=APPS_MAX,
        created_at=now,
        updated_at=now,
        created_by=1,
        updated_by=1,
    )
    await _put(store, full)
    return store


async def _put(store: MemoryStore, account: Account) -> None:
    async with store.writer().begin() as transaction:
        await transaction.write(
            Changes(
                accounts=[(Account.empty(account.user_id), account)],
                transactions=[],
                purchases=[],
                totals={},
                counter_shard=0,
            )
        )
        await transaction.commit()
