"""A server's connection to the replica set: the store's port, with delays and faults.

Every operation is a request and an answer. Either can be slow or lost. A request that was sent
arrives even if its server crashes.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from credit_models.ledger import Account, Policy, ReportKey, Transaction
from credit_server.store.alert_events import AlertEvents, EventPage, PositionUnknown
from credit_server.store.checkpoints import Checkpoints, MemoryCheckpoints
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
from credit_server.store.port import (
    AppKey,
    AppPolicy,
    Changes,
    ClockReading,
    CommitUnknown,
    Conflict,
    DirectoryUser,
    DueAccount,
    ExternalId,
    Head,
    HoldRow,
    Interrupted,
    LogPage,
    LogPosition,
    Reference,
    References,
    StoreTransaction,
    StoreUnavailable,
    Writer,
)
from credit_server.store.webhooks import Webhooks

from credit_simulate.cluster import PAGE_SIZE, Cluster, Node, OpenTransaction, complete, position
from credit_simulate.faults import Faults
from credit_simulate.policies import StoredPolicies
from credit_simulate.webhooks import StoredWebhooks

_Value = TypeVar("_Value")
_Row = TypeVar("_Row")

_ANSWER_SECONDS_MAX = 5.0
"""How long a server waits for its store."""


class Connection:
    """One server's store.

    Attributes:
        dead: Whether the server has crashed and sends nothing more.
        alert_events: The events of alerts.
        webhooks: Webhooks, and the deliveries of events to them.
        checkpoints: Not simulated.
    """

    def __init__(
        self,
        cluster: Cluster,
        faults: Faults,
        policies: StoredPolicies,
        ids: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        """Connect.

        Args:
            cluster: The replica set.
            faults: Decides which messages are lost or slow.
            policies: Records the policies that are stored.
            ids: Returns numbers that are unique among all servers.
            monotonic: The server's monotonic clock.
        """
        self.cluster = cluster
        self.faults = faults
        self.dead = False
        self.alert_events: AlertEvents = _Events(self)
        self.webhooks: Webhooks = StoredWebhooks(self)
        self.checkpoints: Checkpoints = MemoryCheckpoints()
        self._policies = policies
        self._ids = ids
        self._monotonic = monotonic

    def new_id(self) -> str:
        """Return a new id: see the port. Like an ObjectId, it begins with the time."""
        return f"{int(self.cluster.wall):08x}{self._ids():016x}"

    def writer(self) -> Writer:
        """Return a new writer: see the port."""
        return _Session(self, self._ids())

    async def request(self) -> None:
        """Send a request.

        Raises:
            StoreUnavailable: It does not arrive.
        """
        await self.arrive()
        self.cluster.check_available()

    async def arrive(self) -> None:
        """Let a request arrive, at the old or the new primary.

        Raises:
            StoreUnavailable: It does not arrive.
        """
        await self.faults.travel()
        if self.dead or self.faults.strike("store request lost"):
            raise StoreUnavailable("the request was lost")

    async def answer(self) -> None:
        """Receive the answer to a request.

        Raises:
            StoreUnavailable: It does not arrive.
        """
        await self.faults.travel()
        if self.dead or self.faults.strike("store answer lost"):
            raise StoreUnavailable("the answer was lost")

    async def read(self, read: Callable[[Node], Coroutine[Any, Any, _Value]]) -> _Value:
        """Read the data of a majority or, after a failover, of the old primary."""
        await self.arrive()
        value = complete(read(self.cluster.readable()))
        await self.answer()
        return value

    async def write(self, change: Callable[[Node], Coroutine[Any, Any, _Value]]) -> _Value:
        """Change something outside a transaction, and wait until a majority has it."""
        await self.request()
        value: _Value
        number, value = self.cluster.apply(change)
        confirmed = asyncio.get_running_loop().create_future()
        self.cluster.confirm(number, confirmed)
        try:
            await confirmed
        except CommitUnknown as unknown:
            raise StoreUnavailable("the write was not confirmed") from unknown
        await self.answer()
        return value

    async def account(self, user_id: int) -> Account | None:
        """Return a user's account: see the port."""
        return await self.read(lambda node: node.account(user_id))

    async def account_since(self, user_id: int, position: LogPosition) -> Account | None:
        """Return a user's account: see the port."""
        return await self.read(lambda node: node.account_since(user_id, position))

    async def latest_revision(self, user_id: int) -> int:
        """Return a user's revision: see the port."""
        # A linearizable read is a read on the primary that waits for a majority, like a write.
        return await self.write(lambda node: node.latest_revision(user_id))

    async def app_total(self, app_id: int) -> int:
        """Return the sum of all balances in an app: see the port."""
        return await self.read(lambda node: node.app_total(app_id))

    async def hold_entries(
        self,
        user_id: int,
        app_id: int,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
        limit: int,
    ) -> Sequence[HoldRow]:
        """Return holds: see the port."""
        return await self.read(
            lambda node: node.hold_entries(
                user_id,
                app_id,
                after_sequence=after_sequence,
                stored_sequence=stored_sequence,
                limit=limit,
            )
        )

    async def policy(self, app_id: int) -> AppPolicy:
        """Return the policy of an app: see the port."""
        return await self.read(lambda node: node.policy(app_id))

    async def latest_policy(self, app_id: int) -> AppPolicy:
        """Return the policy of an app: see the port."""
        # A linearizable read is a read on the primary that waits for a majority, like a write.
        return await self.write(lambda node: node.policy(app_id))

    async def set_policy(self, changed: AppPolicy) -> None:
        """Store the policy of an app: see the port."""
        await self.write(self._policies.setting(changed))

    async def find_user(self, name: int | ExternalId) -> DirectoryUser | None:
        """Return a user of the directory: see the port."""
        return await self.read(lambda node: node.find_user(name))

    async def next_user_id(self, first: int) -> int | None:
        """Return a new number of a user: see the port."""
        return await self.write(lambda node: node.next_user_id(first))

    async def add_user(self, user: DirectoryUser) -> DirectoryUser:
        """Store a user of the directory: see the port."""
        return await self.write(lambda node: node.add_user(user))

    async def due_accounts(
        self, before: datetime, *, after: DueAccount | None = None, limit: int
    ) -> Sequence[DueAccount]:
        """Return accounts in which something is due: see the port."""
        return await self.read(lambda node: node.due_accounts(before, after=after, limit=limit))

    async def heads(self, app_id: int, *, page_size: int) -> AsyncIterator[Sequence[Head]]:
        """Iterate over the heads of the users in an app: see the port. All are read at once."""

        async def every(node: Node) -> list[Sequence[Head]]:
            return [page async for page in node.heads(app_id, page_size=page_size)]

        for page in await self.read(every):
            yield page

    async def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take a lease: see the port."""
        return await self.write(lambda node: node.lease(name, owner, seconds))

    async def list_transactions(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[TransactionRow]]:
        """Iterate over pages of transactions: see the port."""

        async def page(node: Node, last: int) -> Sequence[TransactionRow]:
            return await _first(
                node.list_transactions(
                    user_id, apps, after_sequence=last, stored_sequence=stored_sequence
                )
            )

        async for rows in self._pages(page, after_sequence):
            yield rows

    async def list_purchases(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[PurchaseRow]]:
        """Iterate over pages of purchases: see the port."""

        async def page(node: Node, last: int) -> Sequence[PurchaseRow]:
            return await _first(
                node.list_purchases(
                    user_id, apps, after_sequence=last, stored_sequence=stored_sequence
                )
            )

        async for rows in self._pages(page, after_sequence):
            yield rows

    # Any: rows of either list.
    async def _pages(
        self, page: Callable[..., Coroutine[Any, Any, Sequence[Any]]], last: int
    ) -> AsyncIterator[Sequence[Any]]:
        full = True
        while full:
            rows = await self.read(partial(page, last=last))
            full = len(rows) == PAGE_SIZE
            if rows:
                last = rows[-1].sequence
                yield rows

    async def query_transactions(self, query: TransactionQuery) -> Page[TransactionRow]:
        """Return a page of transactions: see the port."""
        return await self.read(lambda node: node.query_transactions(query))

    async def query_purchases(self, query: PurchaseQuery) -> Page[PurchaseRow]:
        """Return a page of purchases: see the port."""
        return await self.read(lambda node: node.query_purchases(query))

    async def find_transaction(self, name: str | AppKey) -> TransactionRow | None:
        """Return the transaction with an id or with a key: see the port."""
        return await self.read(lambda node: node.find_transaction(name))

    async def summarize(self, query: HistoryQuery, group_by: GroupBy) -> Summary:
        """Return sums of transactions: see the port."""
        return await self.read(lambda node: node.summarize(query, group_by))

    async def balance_at(
        self, user_id: int, app_id: int, *, end: int, at: datetime | None = None
    ) -> BalanceAt:
        """Return a user's balance at some point: see the port."""
        return await self.read(lambda node: node.balance_at(user_id, app_id, end=end, at=at))

    async def follow_log(self) -> AsyncGenerator[LogPage, None]:
        """Iterate over the entries that a majority gets from now on: see the port."""
        await self.request()
        after = self.cluster.log_end
        await self.answer()
        yield LogPage([], position(after), at_end=True)
        while True:
            await self.cluster.log_grows(after)
            await self.faults.travel()
            if self.dead or self.faults.strike("log broken"):
                raise StoreUnavailable("the log is away")
            page = self.cluster.log_page(after, None, self.cluster.log_end)
            after = page.end.time
            yield page

    async def read_log(self, after: bytes, app_id: int, *, limit: int) -> LogPage:
        """Return the transactions in an app after a position: see the port."""
        await self.arrive()
        page = self.cluster.read_log(int.from_bytes(after, "big"), app_id, limit)
        await self.answer()
        return page

    async def ping(self) -> ClockReading:
        """Return the store's time: see the port."""
        asked_at = self._monotonic()
        await self.request()
        seconds = int(self.cluster.wall * 1000) / 1000
        await self.answer()
        return ClockReading(store_seconds=seconds, asked_at=asked_at, answered_at=self._monotonic())


class _Events:
    """The events of alerts, over the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def order(self, limit: int) -> int:
        if self._connection.faults.strike("store conflict"):
            raise Conflict("another process was faster")
        if not await self._connection.read(_unordered):  # nothing is written without such events
            return 0
        return await self._connection.write(lambda node: node.alert_events.order(limit))

    async def newest(self) -> int:
        return await self._connection.read(lambda node: node.alert_events.newest())

    async def since(self, position: int, limit: int) -> Sequence[tuple[int, int]]:
        return await self._connection.read(lambda node: node.alert_events.since(position, limit))

    async def page(
        self, app_id: int, user_id: int | None = None, *, after_position: int = 0, limit: int
    ) -> EventPage:
        try:
            return await self._connection.read(
                lambda node: node.alert_events.page(
                    app_id, user_id, after_position=after_position, limit=limit
                )
            )
        except PositionUnknown:
            # A linearizable read is a read on the primary that waits for a majority, like a write.
            newest = await self._connection.write(lambda node: node.alert_events.newest())
            if after_position > newest:
                raise PositionUnknown(newest) from None
            raise StoreUnavailable("reads do not return the ordered events yet") from None

    async def remove_before(self, time: datetime, limit: int) -> int:
        return await self._connection.write(
            lambda node: node.alert_events.remove_before(time, limit)
        )


class _Session:
    """Makes transactions one after another."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self._number = number

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        cluster = self._connection.cluster
        begun = cluster.begin(self._number)
        async with begun.node.begin() as snapshot:
            yield _Transaction(self._connection, snapshot, begun)


class _Transaction:
    """Reads of one snapshot, and writes that are sent with the commit."""

    def __init__(
        self, connection: Connection, snapshot: StoreTransaction, begun: OpenTransaction
    ) -> None:
        self._connection = connection
        self._snapshot = snapshot
        self._open = begun

    async def accounts(self, user_ids: Collection[int]) -> dict[int, Account]:
        return await self._read(self._snapshot.accounts(user_ids))

    async def transactions(
        self, keys: Collection[AppKey], ids: Collection[str]
    ) -> list[Transaction]:
        return await self._read(self._snapshot.transactions(keys, ids))

    async def policies(self, app_ids: Collection[int]) -> dict[int, Policy]:
        return await self._read(self._snapshot.policies(app_ids))

    async def references(
        self, references: Collection[Reference], reports: Collection[ReportKey]
    ) -> References:
        return await self._read(self._snapshot.references(references, reports))

    async def _read(self, read: Coroutine[Any, Any, _Value]) -> _Value:
        value = complete(read)
        await self._connection.arrive()
        self._connection.cluster.check_readable(self._open)
        await self._connection.answer()
        return value

    async def write(self, changes: Changes) -> None:
        self._open.changes.append(changes)

    async def commit(self, check: Callable[[], None] | None = None) -> None:
        connection, faults = self._connection, self._connection.faults
        await connection.request()
        if self._open.changes and faults.strike("store conflict"):
            raise Conflict("a write conflict")
        if check is not None:
            check()
        if faults.strike("transaction left open"):
            connection.cluster.leave_open(self._open)
            raise Interrupted("the connection broke before the commit")
        await self._send_commit()

    async def _send_commit(self) -> None:
        connection, faults = self._connection, self._connection.faults
        loop = asyncio.get_running_loop()
        committed = loop.create_future()
        # Nothing reads an answer that arrives too late.
        committed.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        if not faults.strike("commit request lost"):
            delay = faults.seconds()
            loop.call_later(delay, connection.cluster.commit, self._open, committed)
        if faults.strike("commit late"):  # the caller does not wait for the answer
            await faults.travel()
            raise CommitUnknown("the commit has no answer")
        try:
            async with asyncio.timeout(_ANSWER_SECONDS_MAX):
                await committed
        except TimeoutError:
            raise CommitUnknown("the commit has no answer") from None
        if connection.dead or faults.strike("commit answer lost"):
            raise CommitUnknown("the answer to the commit was lost")


async def _unordered(node: Node) -> int:
    return node.alert_events.unordered


async def _first(pages: AsyncIterator[Sequence[_Row]]) -> Sequence[_Row]:
    """Return the first page of a list."""
    # Any: the memory store's lists are generators.
    generator: Any = pages
    async with aclosing(generator):
        async for rows in generator:
            found: Sequence[_Row] = rows
            return found
    return ()
