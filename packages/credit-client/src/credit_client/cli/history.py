"""The commands that find transactions: the latest ones, those of a month, or one by id or key."""

from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from credit_models import CreditTransaction, TransactionType

from credit_client.cli.calls import make_list, make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.groups import with_groups
from credit_client.cli.options import After, Output, User, Utc, format_of, moment, number
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
_SIGNS = {"ADD": 1, "USE": -1}


def _day_or_moment(text: str | datetime) -> datetime:
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
    """The filters of a list of transactions."""

    last: Annotated[
        int | None, number("--last", "Only the latest transactions, at most so many.")
    ] = None
    app_id: Annotated[int | None, number("--app", "Only transactions in this app.")] = None
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Only transactions of this kind, such as use; repeatable.",
        ),
    ] = None
    since: Annotated[
        datetime | None,
        typer.Option(
            "--since",
            parser=_day_or_moment,
            metavar="TIME",
            help="Only transactions from this day (in UTC) or time on, such as 2026-01-01.",
        ),
    ] = None
    until: Annotated[
        datetime | None,
        typer.Option(
            "--until",
            parser=_day_or_moment,
            metavar="TIME",
            help="Only transactions before this day (in UTC) or time.",
        ),
    ] = None
    report: Annotated[
        str | None, typer.Option("--report", help="Only purchases of this report.")
    ] = None
    related: Annotated[
        str | None, typer.Option("--related", help="Only changes of this hold or transaction.")
    ] = None
    grant: Annotated[
        str | None, typer.Option("--grant", help="Only transactions with credits of this grant.")
    ] = None
    requester: Annotated[
        int | None, number("--requester", "Only requests of this person or service.")
    ] = None

    def __post_init__(self) -> None:
        """Check the options before anything is sent.

        Raises:
            typer.BadParameter: `--last` is below 1, or a kind is not known.
        """
        if self.last is not None and self.last < 1:
            raise typer.BadParameter("--last must be 1 or more")
        self.types()

    @property
    def any(self) -> bool:
        """Whether an option is given."""
        return any(value not in (None, []) for value in astuple(self))

    def types(self) -> list[TransactionType]:
        """Return the types of the kinds."""
        known = {each.name.lower(): each for each in TransactionType if each.name and each}
        unknown = [kind for kind in self.kinds or () if kind.lower() not in known]
        if unknown:
            raise typer.BadParameter(
                f"{unknown[0]!r} is not a kind; the kinds are {', '.join(known)}"
            )
        return [known[kind.lower()] for kind in self.kinds or ()]


@with_groups
def transactions(
    user: User,
    filters: Filters,
    connection: Connection,
    after: After = 0,
    utc: Utc = False,
    output: Output = None,
) -> None:
    """List transactions of a user, oldest first."""
    make_list(
        # Without filters the list also works with a server of 0.2.0, which has no queries.
        lambda client: (
            _filtered(client, user, after, filters)
            if filters.any
            else client.transactions(user_id=user, after_sequence=after)
        ),
        TRANSACTIONS,
        "transactions",
        connection,
        utc=utc,
        output=output,
        row=with_effect,
    )


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


async def _filtered(
    client: CreditClient, user: int, after: int, filters: Filters
) -> AsyncGenerator[CreditTransaction, None]:
    """Yield the transactions that satisfy the filters, oldest first."""
    query = client.query_transactions(
        user_id=user,
        app_id=filters.app_id,
        types=filters.types(),
        created_from=filters.since,
        created_until=filters.until,
        after_sequence=after,
        report_id=filters.report or "",
        related_id=filters.related or "",
        grant_id=filters.grant or "",
        created_by=filters.requester,
        oldest_first=filters.last is None,
        page_size=min(filters.last or 1000, 1000),
    )
    if filters.last is None:
        async for row in query:
            yield row
        return
    latest: deque[CreditTransaction] = deque()
    async for row in query:
        latest.appendleft(row)
        if len(latest) == filters.last:
            break
    for row in latest:
        yield row


def with_effect(record: Record) -> Record:
    """Add the effect to a transaction from a server up to 0.2.0, which sends none."""
    if record["effect"] or record["type"] not in _SIGNS:
        return record
    return {**record, "effect": _SIGNS[str(record["type"])] * int(str(record["credits"]))}
