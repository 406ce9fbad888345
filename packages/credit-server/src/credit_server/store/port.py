"""The port of a store: the operations that the service needs, and how they can fail."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from credit_server.ledger import Account, Kind, Purchase, Transaction

# How many entries of a list are read at a time, unless a store is created with another number. Each
# page costs mongod 0.5 ms, and making 250 documents into bytes occupies the event loop for 0.6 ms.
PAGE_SIZE = 250

# The user id, the app id and the idempotency key: a key belongs to a user in an app.
AppKey = tuple[int, int, str]

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


class Rejected(StoreError):
    """The transaction failed before its commit with an unexpected error. Nothing was written.

    The cause can be a bug, one document that cannot be written, or a fault of the store.
    """


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
        store_earliest = self.store_seconds + (before - self.answered_at)
        return ClockOffset(
            least_seconds=wall - self.store_latest(after), most_seconds=wall - store_earliest
        )


class TransactionRow(NamedTuple):
    """A transaction of a list: the fields of the contract, in its order.

    Attributes are those of the ledger's `Transaction`, except that `created_at` is in milliseconds
    since 1970. A tuple is cheap: a row takes 5 µs from BSON to the wire, and took 23 µs as a
    document's model, a `Transaction` and a message (2-core machine).
    """

    id: str
    user_id: int
    app_id: int
    credits: int
    created_at: int
    created_by: int
    kind: Kind
    balance_after: int
    sequence: int
    purchase_id: str
    key: str


class PurchaseRow(NamedTuple):
    """A purchase of a list: the fields of the contract, in its order; see `TransactionRow`."""

    id: str
    user_id: int
    app_id: int
    report_id: str
    report_name: str
    credits: int
    created_at: int
    created_by: int
    transaction_id: str
    sequence: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """The changes that one transaction of the store writes.

    Attributes:
        accounts: The changed accounts, each with its revision before the change; 0 for a new
            account.
        transactions: New entries of the history.
        purchases: New purchases.
        totals: The change of each app's total; may be negative.
        counter_shard: The part of the totals that the writer adds to. Concurrent writers use
            different counter shards, so that they do not conflict on a document.
    """

    accounts: Sequence[tuple[int, Account]]
    transactions: Sequence[Transaction]
    purchases: Sequence[Purchase]
    totals: Mapping[int, int]
    counter_shard: int


class StoreTransaction(Protocol):
    """One transaction: reads of one snapshot, and writes that happen together or not at all."""

    async def accounts(self, user_ids: Collection[int]) -> dict[int, Account]:
        """Return the accounts of those users that have one."""
        ...

    async def transactions(
        self, keys: Collection[AppKey], ids: Collection[str]
    ) -> list[Transaction]:
        """Return the transactions that have one of the keys or one of the ids."""
        ...

    async def write(self, changes: Changes) -> None:
        """Write; the changes take effect with the commit. May raise what `commit` raises."""
        ...

    async def commit(self) -> None:
        """Make everything that was read and written durable on a majority of the store's nodes.

        After one of the first four errors the transaction can no longer take effect.

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

    def new_id(self) -> str:
        """Return a new id, unique among all processes: 24 hexadecimal digits."""
        ...

    def writer(self) -> Writer:
        """Return a new writer. Concurrent writers need one each."""
        ...

    async def account(self, user_id: int) -> Account | None:
        """Return a user's account; None if the user never had credits."""
        ...

    async def app_total(self, app_id: int) -> int:
        """Return the sum of all users' balances in an app, at least 0."""
        ...

    def list_transactions(
        self, user_id: int, apps: frozenset[int] | None = None, *, after_sequence: int = 0
    ) -> AsyncIterator[Sequence[TransactionRow]]:
        """Iterate over pages of a user's transactions, by ascending sequence.

        Every step of the iteration reads one page. Its cost depends on the page's length and the
        number of apps, not on the user's entries in other apps. All pages but the last are full.

        Args:
            user_id: The user.
            apps: The apps; None: all.
            after_sequence: The list starts after this sequence, 0 to 2**63 - 1.
        """
        ...

    def list_purchases(
        self, user_id: int, apps: frozenset[int] | None = None, *, after_sequence: int = 0
    ) -> AsyncIterator[Sequence[PurchaseRow]]:
        """Iterate over pages of a user's purchases, like `list_transactions`."""
        ...

    async def ping(self) -> ClockReading:
        """Return the store's time if the store accepts writes.

        Raises:
            StoreUnavailable: It does not.
        """
        ...
