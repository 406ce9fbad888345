"""The port of a store: the operations that the service needs, and how they can fail."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from credit_models.ledger import (
    NO_POLICY,
    Account,
    AlertEvent,
    Policy,
    Purchase,
    Refunded,
    ReportKey,
    Transaction,
)

from credit_server.store.alert_events import AlertEvents
from credit_server.store.checkpoints import Checkpoints
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
from credit_server.store.webhooks import Webhooks

# How many entries of a list are read at a time, unless a store is created with another number. Each
# page costs mongod 0.5 ms, and making 250 documents into bytes occupies the event loop for 0.6 ms.
PAGE_SIZE = 250


# The least number that the directory gives to a user, unless a setting names another one. Apps that
# number their users by a sequence do not reach it, and more than 2 billion numbers are left.
USER_IDS_FROM = 2_000_000_000

# The user id, the app id and the idempotency key: a key belongs to a user in an app.
AppKey = tuple[int, int, str]

# The app id, and the id of a user in that app.
ExternalId = tuple[int, str]

# The user id, and the id of the entry that a command of this user refers to.
Reference = tuple[int, str]

# MongoDB truncates `localTime` to whole milliseconds.
_CLOCK_PRECISION_SECONDS = 0.001


class StoreError(Exception):
    """An operation of the store failed. The subclasses define what is known of the effects."""


class Conflict(StoreError):
    """Another writer was faster. Nothing was written: load again, then retry."""


class Interrupted(StoreError):
    """The connection broke before the commit. Nothing was written: retry."""


class CommitUnknown(StoreError):
    """The commit may or may not have happened: look up the transactions' ids in the retry."""


class StoreUnavailable(StoreError):
    """The store cannot be reached. The transaction has written nothing."""


class IndexMissing(StoreUnavailable):
    """A read needs an index that is missing. Nothing was written. The message has the remedy."""


class Rejected(StoreError):
    """The transaction failed before its commit with an unexpected error. Nothing was written.

    The cause can be a bug, one document that cannot be written, or a fault of the store.
    """


class Unreadable(StoreError):
    """Documents of some users or apps have a form that this release cannot read.

    Nothing was written.

    Attributes:
        user_ids: Those users. A transaction without them can succeed.
        app_ids: Those apps, likewise.
    """

    def __init__(
        self, message: str = "", *, user_ids: Collection[int] = (), app_ids: Collection[int] = ()
    ) -> None:
        super().__init__(message)
        self.user_ids = frozenset(user_ids)
        self.app_ids = frozenset(app_ids)


class LogTruncated(StoreError):
    """The log no longer has the transactions after a position, or never had the position."""


class StoreMisconfigured(StoreError):
    """The database is not what the server needs. The message describes what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockOffset:
    """How far this machine's clock is ahead of the store's; negative: behind it.

    Attributes:
        least_seconds: The least possible offset.
        most_seconds: The greatest possible offset. The two differ by the round trip.
    """

    least_seconds: float
    most_seconds: float

    @property
    def certain_seconds(self) -> float:
        """The part that the round trip cannot explain; 0 if the clocks may agree."""
        if self.least_seconds > 0:
            return self.least_seconds
        return min(self.most_seconds, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockReading:
    """The store's time, and the time of the request on a monotonic clock.

    Attributes:
        store_seconds: The store's time, in seconds since 1970, truncated to milliseconds.
        asked_at: The monotonic clock when the request was sent.
        answered_at: The monotonic clock when the answer was received.
    """

    store_seconds: float
    asked_at: float
    answered_at: float

    def store_earliest(self, monotonic: float) -> float:
        """Return the earliest possible time of the store's clock.

        Args:
            monotonic: The monotonic clock at that moment.
        """
        return self.store_seconds + (monotonic - self.answered_at)

    def store_latest(self, monotonic: float) -> float:
        """Return the latest possible time of the store's clock.

        Args:
            monotonic: The monotonic clock at that moment.
        """
        return self.store_seconds + _CLOCK_PRECISION_SECONDS + (monotonic - self.asked_at)

    def offset(self, wall: float, before: float, after: float) -> ClockOffset:
        """Compare this machine's clock with the store's.

        Args:
            wall: This machine's clock, in seconds since 1970.
            before: The monotonic clock before that was read.
            after: The monotonic clock after it was read.
        """
        return ClockOffset(
            least_seconds=wall - self.store_latest(after),
            most_seconds=wall - self.store_earliest(before),
        )


class LogPosition(NamedTuple):
    """A position in the log: the transactions of all users in the order of their commits.

    Attributes:
        time: A logical time of the store. Nothing up to this position was committed later.
        token: Names the position. The tokens of later positions are greater as bytes.
    """

    time: int
    token: bytes


class LogEntry(NamedTuple):
    """A transaction in the log.

    Attributes:
        position: Its position.
        user_id: Its user.
        app_id: Its app.
        row: Returns the transaction. Most entries have no reader and are not converted.
    """

    position: LogPosition
    user_id: int
    app_id: int
    row: Callable[[], TransactionRow]


class LogPage(NamedTuple):
    """A part of the log.

    Attributes:
        entries: The transactions, by ascending position.
        end: The position after them. It can be later than that of the last transaction.
        at_end: Whether the page has all transactions that were committed by the time of `end`.
    """

    entries: Sequence[LogEntry]
    end: LogPosition
    at_end: bool


class HoldRow(NamedTuple):
    """A hold of a list, open or settled.

    Attributes:
        placed: The entry that placed it.
        latest: The latest entry that refers to it; None if there is none.
    """

    placed: Transaction
    latest: Transaction | None


class DueAccount(NamedTuple):
    """An account in which something is due by time.

    Attributes:
        due_at: The earliest time at which something is due.
        user_id: The user.
        due: How many grants and holds have started or ended, for each app in which something is
            due; empty if the account has a form that cannot be read.
    """

    due_at: datetime
    user_id: int
    due: Mapping[int, int]


class Head(NamedTuple):
    """The head of a user in an app.

    Attributes:
        user_id: The user.
        hash: The hash of the user's latest entry in the app.
    """

    user_id: int
    hash: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class AppPolicy:
    """The policy of an app, as it is stored.

    Attributes:
        app_id: The app.
        policy: The policy.
        revision: How often it was changed; 0 if it was never set.
        updated_at: The time of the latest change; None if there was none.
        updated_by: The number of the requester of the latest change; 0 if there was none.
    """

    app_id: int
    policy: Policy = NO_POLICY
    revision: int = 0
    updated_at: datetime | None = None
    updated_by: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectoryUser:
    """A user of the directory: the number of an external id in an app.

    Attributes:
        user_id: The number, unique among all apps.
        app_id: The app whose directory has the user.
        external_id: The user's id in that app, 1 to 128 characters.
        created_at: When the user got the number.
    """

    user_id: int
    app_id: int
    external_id: str
    created_at: datetime


class Void(NamedTuple):
    """The entry that voided a grant.

    Attributes:
        sequence: Its number in the user's history.
        created_at: Its time.
    """

    sequence: int
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class References:
    """The entries and purchases of the history to which commands refer.

    Attributes:
        entries: The entries that are referred to, of those users that have them.
        latest_related: The latest entry of the user whose `related_id` is the reference.
        voided: The latest VOID of each grant that paid for an entry of
            `entries`.
        purchases: The purchases of each report that are not refunded in full, the latest first.
    """

    entries: Mapping[Reference, Transaction] = field(default_factory=dict)
    latest_related: Mapping[Reference, Transaction] = field(default_factory=dict)
    voided: Mapping[Reference, Void] = field(default_factory=dict)
    purchases: Mapping[ReportKey, Sequence[Purchase]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """The changes that one transaction of the store writes.

    Attributes:
        accounts: The changed accounts: each as it is stored, of revision 0 if it is new, and as it
            is after the change. A store may write only what differs, so the first must be what
            the store has for its revision.
        transactions: New entries of the history.
        purchases: New purchases.
        totals: The change of each app's total; may be negative.
        counter_shard: The part of the totals that the writer adds to. Concurrent writers use
            different counter shards, so that they do not conflict on a document.
        refunded: Changed purchases, which are stored, each with its user.
        events: New events of alerts.
    """

    accounts: Sequence[tuple[Account, Account]]
    transactions: Sequence[Transaction]
    purchases: Sequence[Purchase]
    totals: Mapping[int, int]
    counter_shard: int
    refunded: Sequence[tuple[int, Refunded]] = ()
    events: Sequence[AlertEvent] = ()


class StoreTransaction(Protocol):
    """One transaction: reads of one snapshot, and writes that happen together or not at all.

    A read raises `Unreadable` if it finds documents that cannot be read.
    """

    async def accounts(self, user_ids: Collection[int]) -> dict[int, Account]:
        """Return the accounts of those users that have one."""
        ...

    async def transactions(
        self, keys: Collection[AppKey], ids: Collection[str]
    ) -> list[Transaction]:
        """Return the transactions that have one of the keys or one of the ids."""
        ...

    async def policies(self, app_ids: Collection[int]) -> dict[int, Policy]:
        """Return the policies of those apps that have one."""
        ...

    async def references(
        self, references: Collection[Reference], reports: Collection[ReportKey]
    ) -> References:
        """Return the entries of the history for references, and the purchases of reports.

        Args:
            references: What commands refer to.
            reports: The reports that commands may buy only once. At most one purchase more than
                there are references is returned for each, because no more can be refunded by the
                commands.
        """
        ...

    async def write(self, changes: Changes) -> None:
        """Write; the changes take effect with the commit. May raise what `commit` raises."""
        ...

    async def commit(self, check: Callable[[], None] | None = None) -> None:
        """Make everything that was read and written durable on a majority of the store's nodes.

        After one of the first four errors the transaction can no longer take effect.

        Args:
            check: Is called after the writes and before the commit, maybe on another thread. It may
                raise one of the first four errors; then the transaction is not committed.

        Raises:
            Interrupted: Nothing was written.
            Conflict: An account's revision has changed, or an id, a sequence or a key is taken, or
                another transaction was faster. Nothing was written.
            StoreUnavailable: Nothing was written; the store cannot be reached.
            Rejected: Nothing was written, because of an unexpected error.
            CommitUnknown: The result of the commit is not known; it may still happen.
            Exception: Treat any other error as a CommitUnknown.
        """
        ...


class Writer(Protocol):
    """Makes transactions one after another, never two at once.

    If the connection to the store breaks, a transaction can stay open. The next one ends it.
    """

    def begin(self) -> AbstractAsyncContextManager[StoreTransaction]:
        """Begin a transaction. Leaving the context without a commit aborts it."""
        ...


class Store(Protocol):
    """Accounts and history.

    A read returns what was acknowledged before it began, as long as the primary does not change.
    Right after a change of primary it may miss what was acknowledged a moment before.
    """

    @property
    def alert_events(self) -> AlertEvents:
        """The events of alerts."""
        ...

    @property
    def webhooks(self) -> Webhooks:
        """The webhooks, and what is to be sent to them."""
        ...

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints that the operator has signed."""
        ...

    def new_id(self) -> str:
        """Return a new id, unique among all processes: 24 hexadecimal digits."""
        ...

    def writer(self) -> Writer:
        """Return a new writer. Concurrent writers need one each."""
        ...

    async def account(self, user_id: int) -> Account | None:
        """Return a user's account; None if the user never had credits."""
        ...

    async def account_since(self, user_id: int, position: LogPosition) -> Account | None:
        """Return a user's account, including every transaction up to a position of the log.

        `account` can return an older one: the log can start after a transaction that no majority
        has yet, and right after a change of primary the old primary may answer.

        Raises:
            StoreUnavailable: The node that was read does not have the position yet.
        """
        ...

    async def latest_revision(self, user_id: int) -> int:
        """Return a user's revision, including every transaction that was stored before the call.

        Unlike this method, `account` can return an older one right after a change of primary.
        """
        ...

    async def app_total(self, app_id: int) -> int:
        """Return the sum of all users' balances in an app, at least 0."""
        ...

    async def hold_entries(
        self,
        user_id: int,
        app_id: int,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
        limit: int,
    ) -> Sequence[HoldRow]:
        """Return the holds of a user in an app, open and settled, by ascending sequence.

        Its cost depends on `limit` alone, not on the user's other entries.

        Args:
            user_id: The user.
            app_id: The app.
            after_sequence: The list starts after this sequence, 0 to 2**63 - 1.
            stored_sequence: As for `list_transactions`.
            limit: The most holds, at least 1.

        Raises:
            StoreUnavailable: As for `list_transactions`.
        """
        ...

    async def policy(self, app_id: int) -> AppPolicy:
        """Return the policy of an app; revision 0 if it was never set."""
        ...

    async def latest_policy(self, app_id: int) -> AppPolicy:
        """Return the policy of an app, including every change that was stored before the call.

        Unlike this method, `policy` can return an older policy right after a change of primary.
        """
        ...

    async def set_policy(self, changed: AppPolicy) -> None:
        """Store the policy of an app if the stored revision is the one before `changed.revision`.

        After a failed call, `latest_policy` shows whether the change was stored. If it was not, the
        call may be repeated.

        Raises:
            Conflict: The stored revision is another one. Nothing was written.
            StoreUnavailable: The store cannot be reached, or has not confirmed the write.
        """
        ...

    async def find_user(self, name: int | ExternalId) -> DirectoryUser | None:
        """Return the user of the directory with a number or an external id; None if there is none.

        A user that was returned once is never lost, also if the primary changes.
        """
        ...

    async def next_user_id(self, first: int) -> int | None:
        """Return a number that was never returned before and with which no user has credits.

        Return None after the last one, 2**32 - 1. A number that was skipped is never returned, so
        a retry after the deadline continues after it.

        Args:
            first: The least number, at least 1. Numbers ascend, so a lower `first` than before has
                no effect.
        """
        ...

    async def add_user(self, user: DirectoryUser) -> DirectoryUser:
        """Store a user of the directory, unless the app has a user with this external id.

        Returns:
            The user that is stored now: the given one, or the one that has the external id.

        Raises:
            Conflict: The number is taken. Nothing was written.
        """
        ...

    async def due_accounts(
        self, before: datetime, *, after: DueAccount | None = None, limit: int
    ) -> Sequence[DueAccount]:
        """Return accounts in which something is due, in the order of the time and the user.

        Args:
            before: What is due at this time or earlier is returned.
            after: The list starts after this account; None: with the first.
            limit: The most accounts, at least 1.
        """
        ...

    def heads(self, app_id: int, *, page_size: int) -> AsyncIterator[Sequence[Head]]:
        """Iterate over the heads of the users in an app whose entries have hashes.

        They are in the order of the users. They cover all entries that were acknowledged before the
        first step of the iteration, also if the primary changes, and some that follow. Every step
        reads a bounded number of accounts, whatever the number of users in other apps. So a page
        can be empty although others follow.

        Args:
            app_id: The app.
            page_size: The number of accounts, of all apps, that one step reads; at least 1.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        ...

    async def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take a lease, or extend it; return whether the owner has it.

        Until it ends by the store's clock, no other owner gets it. A holder whose process stops for
        longer does not notice that it has lost the lease, so a lease only saves double work.

        Args:
            name: The name of the work.
            owner: The name of the process that wants to do it, unique among all processes.
            seconds: For how long, above 0.
        """
        ...

    def list_transactions(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[TransactionRow]]:
        """Iterate over pages of a user's transactions, by ascending sequence.

        Every step of the iteration reads one page. Its cost depends on the page's length and the
        number of apps, not on the user's entries in other apps. All pages but the last are full.

        Args:
            user_id: The user.
            apps: The apps; None: all.
            after_sequence: The list starts after this sequence, 0 to 2**63 - 1.
            stored_sequence: A sequence that an earlier read has returned. Right after a change of
                primary, a page could miss transactions up to it.

        Raises:
            StoreUnavailable: The store cannot be reached, or a page misses transactions up to
                `stored_sequence`.
        """
        ...

    def list_purchases(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[PurchaseRow]]:
        """Iterate over pages of a user's purchases, like `list_transactions`."""
        ...

    async def query_transactions(self, query: TransactionQuery) -> Page[TransactionRow]:
        """Return a page of transactions.

        Its cost depends on the limit and on `EXAMINED_MAX`, not on the length of the history.

        Raises:
            StoreUnavailable: The store cannot be reached, or the read misses transactions up to
                `stored_sequence` of the query.
        """
        ...

    async def query_purchases(self, query: PurchaseQuery) -> Page[PurchaseRow]:
        """Return a page of purchases, like `query_transactions`."""
        ...

    async def find_transaction(self, name: str | AppKey) -> TransactionRow | None:
        """Return the transaction with an id or with a key; None if there is none."""
        ...

    def follow_log(self) -> AsyncGenerator[LogPage, None]:
        """Iterate over what is committed from now on, without an end.

        The first page is returned at once and may be empty: nothing after its end is missed.
        Further empty pages show that the log goes on. A change of primary neither repeats nor
        omits a transaction. The reader must not pause for long.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        ...

    async def read_log(self, after: bytes, app_id: int, *, limit: int) -> LogPage:
        """Return the transactions in an app that were committed after a position.

        Args:
            after: The token of the position.
            app_id: The app.
            limit: The most transactions, at least 1.

        Raises:
            LogTruncated: The log no longer reaches back to the position.
        """
        ...

    async def summarize(self, query: HistoryQuery, group_by: GroupBy) -> Summary:
        """Return sums of transactions in a span of time.

        At most one entry more than `SUMMARIZED_MAX` is added up.

        Args:
            query: A query with a user or an app, with the span, and with the most groups as its
                limit.
            group_by: The groups.

        Raises:
            StoreUnavailable: As for `query_transactions`.
        """
        ...

    async def balance_at(
        self, user_id: int, app_id: int, *, end: int, at: datetime | None = None
    ) -> BalanceAt:
        """Return a user's balance in an app after the last entry that counts.

        Its cost does not depend on the length of the history.

        Args:
            user_id: The user.
            app_id: The app.
            end: Only entries with a smaller sequence count. All of these must be stored.
            at: Only entries that took effect at this time or earlier count; None: all.

        Raises:
            StoreUnavailable: The store cannot be reached or, right after a change of primary, does
                not return all of these entries yet.
        """
        ...

    async def ping(self) -> ClockReading:
        """Return the store's time if the store accepts writes.

        Raises:
            StoreUnavailable: It does not.
        """
        ...
