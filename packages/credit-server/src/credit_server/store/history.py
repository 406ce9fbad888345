"""The rows of histories, and the queries that find them.

A store returns rows and not the ledger's values, because lists are long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from credit_models.ledger import UINT32_MAX, Kind, Pairs

# The most entries that a page of a query examines, if the query has conditions that no index
# serves. The contract defines this number.
EXAMINED_MAX = 5000

# The most entries that a summary adds up, and the most groups that it has. The contract defines
# these numbers. 100,000 entries took 1.0 to 1.6 s beside other work (2-core machine).
SUMMARIZED_MAX = 100_000
GROUPS_MAX = 1000

# The least id and the greatest one: 24 hexadecimal digits.
FIRST_ID = "0" * 24
LAST_ID = "f" * 24

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    report_id: str = ""
    report_name: str = ""
    details: "RowDetails | None" = None
    previous_hash: bytes = b""
    hash: bytes = b""


class RowDetails(NamedTuple):
    """The additional fields of a transaction of a list. A plain ADD or USE has none of them.

    Attributes:
        effect: The signed change of the balance.
        related_id: The entry that this one refers to; empty if there is none.
        effective_at: The time at which it took effect, in milliseconds since 1970; None: when it
            was created.
        ends_at: The end of its grant or hold, in milliseconds since 1970; None: there is none.
        allocations: The id of each grant, empty for base credits, and the number of its credits.
        metadata: The caller's names and values.
        note: The caller's note.
    """

    effect: int
    related_id: str
    effective_at: int | None
    ends_at: int | None
    allocations: tuple[tuple[str, int], ...]
    metadata: Pairs
    note: str


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
    refunded_credits: int = 0


RowT = TypeVar("RowT", TransactionRow, PurchaseRow)


class Position(NamedTuple):
    """The position of an entry among those of all users in an app.

    Attributes:
        created_at: Its `created_at`, in milliseconds since 1970.
        id: Its id.
    """

    created_at: int
    id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryQuery:
    """A query for a page of entries of a history. An entry is found if it satisfies all attributes.

    The entries of a user are in the order of `sequence`. Those of all users in an app are in the
    order of `created_at` and the id, and the latest ones are left out: see `settling_seconds`.

    Attributes:
        user_id: The user; None: all users. Then there is exactly one app, and no bound on the
            sequence.
        apps: The apps; None: all.
        after_sequence: Only greater sequences, 0 to 2**63 - 1.
        before_sequence: Only smaller sequences, 0 to 2**63 - 1; None: no bound.
        after: The page begins after this position in an app, in the order of the query; None: with
            the first entry.
        created_from: Only entries that were created at this time or later; None: no bound. In a
            user's history, the store searches for the position of a time: `created_at` does not
            decrease unless the clock of a server was wrong.
        created_until: Only entries that were created before this time; None: no bound.
        credits_min: The least number of credits.
        credits_max: The greatest number of credits.
        report_id: Only uses for this report; empty: all entries.
        created_by: Only entries of this requester; None: all.
        newest_first: Whether the order descends.
        limit: The most entries, at least 1.
        settling_seconds: For how long after its `created_at` an entry can appear, by the store's
            clock. A query of an app finds only entries that are older. Otherwise an entry could be
            committed before the position of a page that was already read.
        stored_sequence: A sequence of the user that an earlier read has returned; 0: none. Right
            after a change of primary, a read could miss entries up to it. It raises
            StoreUnavailable then.
    """

    user_id: int | None
    apps: frozenset[int] | None = None
    after_sequence: int = 0
    before_sequence: int | None = None
    after: Position | None = None
    created_from: datetime | None = None
    created_until: datetime | None = None
    credits_min: int = 0
    credits_max: int = UINT32_MAX
    report_id: str = ""
    created_by: int | None = None
    newest_first: bool = True
    limit: int
    settling_seconds: float = 0.0
    stored_sequence: int = 0

    def positions(self, settled_until: int) -> tuple[Position, Position]:
        """Return the first position that a page of an app may have, and the one after the last.

        Args:
            settled_until: The time before which no entry can appear any more, in milliseconds since
                1970.
        """
        low, until = 0, settled_until
        if self.created_from is not None:
            low = max(low, milliseconds_up(self.created_from))
        if self.created_until is not None:
            until = min(until, milliseconds_up(self.created_until))
        first, end = Position(low, FIRST_ID), Position(until, FIRST_ID)
        if self.after is not None and self.newest_first:
            end = min(end, self.after)
        elif self.after is not None:
            first = max(first, following(self.after))
        return first, end


@dataclass(frozen=True, kw_only=True, slots=True)
class TransactionQuery(HistoryQuery):
    """A query for a page of transactions.

    Attributes:
        kinds: Only these kinds; empty: all.
        related_id: Only entries that refer to this one; empty: all entries. It requires a user.
        grant_id: Only entries with credits of this grant; empty: all entries.
        metadata: Only entries with all these names and values.
    """

    kinds: frozenset[Kind] = frozenset()
    related_id: str = ""
    grant_id: str = ""
    metadata: Pairs = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PurchaseQuery(HistoryQuery):
    """A query for a page of purchases.

    Attributes:
        refunded: Only purchases with refunded credits, or only those without; None: both.
    """

    refunded: bool | None = None

    @property
    def uses_report_index(self) -> bool:
        """Whether an index finds the purchases of the report, by a user in an app."""
        return bool(self.report_id) and self.user_id is not None and len(self.apps or ()) == 1


class Page(NamedTuple, Generic[RowT]):
    """A page of a query.

    Attributes:
        rows: The entries; there can be fewer than the limit although more follow.
        last: Where the page ends: a sequence in the history of a user, a position in an app. The
            next page is that of the query with this bound: `before_sequence` if the newest come
            first, else `after_sequence`; in an app `after`. None: this is the last page.
        complete_until: All entries of an app that were created before this time, in milliseconds
            since 1970, can be found now, and no later ones; None in the history of a user.
    """

    rows: Sequence[RowT]
    last: int | Position | None
    complete_until: int | None = None


class GroupBy(Enum):
    """What the entries of one group of a summary have in common. Days and months are in UTC."""

    NOTHING = "nothing"
    DAY = "day"
    MONTH = "month"
    KIND = "kind"
    REPORT = "report"
    APP = "app"


class SummaryRow(NamedTuple):
    """The sums of one group of entries.

    Attributes:
        group: The day as 2026-01-02, the month as 2026-01, the kind's value, the report's id (empty
            if the entries are no uses), or the app; empty: there is one group.
        entries: The number of entries.
        credits_in: The sum of the positive effects.
        credits_out: The sum of the negative effects, as a positive number.
        spent: The credits of uses.
        expired: The credits that expired.
        refunded: The credits of refunds.
    """

    group: str | int
    entries: int
    credits_in: int
    credits_out: int
    spent: int
    expired: int
    refunded: int


class Summary(NamedTuple):
    """The sums of entries.

    Attributes:
        rows: One for each group that has entries, by ascending group; at most one more than the
            limit of the query.
        complete_until: See `Page`.
    """

    rows: Sequence[SummaryRow]
    complete_until: int | None


class BalanceAt(NamedTuple):
    """A user's balance in an app at some point of the history.

    Attributes:
        sequence: The sequence of the last entry in the app that counts; 0: there is none.
        balance: The balance after it; negative if the user owes credits.
        is_latest: Whether no entry of the app follows it.
    """

    sequence: int
    balance: int
    is_latest: bool


def following(position: Position) -> Position:
    """Return the position directly after another one, whose id is not the greatest one."""
    return Position(position.created_at, f"{int(position.id, 16) + 1:024x}")


def milliseconds_up(moment: datetime) -> int:
    """Return a time in milliseconds since 1970, rounded up. Entries have whole milliseconds."""
    return -((_EPOCH - moment) // timedelta(milliseconds=1))
