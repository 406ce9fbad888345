"""The commands that find transactions and purchases: the latest ones, or those of a month."""

import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, TypedDict, TypeVar

import typer
from credit_models import CreditTransaction, Purchase, Summary, SummaryGroup, TransactionType
from credit_models import QueryPurchasesResponse as PurchasePage
from credit_models import QueryTransactionsResponse as TransactionPage

from credit_client.cli.calls import OPTIONAL, make_list, make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.exits import complain
from credit_client.cli.groups import with_groups
from credit_client.cli.options import (
    After,
    Display,
    MinRevision,
    UserId,
    number,
    user_option,
)
from credit_client.cli.output import Format, Layout, fields_of, record_of, show
from credit_client.cli.table import Record, shown
from credit_client.cli.times import moment, past, read_option
from credit_client.client import CreditClient
from credit_client.errors import TransactionNotFound

# The number of transactions of a page: the most that the server returns.
PAGE_SIZE = 1000

TRANSACTIONS = Layout(
    noun="transactions",
    fields=fields_of(CreditTransaction),
    columns=(
        "sequence",
        "created_at",
        "app_id",
        "effect",
        "type",
        "balance_after",
        "created_by",
        "id",
    ),
    optional=OPTIONAL,
)
_APP_TRANSACTIONS = replace(
    TRANSACTIONS, columns=("created_at", "user_id", "sequence", *TRANSACTIONS.columns[3:])
)
_PURCHASES = Layout(
    noun="purchases",
    fields=fields_of(Purchase),
    columns=(
        "sequence",
        "created_at",
        "app_id",
        "credits",
        "created_by",
        "id",
        "report_id",
        "report_name",
    ),
    optional=OPTIONAL,
)
_APP_PURCHASES = replace(
    _PURCHASES, columns=("created_at", "user_id", "sequence", *_PURCHASES.columns[3:])
)
_SIGNS = {"ADD": 1, "USE": -1}
_KINDS = {each.name.lower(): each for each in TransactionType if each.name and each}

_RowT = TypeVar("_RowT")
_PageT = TypeVar("_PageT", TransactionPage, PurchasePage)


class Grouping(StrEnum):
    """The groups of a summary."""

    DAY = "day"
    MONTH = "month"
    TYPE = "type"
    REPORT = "report"
    APP = "app"


_GROUP_FIELDS = {
    Grouping.DAY: "starts_at",
    Grouping.MONTH: "starts_at",
    Grouping.TYPE: "type",
    Grouping.REPORT: "report_id",
    Grouping.APP: "app_id",
}
_SUMS = ("transactions", "credits_in", "credits_out", "spent", "expired", "refunded")

AnyUser = Annotated[UserId | None, user_option("--user", "The user; needed without --app.")]


class CommonFilters(TypedDict):
    """The arguments that all queries have."""

    user_id: int | str | None
    app_id: int | None
    created_from: datetime | None
    created_until: datetime | None
    after_sequence: int
    report_id: str
    created_by: int | None
    oldest_first: bool
    page_size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """The filters of a list of transactions or purchases."""

    last: Annotated[
        int | None,
        number("--last", "Only the latest entries, at most this many, oldest first."),
    ] = None
    app_id: Annotated[int | None, number("--app", "Only entries in this app.")] = None
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only entries of this time or later: a date such as 2026-01-01, a time such as"
            " 2026-01-01T18:00Z, or 30d for the last 30 days.",
        ),
    ] = None
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="TIME",
            help="Only entries before this time, in the same form as --since. A date means the"
            " beginning of the day, so that the day itself is not listed.",
        ),
    ] = None
    report: Annotated[
        str | None, typer.Option("--report", help="Only purchases of this report.")
    ] = None
    created_by: Annotated[
        int | None, number("--created-by", "Only entries that this person or service requested.")
    ] = None

    def __post_init__(self) -> None:
        """Check the options before anything is sent.

        Raises:
            typer.BadParameter: A number is too low.
        """
        if self.last is not None and self.last < 1:
            raise typer.BadParameter("--last must be 1 or more")
        if self.created_by is not None and self.created_by < 1:
            raise typer.BadParameter("--created-by must be 1 or more")

    @property
    def any(self) -> bool:
        """Whether an option is given."""
        return any(value not in (None, []) for value in astuple(self))

    def values(self, user: int | str | None, after: int, *, utc: bool) -> CommonFilters:
        """Return the arguments of the query for these options.

        Raises:
            typer.BadParameter: Neither a user nor an app is given, or a time cannot be read.
        """
        if user is None and self.app_id is None:
            raise typer.BadParameter("name a user, an app, or both: --user, --app")
        return {
            "user_id": user,
            "app_id": self.app_id,
            "created_from": _time("--since", self.since, utc=utc),
            "created_until": _time("--until", self.until, utc=utc),
            "after_sequence": after,
            "report_id": self.report or "",
            "created_by": self.created_by,
            "oldest_first": self.last is None,
            "page_size": min(self.last or PAGE_SIZE, PAGE_SIZE),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class TransactionFilters(Filters):
    """The filters of a list of transactions."""

    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            "--type",
            metavar="TYPE",
            help=f"Only transactions of this type; repeatable. The types are {', '.join(_KINDS)}.",
        ),
    ] = None
    related: Annotated[
        str | None, typer.Option("--related", help="Only changes of this hold or transaction.")
    ] = None
    grant: Annotated[
        str | None, typer.Option("--grant", help="Only transactions with credits of this grant.")
    ] = None

    def __post_init__(self) -> None:
        """Check the options before anything is sent.

        Raises:
            typer.BadParameter: A number is too low, or a type is not known.
        """
        Filters.__post_init__(self)
        self.types()

    def types(self) -> list[TransactionType]:
        """Return the types that are given."""
        unknown = [kind for kind in self.kinds or () if kind.lower() not in _KINDS]
        if unknown:
            raise typer.BadParameter(
                f"{unknown[0]!r} is not a type; the types are {', '.join(_KINDS)}"
            )
        return [_KINDS[kind.lower()] for kind in self.kinds or ()]


@dataclass(frozen=True, kw_only=True, slots=True)
class PurchaseFilters(Filters):
    """The filters of a list of purchases."""

    refunded: Annotated[
        bool | None,
        typer.Option(
            "--refunded/--not-refunded",
            help="Only purchases with refunded credits, or only those without.",
        ),
    ] = None


@with_groups
def transactions(
    filters: TransactionFilters,
    connection: Connection,
    display: Display,
    user: AnyUser = None,
    after: After = 0,
    min_revision: MinRevision = None,
) -> None:
    """List transactions of a user, or of all users in an app, oldest first.

    The list of all users leaves out entries of about the last 120 seconds.
    """
    # Without filters the list also works with a server of 0.2.0, which has no queries.
    whole = user is not None and not filters.any
    values = filters.values(user, after, utc=display.utc) if not whole else None
    complete = _Completeness(display)

    def listed(client: CreditClient) -> AsyncGenerator[CreditTransaction, None]:
        if values is None:
            return client.transactions(
                user_id=user or 0, after_sequence=after, min_revision=min_revision
            )
        query = client.query_transactions(
            **values,
            types=filters.types(),
            related_id=filters.related or "",
            grant_id=filters.grant or "",
            min_revision=min_revision,
        )
        rows = complete.rows(query.pages(), lambda page: page.transactions)
        return _first_or_latest(rows, filters.last)

    make_list(
        listed,
        _APP_TRANSACTIONS if user is None else TRANSACTIONS,
        connection,
        display,
        record=transaction_record,
    )
    complete.show(None if values is None else values["created_until"])


@with_groups
def purchases(
    filters: PurchaseFilters,
    connection: Connection,
    display: Display,
    user: AnyUser = None,
    after: After = 0,
    min_revision: MinRevision = None,
) -> None:
    """List purchases of a user, or of all users in an app, oldest first.

    The list of all users leaves out entries of about the last 120 seconds.
    """
    whole = user is not None and not filters.any
    values = filters.values(user, after, utc=display.utc) if not whole else None
    complete = _Completeness(display)

    def listed(client: CreditClient) -> AsyncGenerator[Purchase, None]:
        if values is None:
            return client.purchases(
                user_id=user or 0, after_sequence=after, min_revision=min_revision
            )
        query = client.query_purchases(
            **values, refunded=filters.refunded, min_revision=min_revision
        )
        rows = complete.rows(query.pages(), lambda page: page.purchases)
        return _first_or_latest(rows, filters.last)

    make_list(
        listed,
        _APP_PURCHASES if user is None else _PURCHASES,
        connection,
        display,
        row=_with_refund,
    )
    complete.show(None if values is None else values["created_until"])


@with_groups
def summary(
    since: Annotated[
        str,
        typer.Option(
            "--since",
            metavar="TIME",
            help="The beginning of the span: a day or a time, such as 2026-01-01. Without a time"
            " zone it is in UTC.",
        ),
    ],
    until: Annotated[
        str,
        typer.Option("--until", metavar="TIME", help="The end of the span, which is not in it."),
    ],
    connection: Connection,
    display: Display,
    user: AnyUser = None,
    app_id: Annotated[int | None, number("--app", "Only in this app.")] = None,
    by: Annotated[
        Grouping | None,
        typer.Option("--by", help="The groups. Days and months are in UTC."),
    ] = None,
    min_revision: MinRevision = None,
) -> None:
    """Show sums of the transactions of a user, or of all users in an app.

    The sums of all users leave out entries of about the last 120 seconds.
    """
    if user is None and app_id is None:
        raise typer.BadParameter("name a user, an app, or both: --user, --app")
    begin = read_option("--since", since, lambda text: moment(text, utc=True))
    end = read_option("--until", until, lambda text: moment(text, utc=True))
    complete = _Completeness(display)

    async def rows(client: CreditClient) -> AsyncGenerator[Summary, None]:
        found = await client.summarize(
            user_id=user,
            app_id=app_id,
            created_from=begin,
            created_until=end,
            group_by=SummaryGroup.UNSPECIFIED if by is None else SummaryGroup[by.name],
            min_revision=min_revision,
        )
        complete.until = found.complete_until
        for each in found.summaries:
            yield each

    key = () if by is None else (_GROUP_FIELDS[by],)
    layout = Layout(noun="transactions", fields=fields_of(Summary), columns=(*key, *_SUMS))
    make_list(rows, layout, connection, display, record=lambda each: _sums_record(each, by))
    complete.show(end)


@with_groups
def find(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The transaction's id or, with --user and --app, the idempotency key.",
            show_default=False,
        ),
    ],
    connection: Connection,
    display: Display,
    user: Annotated[UserId | None, user_option("--user", "The user of the key.")] = None,
    app_id: Annotated[int | None, number("--app", "The app of the key.")] = None,
) -> None:
    """Show one transaction, by its id or by the idempotency key of its write."""
    if (user is None) != (app_id is None):
        raise typer.BadParameter("a key needs both --user and --app; an id needs neither")

    async def found(client: CreditClient) -> None:
        try:
            one = (
                await client.transaction(transaction_id=name)
                if user is None
                else await client.transaction(user_id=user, app_id=app_id, idempotency_key=name)
            )
        except TransactionNotFound as error:
            error.message += ": to find a key, pass --user and --app"
            raise
        show(transaction_record(one), display.form, utc=display.utc)

    make_reads(lambda client, _: found(client), connection)


def _time(name: str, text: str | None, *, utc: bool) -> datetime | None:
    return None if text is None else read_option(name, text, lambda given: past(given, utc=utc))


class _Completeness:
    """Shows on standard error up to which time a list of all users is complete.

    Attributes:
        until: The time before which no entry is missing; None: the list is complete.
    """

    def __init__(self, display: Display) -> None:
        self.until: datetime | None = None
        self._display = display

    async def rows(
        self, pages: AsyncGenerator[_PageT, None], rows_of: Callable[[_PageT], Sequence[_RowT]]
    ) -> AsyncGenerator[_RowT, None]:
        """Yield the rows of pages."""
        async with aclosing(pages):
            async for page in pages:
                self.until = page.complete_until or self.until
                for row in rows_of(page):
                    yield row

    def show(self, end: datetime | None) -> None:
        """Write the time as a line of text, unless the request ends the list before it.

        Args:
            end: The end of the list in the request; None: up to now.
        """
        for_people = self._display.form is Format.TABLE or sys.stderr.isatty()
        if self.until is None or not for_people or (end is not None and end <= self.until):
            return
        time = shown("at", self.until.isoformat(), utc=self._display.utc)
        complain(f"credit: complete until {time}; later entries are left out\n")


def _sums_record(sums: object, by: Grouping | None) -> Record:
    """Return the record of a summary, in which only the fields of its group have a value."""
    record = record_of(sums)
    unset = {*_GROUP_FIELDS.values()} - {by and _GROUP_FIELDS[by]}
    return {name: None if name in unset else value for name, value in record.items()}


async def _first_or_latest(
    rows: AsyncGenerator[_RowT, None], last: int | None
) -> AsyncGenerator[_RowT, None]:
    """Yield rows, oldest first.

    Args:
        rows: The rows, newest first if there is a limit.
        last: The most rows; None: no limit.
    """
    if last is None:
        async for row in rows:
            yield row
        return
    latest: deque[_RowT] = deque()
    async for row in rows:
        latest.appendleft(row)
        if len(latest) == last:
            break
    for row in latest:
        yield row


def transaction_record(transaction: object) -> Record:
    """Return the record of a transaction."""
    return with_effect(record_of(transaction))


def with_effect(record: Record) -> Record:
    """Add the effect to a transaction from a server up to 0.2.0, which sends none."""
    if record["effect"] or record["type"] not in _SIGNS:
        return record
    return {**record, "effect": _SIGNS[str(record["type"])] * int(str(record["credits"]))}


def _with_refund(record: Record) -> Record:
    """Show the refunded credits after the report's name: a column would mostly contain 0."""
    refunded = record["refunded_credits"]
    if not refunded:
        return record
    return {**record, "report_name": f"{record['report_name']} ({refunded:,} refunded)"}
