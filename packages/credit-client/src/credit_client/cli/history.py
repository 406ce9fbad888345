"""The commands that find transactions and purchases: the latest ones, or those of a month."""

from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, TypedDict, TypeVar

import typer
from credit_models import CreditTransaction, Purchase, Summary, SummaryGroup, TransactionType

from credit_client.cli.calls import make_list, make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.groups import with_groups
from credit_client.cli.options import After, Output, Utc, format_of, moment, number
from credit_client.cli.output import record_of, show
from credit_client.cli.table import Record
from credit_client.client import CreditClient

TRANSACTIONS = (
    "sequence",
    "created_at",
    "app_id",
    "effect",
    "type",
    "balance_after",
    "created_by",
    "id",
)
APP_TRANSACTIONS = ("created_at", "user_id", *TRANSACTIONS[3:])
PURCHASES = (
    "sequence",
    "created_at",
    "app_id",
    "credits",
    "created_by",
    "id",
    "report_id",
    "report_name",
)
APP_PURCHASES = ("created_at", "user_id", *PURCHASES[3:])
_SIGNS = {"ADD": 1, "USE": -1}


_RowT = TypeVar("_RowT")


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

AnyUser = Annotated[int | None, number("--user", "The user's id; needed without --app.")]


class CommonFilters(TypedDict):
    """The arguments that all queries have."""

    user_id: int | None
    app_id: int | None
    created_from: datetime | None
    created_until: datetime | None
    after_sequence: int
    report_id: str
    created_by: int | None
    oldest_first: bool
    page_size: int


def day_or_moment(text: str | datetime) -> datetime:
    """Read a day, which begins at midnight in UTC, or a time with a time zone.

    Raises:
        typer.BadParameter: It is none.
    """
    try:
        return datetime.strptime(str(text), "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return moment(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """The filters of a list of transactions or purchases."""

    last: Annotated[int | None, number("--last", "Only the latest entries, at most so many.")] = (
        None
    )
    app_id: Annotated[int | None, number("--app", "Only entries in this app.")] = None
    since: Annotated[
        datetime | None,
        typer.Option(
            "--since",
            parser=day_or_moment,
            metavar="TIME",
            help="Only entries from this day (in UTC) or time on, such as 2026-01-01.",
        ),
    ] = None
    until: Annotated[
        datetime | None,
        typer.Option(
            "--until",
            parser=day_or_moment,
            metavar="TIME",
            help="Only entries before this day (in UTC) or time.",
        ),
    ] = None
    report: Annotated[
        str | None, typer.Option("--report", help="Only purchases of this report.")
    ] = None
    requester: Annotated[
        int | None, number("--requester", "Only requests of this person or service.")
    ] = None

    def __post_init__(self) -> None:
        """Check the options before anything is sent.

        Raises:
            typer.BadParameter: `--last` is below 1.
        """
        if self.last is not None and self.last < 1:
            raise typer.BadParameter("--last must be 1 or more")

    @property
    def any(self) -> bool:
        """Whether an option is given."""
        return any(value not in (None, []) for value in astuple(self))

    def values(self, user: int | None, after: int) -> CommonFilters:
        """Return the arguments of a query that these options give.

        Raises:
            typer.BadParameter: Neither a user nor an app is given.
        """
        if user is None and self.app_id is None:
            raise typer.BadParameter("name a user, an app, or both: --user, --app")
        return {
            "user_id": user,
            "app_id": self.app_id,
            "created_from": self.since,
            "created_until": self.until,
            "after_sequence": after,
            "report_id": self.report or "",
            "created_by": self.requester,
            "oldest_first": self.last is None,
            "page_size": min(self.last or 1000, 1000),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class TransactionFilters(Filters):
    """The filters of a list of transactions."""

    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Only transactions of this kind, such as use; repeatable.",
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
            typer.BadParameter: `--last` is below 1, or a kind is not known.
        """
        Filters.__post_init__(self)
        self.types()

    def types(self) -> list[TransactionType]:
        """Return the types of the kinds."""
        known = {each.name.lower(): each for each in TransactionType if each.name and each}
        unknown = [kind for kind in self.kinds or () if kind.lower() not in known]
        if unknown:
            raise typer.BadParameter(
                f"{unknown[0]!r} is not a kind; the kinds are {', '.join(known)}"
            )
        return [known[kind.lower()] for kind in self.kinds or ()]


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
    user: AnyUser = None,
    after: After = 0,
    utc: Utc = False,
    output: Output = None,
) -> None:
    """List transactions of a user, or of all users in an app, oldest first.

    Those of all users are without the latest ones, of about the last 90 seconds.
    """
    # Without filters the list also works with a server of 0.2.0, which has no queries.
    whole = user is not None and not filters.any
    values = filters.values(user, after) if not whole else None

    def listed(client: CreditClient) -> AsyncGenerator[CreditTransaction, None]:
        if values is None:
            return client.transactions(user_id=user or 0, after_sequence=after)
        query = client.query_transactions(
            **values,
            types=filters.types(),
            related_id=filters.related or "",
            grant_id=filters.grant or "",
        )
        return _first_or_latest(aiter(query), filters.last)

    make_list(
        listed,
        APP_TRANSACTIONS if user is None else TRANSACTIONS,
        "transactions",
        connection,
        utc=utc,
        output=output,
        row=with_effect,
    )


@with_groups
def purchases(
    filters: PurchaseFilters,
    connection: Connection,
    user: AnyUser = None,
    after: After = 0,
    utc: Utc = False,
    output: Output = None,
) -> None:
    """List purchases of a user, or of all users in an app, oldest first.

    Those of all users are without the latest ones, of about the last 90 seconds.
    """
    whole = user is not None and not filters.any
    values = filters.values(user, after) if not whole else None

    def listed(client: CreditClient) -> AsyncGenerator[Purchase, None]:
        if values is None:
            return client.purchases(user_id=user or 0, after_sequence=after)
        query = client.query_purchases(**values, refunded=filters.refunded)
        return _first_or_latest(aiter(query), filters.last)

    make_list(
        listed,
        APP_PURCHASES if user is None else PURCHASES,
        "purchases",
        connection,
        utc=utc,
        output=output,
        row=_with_refund,
    )


@with_groups
def summary(
    since: Annotated[
        datetime,
        typer.Option(
            "--since",
            parser=day_or_moment,
            metavar="TIME",
            help="The beginning of the span: a day (in UTC) or a time, such as 2026-01-01.",
        ),
    ],
    until: Annotated[
        datetime,
        typer.Option(
            "--until", parser=day_or_moment, metavar="TIME", help="The day or time after its end."
        ),
    ],
    connection: Connection,
    user: AnyUser = None,
    app_id: Annotated[int | None, number("--app", "Only in this app.")] = None,
    by: Annotated[
        Grouping | None,
        typer.Option("--by", help="The groups; days and months are those of UTC."),
    ] = None,
    utc: Utc = False,
    output: Output = None,
) -> None:
    """Show sums of the transactions of a user, or of all users in an app."""
    if user is None and app_id is None:
        raise typer.BadParameter("name a user, an app, or both: --user, --app")

    async def rows(client: CreditClient) -> AsyncGenerator[Summary, None]:
        found = await client.summarize(
            user_id=user,
            app_id=app_id,
            created_from=since,
            created_until=until,
            group_by=SummaryGroup.UNSPECIFIED if by is None else SummaryGroup[by.name],
        )
        for each in found.summaries:
            yield each

    key = () if by is None else (_GROUP_FIELDS[by],)
    make_list(rows, (*key, *_SUMS), "transactions", connection, utc=utc, output=output)


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
    user: Annotated[int | None, number("--user", "The user of the key.")] = None,
    app_id: Annotated[int | None, number("--app", "The app of the key.")] = None,
    utc: Utc = False,
    output: Output = None,
) -> None:
    """Show one transaction, by its id or by the idempotency key of its write."""
    if (user is None) != (app_id is None):
        raise typer.BadParameter("a key needs both --user and --app; an id needs neither")

    async def found(client: CreditClient) -> None:
        one = (
            await client.transaction(transaction_id=name)
            if user is None
            else await client.transaction(user_id=user, app_id=app_id, idempotency_key=name)
        )
        show(record_of(one), format_of(output), utc=utc)

    make_reads(lambda client, _: found(client), connection)


async def _first_or_latest(
    rows: AsyncGenerator[_RowT, None], last: int | None
) -> AsyncGenerator[_RowT, None]:
    """Yield rows, oldest first.

    Args:
        rows: The rows, newest first if there is a limit.
        last: Their number; None: all.
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
