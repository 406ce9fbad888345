"""The store's port: what the service needs of a store, and how a store may fail."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from credit_server.ledger import Account, Purchase, Transaction
from credit_server.store.clock import ClockReading

AppKey = tuple[int, int, str]
"""(user_id, app_id, idempotency_key): a key belongs to a user in an app."""


class StoreError(Exception):
    """A store did not do what it was asked. The subclasses say what is known of the effects."""


class Conflict(StoreError):
    """Another writer was faster. Nothing was written: load again and try again."""


class Interrupted(StoreError):
    """The connection broke before the commit. Nothing was written: try again."""


class CommitUnknown(StoreError):
    """The commit may or may not have happened: look for the transactions' ids before a retry."""


class StoreUnavailable(StoreError):
    """The store cannot be reached. Nothing was written by this unit."""


class Rejected(StoreError):
    """The unit failed before its commit, for an unforeseen reason. Nothing was written.

    It may be a bug, one document that cannot be written, or a fault of the store.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """All that one unit of work writes.

    Attributes:
        accounts: The accounts as they are afterwards, each with the revision that it had before;
            0 says that the account is new.
        transactions: New entries in the history.
        purchases: New purchases.
        totals: By how much the total of each app changes; may be negative.
        slot: The slot of the totals that the writer uses. Writers that run side by side take
            different slots, so that they do not meet on a document.
    """

    accounts: Sequence[tuple[int, Account]]
    transactions: Sequence[Transaction]
    purchases: Sequence[Purchase]
    totals: Mapping[int, int]
    slot: int


class Unit(Protocol):
    """One unit of work: reads of one snapshot and writes that happen together or not at all."""

    async def accounts(self, user_ids: Collection[int]) -> dict[int, Account]:
        """Return the accounts of those users that have one."""
        ...

    async def transactions(
        self, keys: Collection[AppKey], ids: Collection[str]
    ) -> list[Transaction]:
        """Return the transactions that have one of the keys or one of the ids."""
        ...

    async def write(self, changes: Changes) -> None:
        """Write, so that it takes effect with the commit; a store may raise what that raises."""
        ...

    async def commit(self) -> None:
        """Make all that was read and written certain, on a majority of the store's nodes.

        The first four are certain: no attempt at this unit can take effect any more.

        Raises:
            Interrupted: Nothing was written.
            Conflict: An account's revision is no longer what it was, or an id, a sequence or a
                key is taken, or another unit was faster. Nothing was written.
            StoreUnavailable: Nothing was written; the store cannot be reached.
            Rejected: Nothing was written, for an unforeseen reason.
            CommitUnknown: It could not be learnt whether the commit happened; it may still happen.
            Exception: Anything else is to be taken for a CommitUnknown.
        """
        ...


class Writer(Protocol):
    """Makes one unit of work after another, never two at once.

    A unit that was left open, because the connection to the store broke, is ended by the next one.
    """

    def begin(self) -> AbstractAsyncContextManager[Unit]:
        """Begin a unit of work. Leaving the context without a commit gives everything up."""
        ...


class Store(Protocol):
    """Accounts and history.

    A read sees what was acknowledged before it began, as long as the store's primary stays; right
    after a change of primary it may miss what was acknowledged a moment before.
    """

    def new_id(self) -> str:
        """Make an id that no other process makes: 24 hexadecimal digits."""
        ...

    def writer(self) -> Writer:
        """Make a writer. Each of those that write side by side needs its own."""
        ...

    async def account(self, user_id: int) -> Account | None:
        """Return a user's account, or None if the user never had credits."""
        ...

    async def app_total(self, app_id: int) -> int:
        """Return the sum of all users' balances in an app, at least 0."""
        ...

    def list_transactions(
        self, user_id: int, apps: frozenset[int] | None = None, *, after_sequence: int = 0
    ) -> AsyncIterator[Sequence[Transaction]]:
        """Iterate over pages of a user's transactions, by ascending sequence.

        Every step of the iteration reads one page. Its cost depends on the page's length and the
        number of apps, not on what the user has in other apps. All pages but the last are full.

        Args:
            user_id: Whose.
            apps: In which apps; None: in all.
            after_sequence: The list starts after this sequence, 0 to 2**63 - 1.
        """
        ...

    def list_purchases(
        self, user_id: int, apps: frozenset[int] | None = None, *, after_sequence: int = 0
    ) -> AsyncIterator[Sequence[Purchase]]:
        """Iterate over pages of a user's purchases: as `list_transactions` does."""
        ...

    async def ping(self) -> ClockReading:
        """Return the store's time once the store can take writes.

        Raises:
            StoreUnavailable: It cannot.
        """
        ...
