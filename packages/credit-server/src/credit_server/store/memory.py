"""The memory twin of the MongoDB store: the same port and the same guarantees, for tests."""

import asyncio
import itertools
import math
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from credit_models.ledger import (
    UINT32_MAX,
    Account,
    AppAccount,
    Kind,
    Policy,
    Purchase,
    ReportKey,
    Transaction,
    invariant,
)

from credit_server.store.alert_events import MemoryAlertEvents
from credit_server.store.checkpoints import MemoryCheckpoints
from credit_server.store.history import (
    BalanceAt,
    GroupBy,
    HistoryQuery,
    Page,
    PurchaseQuery,
    PurchaseRow,
    Summary,
    TransactionQuery,
    TransactionRow,
)
from credit_server.store.memory_queries import (
    effective_at,
    find_page,
    purchase_row,
    summary_of,
    transaction_row,
)
from credit_server.store.port import (
    PAGE_SIZE,
    AppKey,
    AppPolicy,
    Changes,
    ClockReading,
    Conflict,
    DirectoryUser,
    DueAccount,
    ExternalId,
    Head,
    HoldRow,
    LogEntry,
    LogPage,
    LogPosition,
    LogTruncated,
    Reference,
    References,
    StoreTransaction,
    StoreUnavailable,
    Void,
    Writer,
)
from credit_server.store.webhooks import MemoryWebhooks

_Entry = TypeVar("_Entry", Transaction, Purchase)


@dataclass(kw_only=True, slots=True)
class _Tables:
    """The committed data. Entries are immutable, so a shallow copy is a snapshot."""

    accounts: dict[int, Account] = field(default_factory=dict)
    transactions: dict[str, Transaction] = field(default_factory=dict)
    sequences: dict[tuple[int, int], str] = field(default_factory=dict)
    keys: dict[AppKey, str] = field(default_factory=dict)
    purchases: dict[str, Purchase] = field(default_factory=dict)
    totals: dict[tuple[int, int], int] = field(default_factory=dict)
    policies: dict[int, AppPolicy] = field(default_factory=dict)
    leases: dict[str, tuple[str, float]] = field(default_factory=dict)
    # All entries in the order of their commits. The position of an entry is its index plus 1.
    log: list[Transaction] = field(default_factory=list)
    users: dict[int | ExternalId, DirectoryUser] = field(default_factory=dict)
    last_user_id: int = 0
    # The ids of the entries that refer to an entry of the same user.
    related: dict[Reference, list[str]] = field(default_factory=dict)

    def latest_related(self, reference: Reference) -> Transaction | None:
        """Return the latest entry that refers to another one and belongs to the data."""
        ids = self.related.get(reference, ())
        # A snapshot has no entry of a later transaction.
        entries = [self.transactions[id_] for id_ in ids if id_ in self.transactions]
        return max(entries, key=lambda entry: entry.sequence, default=None)


class MemoryStore:
    """Stores everything in this process. Not durable."""

    def __init__(
        self, *, page_size: int = PAGE_SIZE, clock: Callable[[], float] = time.time
    ) -> None:
        """Create an empty store.

        Args:
            page_size: The number of entries of a list that are read at a time.
            clock: The store's clock, in seconds since 1970.
        """
        self.webhooks = MemoryWebhooks()
        self.alert_events = MemoryAlertEvents(self.webhooks)
        self.checkpoints = MemoryCheckpoints()
        self._clock = clock
        self._tables = _Tables()
        self._ids = itertools.count(1)
        self._page_size = page_size
        self._log_start = 0
        self._log_readers: set[asyncio.Event] = set()

    def new_id(self) -> str:
        """Return a new id: see the port."""
        return f"{next(self._ids):024x}"

    def writer(self) -> Writer:
        """Return a writer: see the port."""
        return self

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        """Begin a transaction: see the port. The store is its own writer."""
        yield _MemoryTransaction(self)

    async def account(self, user_id: int) -> Account | None:
        """Return a user's account: see the port."""
        return self._tables.accounts.get(user_id)

    async def account_since(self, user_id: int, position: LogPosition) -> Account | None:
        """Return a user's account: see the port."""
        if position.time > len(self._tables.log):
            raise StoreUnavailable("the store does not have the position yet")
        return await self.account(user_id)

    async def latest_revision(self, user_id: int) -> int:
        """Return a user's revision: see the port."""
        account = self._tables.accounts.get(user_id)
        return 0 if account is None else account.revision

    async def app_total(self, app_id: int) -> int:
        """Return the sum of all balances in an app: see the port."""
        return sum(total for (app, _), total in self._tables.totals.items() if app == app_id)

    async def hold_entries(
        self,
        user_id: int,
        app_id: int,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
        limit: int,
    ) -> Sequence[HoldRow]:
        """Return holds with the latest entry of each: see the port."""
        self._check_stored(user_id, stored_sequence)
        placed = [
            entry
            for entry in self._tables.transactions.values()
            if (entry.user_id, entry.app_id, entry.kind) == (user_id, app_id, Kind.HOLD)
            and entry.sequence > after_sequence
        ]
        placed.sort(key=lambda entry: entry.sequence)
        return [
            HoldRow(hold, self._tables.latest_related((user_id, hold.id)))
            for hold in placed[:limit]
        ]

    async def policy(self, app_id: int) -> AppPolicy:
        """Return the policy of an app: see the port."""
        return await self.latest_policy(app_id)

    async def latest_policy(self, app_id: int) -> AppPolicy:
        """Return the policy of an app: see the port."""
        return self._tables.policies.get(app_id, AppPolicy(app_id=app_id))

    async def set_policy(self, changed: AppPolicy) -> None:
        """Store the policy of an app: see the port."""
        stored = await self.latest_policy(changed.app_id)
        if stored.revision != changed.revision - 1:
            raise Conflict(f"the policy of app {changed.app_id} has changed since it was read")
        self._tables.policies[changed.app_id] = changed

    async def find_user(self, name: int | ExternalId) -> DirectoryUser | None:
        """Return a user of the directory: see the port."""
        return self._tables.users.get(name)

    async def next_user_id(self, first: int) -> int | None:
        """Return a new number of a user: see the port."""
        following = max(first, self._tables.last_user_id + 1)
        while following in self._tables.accounts:
            following += 1
        self._tables.last_user_id = following
        return following if following <= UINT32_MAX else None

    async def add_user(self, user: DirectoryUser) -> DirectoryUser:
        """Store a user of the directory: see the port."""
        users, name = self._tables.users, (user.app_id, user.external_id)
        if name not in users:
            if user.user_id in users:
                raise Conflict(f"the number {user.user_id} is taken")
            users[user.user_id] = users[name] = user
        return users[name]

    async def due_accounts(
        self, before: datetime, *, after: DueAccount | None = None, limit: int
    ) -> Sequence[DueAccount]:
        """Return accounts in which something is due: see the port."""
        due = []
        for account in self._tables.accounts.values():
            apps = {
                app_id: app
                for app_id, app in sorted(account.apps.items())
                if app.due_at is not None and app.due_at <= before
            }
            times = [app.due_at for app in apps.values() if app.due_at is not None]
            if times:
                counts = {app_id: _count_due(app, before) for app_id, app in apps.items()}
                due.append(DueAccount(min(times), account.user_id, counts))
        due.sort()
        start = (datetime.min.replace(tzinfo=UTC), 0) if after is None else after[:2]
        return [account for account in due if account[:2] > start][:limit]

    async def heads(self, app_id: int, *, page_size: int) -> AsyncIterator[Sequence[Head]]:
        """Iterate over the heads of the users in an app: see the port."""
        last, full = 0, True
        while full:
            found = sorted(each for each in self._tables.accounts.items() if each[0] > last)
            full = len(found) >= page_size
            last = found[page_size - 1][0] if full else last
            yield [
                Head(user_id, account.heads[app_id])
                for user_id, account in found[:page_size]
                if app_id in account.heads
            ]

    async def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take a lease, or extend it: see the port."""
        now = self._clock()
        holder, until = self._tables.leases.get(name, (owner, now))
        if holder != owner and until > now:
            return False
        self._tables.leases[name] = (owner, now + seconds)
        return True

    async def list_transactions(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[TransactionRow]]:
        """Iterate over pages of transactions: see the port."""
        self._check_stored(user_id, stored_sequence)
        for page in self._pages(self._tables.transactions, user_id, apps, after_sequence):
            yield [transaction_row(entry) for entry in page]

    async def list_purchases(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[PurchaseRow]]:
        """Iterate over pages of purchases: see the port."""
        self._check_stored(user_id, stored_sequence)
        for page in self._pages(self._tables.purchases, user_id, apps, after_sequence):
            yield [purchase_row(purchase) for purchase in page]

    def _pages(
        self, table: Mapping[str, _Entry], user_id: int, apps: frozenset[int] | None, last: int
    ) -> Iterator[list[_Entry]]:
        """Read page by page, like the MongoDB store: a later page has entries added meanwhile."""
        full = True
        while full:
            entries = [
                entry
                for entry in table.values()
                if entry.user_id == user_id
                and entry.sequence > last
                and (apps is None or entry.app_id in apps)
            ]
            entries.sort(key=lambda entry: entry.sequence)
            page = entries[: self._page_size]
            full = len(page) == self._page_size
            if page:
                last = page[-1].sequence
                yield page

    async def query_transactions(self, query: TransactionQuery) -> Page[TransactionRow]:
        """Return a page of transactions: see the port."""
        self._check_stored(query.user_id, query.stored_sequence)
        return find_page(query, self._tables.transactions.values(), self._clock(), transaction_row)

    async def query_purchases(self, query: PurchaseQuery) -> Page[PurchaseRow]:
        """Return a page of purchases: see the port."""
        self._check_stored(query.user_id, query.stored_sequence)
        return find_page(query, self._tables.purchases.values(), self._clock(), purchase_row)

    async def find_transaction(self, name: str | AppKey) -> TransactionRow | None:
        """Return the transaction with an id or with a key: see the port."""
        id_ = name if isinstance(name, str) else self._tables.keys.get(name, "")
        entry = self._tables.transactions.get(id_)
        return None if entry is None else transaction_row(entry)

    async def summarize(self, query: HistoryQuery, group_by: GroupBy) -> Summary:
        """Return sums of transactions in a span of time: see the port."""
        self._check_stored(query.user_id, query.stored_sequence)
        return summary_of(query, self._tables.transactions.values(), self._clock(), group_by)

    async def balance_at(
        self, user_id: int, app_id: int, *, end: int, at: datetime | None = None
    ) -> BalanceAt:
        """Return a user's balance in an app at some point: see the port."""
        self._check_stored(user_id, end - 1)
        entries = sorted(
            (
                entry
                for entry in self._tables.transactions.values()
                if (entry.user_id, entry.app_id) == (user_id, app_id) and entry.sequence < end
            ),
            key=lambda entry: entry.sequence,
        )
        counted = [entry for entry in entries if at is None or effective_at(entry) <= at]
        last = counted[-1] if counted else None
        return BalanceAt(
            sequence=0 if last is None else last.sequence,
            balance=0 if last is None else last.balance_after,
            is_latest=len(counted) == len(entries),
        )

    def _check_stored(self, user_id: int | None, sequence: int) -> None:
        """Check that a transaction exists, as the MongoDB store does before some reads."""
        if user_id is not None and sequence and (user_id, sequence) not in self._tables.sequences:
            raise StoreUnavailable("the store does not have the transaction yet")

    async def follow_log(self) -> AsyncGenerator[LogPage, None]:
        """Iterate over what is committed from now on: see the port."""
        committed = asyncio.Event()
        self._log_readers.add(committed)
        try:
            after = len(self._tables.log)
            yield LogPage([], _position(after), at_end=True)
            while True:
                await committed.wait()
                committed.clear()
                page = self._log_page(after, None, len(self._tables.log))
                after = page.end.time
                yield page
        finally:
            self._log_readers.discard(committed)

    async def read_log(self, after: bytes, app_id: int, *, limit: int) -> LogPage:
        """Return the transactions in an app after a position: see the port."""
        start = int.from_bytes(after, "big")
        if not self._log_start <= start <= len(self._tables.log):
            raise LogTruncated("the log does not have the position")
        return self._log_page(start, app_id, limit)

    def truncate_log(self) -> None:
        """Drop the log so far, as a database does when its log is full."""
        self._log_start = len(self._tables.log)

    def _log_page(self, after: int, app_id: int | None, limit: int) -> LogPage:
        entries = [
            LogEntry(_position(place), each.user_id, each.app_id, partial(transaction_row, each))
            for place, each in enumerate(self._tables.log[after:], after + 1)
            if app_id in (None, each.app_id)
        ]
        if len(entries) > limit:
            return LogPage(entries[:limit], entries[limit - 1].position, at_end=False)
        return LogPage(entries, _position(len(self._tables.log)), at_end=True)

    def _notify_log_readers(self) -> None:
        for committed in self._log_readers:
            committed.set()

    async def ping(self) -> ClockReading:
        """Return the time at once: memory is always available."""
        moment = time.monotonic()
        # With the precision of MongoDB.
        seconds = math.floor(self._clock() * 1000) / 1000
        return ClockReading(store_seconds=seconds, asked_at=moment, answered_at=moment)


class _MemoryTransaction:
    """Reads what was committed when it began; checks for conflicts when it writes and commits."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        tables = store._tables  # noqa: SLF001 - the transaction belongs to the store
        self._snapshot = replace(
            tables,
            accounts=dict(tables.accounts),
            transactions=dict(tables.transactions),
            keys=dict(tables.keys),
            purchases=dict(tables.purchases),
            policies=dict(tables.policies),
        )
        self._changes: list[Changes] = []

    async def accounts(self, user_ids: Collection[int]) -> dict[int, Account]:
        known = self._snapshot.accounts
        return {user_id: known[user_id] for user_id in user_ids if user_id in known}

    async def transactions(
        self, keys: Collection[AppKey], ids: Collection[str]
    ) -> list[Transaction]:
        found = {self._snapshot.keys[key] for key in keys if key in self._snapshot.keys}
        found.update(id_ for id_ in ids if id_ in self._snapshot.transactions)
        return [self._snapshot.transactions[id_] for id_ in found]

    async def policies(self, app_ids: Collection[int]) -> dict[int, Policy]:
        stored = self._snapshot.policies
        return {app_id: stored[app_id].policy for app_id in app_ids if app_id in stored}

    async def references(
        self, references: Collection[Reference], reports: Collection[ReportKey]
    ) -> References:
        snapshot = self._snapshot
        entries = {
            (user_id, id_): entry
            for user_id, id_ in references
            if (entry := snapshot.transactions.get(id_)) is not None and entry.user_id == user_id
        }
        related = {
            reference: entry
            for reference in references
            if (entry := snapshot.latest_related(reference)) is not None
        }
        limit = 1 + len(references)
        return References(
            entries=entries,
            latest_related=related,
            voided=self._voided(entries.values()),
            purchases={report: self._owned(report)[:limit] for report in reports},
        )

    def _voided(self, entries: Iterable[Transaction]) -> dict[Reference, Void]:
        paid = {
            (entry.user_id, part.grant_id)
            for entry in entries
            if entry.kind is Kind.USE
            for part in entry.details.allocations
        }
        voids = [
            entry
            for entry in self._snapshot.transactions.values()
            if entry.kind is Kind.VOID and (entry.user_id, entry.details.related_id) in paid
        ]
        voids.sort(key=lambda entry: entry.sequence)
        return {
            (entry.user_id, entry.details.related_id): Void(entry.sequence, entry.created_at)
            for entry in voids
        }

    def _owned(self, report: ReportKey) -> list[Purchase]:
        owned = [
            purchase
            for purchase in self._snapshot.purchases.values()
            if (purchase.user_id, purchase.app_id, purchase.report_id) == report
            and purchase.refunded_credits < purchase.credits
        ]
        return sorted(owned, key=lambda purchase: purchase.sequence, reverse=True)

    async def write(self, changes: Changes) -> None:
        self._check(changes)
        self._changes.append(changes)

    async def commit(self, check: Callable[[], None] | None = None) -> None:
        for changes in self._changes:
            self._check(changes)
        if check is not None:
            check()
        for changes in self._changes:
            self._apply(changes)
        self._store._notify_log_readers()  # noqa: SLF001

    def _check(self, changes: Changes) -> None:
        tables = self._store._tables  # noqa: SLF001
        for before, account in changes.accounts:
            current = tables.accounts.get(account.user_id)
            if (0 if current is None else current.revision) != before.revision:
                raise Conflict(f"the account of user {account.user_id} has changed")
            # The MongoDB store relies on it: it writes only what differs.
            invariant(
                current is None or current.apps == before.apps,
                "an account of a revision has the contents that are stored",
            )
        for entry in changes.transactions:
            taken = (
                entry.id in tables.transactions
                or (entry.user_id, entry.sequence) in tables.sequences
                or (entry.key and (entry.user_id, entry.app_id, entry.key) in tables.keys)
            )
            if taken:
                raise Conflict(f"a unique value of transaction {entry.id} is taken")
        bought = {purchase.id: purchase for purchase in changes.purchases}
        for user_id, refunded in changes.refunded:
            id_ = refunded.purchase_id
            purchase = bought.get(id_) or tables.purchases.get(id_)
            if purchase is None or purchase.user_id != user_id:
                raise Conflict(f"the purchase {refunded.purchase_id} is not stored")

    def _apply(self, changes: Changes) -> None:
        tables = self._store._tables  # noqa: SLF001
        for _, account in changes.accounts:
            current = tables.accounts.get(account.user_id)
            id_ = self._store.new_id() if current is None else current.id
            tables.accounts[account.user_id] = replace(account, id=id_)
        for entry in changes.transactions:
            tables.transactions[entry.id] = entry
            tables.log.append(entry)
            tables.sequences[entry.user_id, entry.sequence] = entry.id
            if entry.key:
                tables.keys[entry.user_id, entry.app_id, entry.key] = entry.id
            if entry.details.related_id:
                related = tables.related.setdefault((entry.user_id, entry.details.related_id), [])
                related.append(entry.id)
        for purchase in changes.purchases:
            tables.purchases[purchase.id] = purchase
        for _, refunded in changes.refunded:
            tables.purchases[refunded.purchase_id] = replace(
                tables.purchases[refunded.purchase_id], refunded_credits=refunded.refunded_credits
            )
        for app_id, delta in changes.totals.items():
            part = (app_id, changes.counter_shard)
            tables.totals[part] = tables.totals.get(part, 0) + delta
        self._store.alert_events.add(changes.events)


def _position(place: int) -> LogPosition:
    return LogPosition(place, place.to_bytes(8, "big"))


def _count_due(app: AppAccount, before: datetime) -> int:
    times = [
        *(grant.ends_at for grant in app.grants),
        *(grant.starts_at for grant in app.scheduled),
        *(hold.ends_at for hold in app.holds),
    ]
    return sum(time is not None and time <= before for time in times)
