"""The memory twin of the MongoDB store: the same port and the same guarantees, for tests."""

import itertools
import math
import time
from collections.abc import (
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
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from credit_models.ledger import (
    NO_DETAILS,
    UINT32_MAX,
    Account,
    AppAccount,
    Kind,
    Purchase,
    ReportKey,
    Transaction,
    invariant,
)

from credit_server.store.alert_events import MemoryAlertEvents
from credit_server.store.port import (
    EXAMINED_MAX,
    PAGE_SIZE,
    AppKey,
    AppPolicy,
    Changes,
    ClockReading,
    Conflict,
    DueAccount,
    HoldRow,
    PurchaseRow,
    Reference,
    References,
    RowDetails,
    StoreTransaction,
    TransactionPage,
    TransactionQuery,
    TransactionRow,
    Writer,
    milliseconds_up,
)
from credit_server.store.webhooks import MemoryWebhooks

_Entry = TypeVar("_Entry", Transaction, Purchase)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
        self._clock = clock
        self._tables = _Tables()
        self._ids = itertools.count(1)
        self._page_size = page_size

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

    async def app_total(self, app_id: int) -> int:
        """Return the sum of all balances in an app: see the port."""
        return sum(total for (app, _), total in self._tables.totals.items() if app == app_id)

    async def hold_entries(
        self, user_id: int, app_id: int, *, after_sequence: int = 0, limit: int
    ) -> Sequence[HoldRow]:
        """Return holds with the latest entry of each: see the port."""
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
        return self._tables.policies.get(app_id, AppPolicy(app_id=app_id))

    async def set_policy(self, changed: AppPolicy) -> None:
        """Store the policy of an app: see the port."""
        stored = await self.policy(changed.app_id)
        if stored.revision != changed.revision - 1:
            raise Conflict(f"the policy of app {changed.app_id} has changed since it was read")
        self._tables.policies[changed.app_id] = changed

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

    async def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take a lease, or extend it: see the port."""
        now = self._clock()
        holder, until = self._tables.leases.get(name, (owner, now))
        if holder != owner and until > now:
            return False
        self._tables.leases[name] = (owner, now + seconds)
        return True

    async def list_transactions(
        self, user_id: int, apps: frozenset[int] | None = None, *, after_sequence: int = 0
    ) -> AsyncIterator[Sequence[TransactionRow]]:
        """Iterate over pages of transactions: see the port."""
        for page in self._pages(self._tables.transactions, user_id, apps, after_sequence):
            yield [_transaction_row(entry) for entry in page]

    async def list_purchases(
        self, user_id: int, apps: frozenset[int] | None = None, *, after_sequence: int = 0
    ) -> AsyncIterator[Sequence[PurchaseRow]]:
        """Iterate over pages of purchases: see the port."""
        for page in self._pages(self._tables.purchases, user_id, apps, after_sequence):
            yield [_purchase_row(purchase) for purchase in page]

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

    async def query_transactions(self, query: TransactionQuery) -> TransactionPage:
        """Return a page of a user's transactions: see the port."""
        # These are the steps of the MongoDB store: take the entries of the index, then those that
        # may be examined, then those that satisfy the conditions.
        entries = [entry for entry in self._tables.transactions.values() if _in_scan(query, entry)]
        entries.sort(key=lambda entry: entry.sequence, reverse=query.newest_first)
        satisfies = _conditions(query)
        examined = entries[:EXAMINED_MAX] if satisfies else entries
        found = [entry for entry in examined if all(one(entry) for one in satisfies)]
        rows = [_transaction_row(entry) for entry in found[: query.limit]]
        if len(found) > query.limit:
            return TransactionPage(rows, rows[-1].sequence)
        full = bool(satisfies) and len(examined) == EXAMINED_MAX
        return TransactionPage(rows, examined[-1].sequence if full else None)

    async def find_transaction(self, name: str | AppKey) -> TransactionRow | None:
        """Return the transaction with an id or with a key: see the port."""
        id_ = name if isinstance(name, str) else self._tables.keys.get(name, "")
        entry = self._tables.transactions.get(id_)
        return None if entry is None else _transaction_row(entry)

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

    def _voided(self, entries: Iterable[Transaction]) -> dict[Reference, int]:
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
        return {(entry.user_id, entry.details.related_id): entry.sequence for entry in voids}

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

    async def commit(self) -> None:
        for changes in self._changes:
            self._check(changes)
        for changes in self._changes:
            self._apply(changes)

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


def _count_due(app: AppAccount, before: datetime) -> int:
    times = [
        *(grant.ends_at for grant in app.grants),
        *(grant.starts_at for grant in app.scheduled),
        *(hold.ends_at for hold in app.holds),
    ]
    return sum(time is not None and time <= before for time in times)


def _in_scan(query: TransactionQuery, entry: Transaction) -> bool:
    """Return whether an entry is in the part of an index that a query scans in MongoDB."""
    before, created_at = query.before_sequence, _milliseconds(entry.created_at)
    return (
        entry.user_id == query.user_id
        and entry.sequence > query.after_sequence
        and (before is None or entry.sequence < before)
        and (query.created_from is None or created_at >= milliseconds_up(query.created_from))
        and (query.created_until is None or created_at < milliseconds_up(query.created_until))
        and query.related_id in ("", entry.details.related_id)
        and (bool(query.related_id) or query.apps is None or entry.app_id in query.apps)
    )


def _conditions(query: TransactionQuery) -> list[Callable[[Transaction], bool]]:
    """Return the conditions of a query that no index serves."""
    conditions: list[Callable[[Transaction], bool]] = []
    apps = query.apps
    if query.related_id and apps is not None:
        conditions.append(lambda entry: entry.app_id in apps)
    if query.kinds:
        conditions.append(lambda entry: entry.kind in query.kinds)
    if query.credits_min > 0 or query.credits_max < UINT32_MAX:
        conditions.append(lambda entry: query.credits_min <= entry.credits <= query.credits_max)
    if query.report_id:
        conditions.append(lambda entry: entry.report_id == query.report_id)
    if query.created_by is not None:
        conditions.append(lambda entry: entry.created_by == query.created_by)
    if query.metadata:
        conditions.append(lambda entry: set(query.metadata) <= set(entry.details.metadata))
    if query.grant_id:
        conditions.append(
            lambda entry: query.grant_id in (part.grant_id for part in entry.details.allocations)
        )
    return conditions


def _transaction_row(entry: Transaction) -> TransactionRow:
    return TransactionRow(
        id=entry.id,
        user_id=entry.user_id,
        app_id=entry.app_id,
        credits=entry.credits,
        created_at=_milliseconds(entry.created_at),
        created_by=entry.created_by,
        kind=entry.kind,
        balance_after=entry.balance_after,
        sequence=entry.sequence,
        purchase_id=entry.purchase_id,
        key=entry.key,
        report_id=entry.report_id,
        report_name=entry.report_name,
        details=_row_details(entry),
    )


def _row_details(entry: Transaction) -> RowDetails | None:
    details = entry.details
    # A list does not contain the recorded request.
    if entry.kind in (Kind.ADD, Kind.USE) and replace(details, request=()) == NO_DETAILS:
        return None
    return RowDetails(
        effect=entry.effect,
        related_id=details.related_id,
        effective_at=None if details.effective_at is None else _milliseconds(details.effective_at),
        ends_at=None if details.ends_at is None else _milliseconds(details.ends_at),
        allocations=tuple((part.grant_id, part.credits) for part in details.allocations),
        metadata=details.metadata,
        note=details.note,
    )


def _purchase_row(purchase: Purchase) -> PurchaseRow:
    return PurchaseRow(
        id=purchase.id,
        user_id=purchase.user_id,
        app_id=purchase.app_id,
        report_id=purchase.report_id,
        report_name=purchase.report_name,
        credits=purchase.credits,
        created_at=_milliseconds(purchase.created_at),
        created_by=purchase.created_by,
        transaction_id=purchase.transaction_id,
        sequence=purchase.sequence,
        refunded_credits=purchase.refunded_credits,
    )


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)
