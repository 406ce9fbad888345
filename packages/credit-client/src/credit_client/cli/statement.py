"""`credit statement`: a user's transactions of a month, with balances and totals."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Protocol

import typer
from credit_models import CreditTransaction

from credit_client.cli.calls import make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.csv_rows import CsvRows
from credit_client.cli.exits import Exit
from credit_client.cli.groups import with_groups
from credit_client.cli.history import PAGE_SIZE
from credit_client.cli.options import (
    ArgumentUser,
    Display,
    OptionUser,
    fail,
    number,
    one_user,
)
from credit_client.cli.output import (
    Format,
    Layout,
    ReportedTable,
    plain,
    record_of,
    show,
    show_rows,
)
from credit_client.cli.table import Record
from credit_client.cli.times import month as read_month
from credit_client.cli.times import read_option
from credit_client.client import CreditClient

_ENTRIES = Layout(
    noun="transactions",
    fields=(
        "created_at",
        "app_id",
        "type",
        "report_id",
        "report_name",
        "created_by",
        "credits_in",
        "credits_out",
        "balance",
        "sequence",
        "id",
        "note",
    ),
    columns=(
        "sequence",
        "created_at",
        "app_id",
        "type",
        "report_name",
        "created_by",
        "credits_in",
        "credits_out",
        "balance",
    ),
    optional=("created_by", "sequence"),
)
_OPENINGS = Layout(noun="balances", fields=(), columns=("app_id", "opening"))
_TOTALS = Layout(noun="totals", fields=(), columns=("type", "count", "credits_in", "credits_out"))
_CLOSINGS = Layout(
    noun="balances",
    fields=(),
    columns=("app_id", "opening", "credits_in", "credits_out", "closing"),
)


class NotBalanced(Exception):
    """The transactions do not add up to the balances."""


@dataclass(kw_only=True, slots=True)
class _Sums:
    """The sums of transactions.

    Attributes:
        opening: The balance before them. A balance below 0 is what the user owes.
        count: Their number.
        credits_in: The sum of the effects above 0.
        credits_out: The sum of the effects below 0, without the sign.
    """

    opening: int = 0
    count: int = 0
    credits_in: int = 0
    credits_out: int = 0

    @property
    def closing(self) -> int:
        """The balance after them."""
        return self.opening + self.credits_in - self.credits_out

    def add(self, effect: int) -> None:
        """Add a transaction."""
        self.count += 1
        self.credits_in += max(0, effect)
        self.credits_out += max(0, -effect)


@dataclass(kw_only=True, slots=True)
class Statement:
    """Adds up the transactions of a period.

    Attributes:
        apps: The sums of each app.
        types: The sums of each type of transactions.
    """

    apps: dict[int, _Sums] = field(default_factory=dict)
    types: dict[str, _Sums] = field(default_factory=dict)

    def open(self, app_id: int, before: CreditTransaction | None) -> None:
        """Set the balance of an app from the last transaction before the period."""
        self.apps[app_id] = _Sums(opening=0 if before is None else _balance(before))

    def add(self, transaction: CreditTransaction) -> Record:
        """Add a transaction, and return its entry.

        Raises:
            NotBalanced: It does not follow from the balance of its app.
        """
        sums = self.apps.setdefault(transaction.app_id, _Sums())
        before, effect, after = sums.closing, transaction.effect, _balance(transaction)
        if before + effect != after:
            raise NotBalanced(
                f"app {transaction.app_id}, sequence {transaction.sequence}: the balance before is"
                f" {before}, the effect {effect}, and the balance after {after}"
            )
        sums.add(effect)
        record = record_of(transaction)
        self.types.setdefault(str(record["type"]), _Sums()).add(effect)
        return {
            **{name: record[name] for name in _ENTRIES.fields if name in record},
            "credits_in": max(0, effect),
            "credits_out": max(0, -effect),
            "balance": after,
        }

    def close(self, app_id: int, last: CreditTransaction | None) -> None:
        """Compare the balance of an app with the last transaction of the period or before.

        Raises:
            NotBalanced: They differ.
        """
        closing, found = self.apps[app_id].closing, 0 if last is None else _balance(last)
        if closing != found:
            raise NotBalanced(
                f"app {app_id}: the balance adds up to {closing}, and the last transaction has"
                f" {found}"
            )

    def openings(self) -> Sequence[Record]:
        """Return the balance of each app before the period."""
        return [{"app_id": app_id, "opening": sums.opening} for app_id, sums in self._sorted()]

    def closings(self) -> Sequence[Record]:
        """Return the sums of each app."""
        return [
            {
                "app_id": app_id,
                "opening": sums.opening,
                "credits_in": sums.credits_in,
                "credits_out": sums.credits_out,
                "closing": sums.closing,
            }
            for app_id, sums in self._sorted()
        ]

    def totals(self) -> Sequence[Record]:
        """Return the sums of each type."""
        return [
            {
                "type": name,
                "count": sums.count,
                "credits_in": sums.credits_in,
                "credits_out": sums.credits_out,
            }
            for name, sums in sorted(self.types.items())
        ]

    def _sorted(self) -> Sequence[tuple[int, _Sums]]:
        return sorted(self.apps.items())


@with_groups
def statement(
    month: Annotated[
        str, typer.Option("--month", metavar="MONTH", help="The month, such as 2026-11.")
    ],
    connection: Connection,
    display: Display,
    given: ArgumentUser = None,
    user: OptionUser = None,
    app_id: Annotated[int | None, number("--app", "Only this app.")] = None,
) -> None:
    """Show a user's transactions of a month, with opening and closing balances and totals.

    The command checks the balances. If the transactions do not add up, it ends with an error. The
    month begins and ends at midnight in local time or, with --utc, in UTC. A balance below 0 is
    what the user owes.
    """
    user_id = one_user("statement", given, user)
    period = read_option("--month", month, lambda text: read_month(text, utc=display.utc))
    span = {"from": plain(period[0]), "until": plain(period[1])}
    about = {"user_id": user_id, "month": month, **span}
    sink: _Sink
    match display.form:
        case Format.JSON:
            sink = _Document(about)
        case Format.CSV:
            sink = _Sheet(about)
        case Format.TABLE:
            sink = _Page(about, one_app=app_id is not None, utc=display.utc)
    try:
        make_reads(
            lambda client, _: _write(client, user_id, app_id, period, sink),
            connection,
            paging=display.paged,
        )
    except NotBalanced as error:
        fail(
            f"the statement is wrong and ends here: {error}; report this to the operator",
            Exit.OTHER,
        )


async def _write(
    client: CreditClient,
    user: int | str,
    app_id: int | None,
    period: tuple[datetime, datetime],
    sink: "_Sink",
) -> None:
    """Read the transactions of a period in constant memory, and write the statement.

    Transactions that are written during the read are left out, so that all balances match.
    """
    begin, end = period

    async def last(
        until: datetime, app: int | None, before: int | None
    ) -> CreditTransaction | None:
        query = client.query_transactions(
            user_id=user, app_id=app, created_until=until, before_sequence=before, page_size=1
        )
        async with aclosing(aiter(query)) as found:
            return await anext(found, None)

    made = Statement()
    latest = await last(end, app_id, None)
    bound = 0 if latest is None else latest.sequence + 1
    apps = [app_id] if app_id is not None else await _apps(client, user)
    for app in apps:
        made.open(app, await last(begin, app, bound) if bound else None)
    sink.begin(made.openings())
    if bound:
        query = client.query_transactions(
            user_id=user,
            app_id=app_id,
            created_from=begin,
            created_until=end,
            before_sequence=bound,
            oldest_first=True,
            page_size=PAGE_SIZE,
        )
        async for transaction in query:
            sink.add(made.add(transaction))
        for app in list(made.apps):
            made.close(app, await last(end, app, bound))
    sink.end(made)


async def _apps(client: CreditClient, user: int | str) -> Sequence[int]:
    held = await client.user_credits(user_id=user)
    return [balance.app_id for balance in held.balances]


def _balance(transaction: CreditTransaction) -> int:
    """Return the balance after a transaction, below 0 if the user owes credits."""
    return transaction.balance_after - transaction.owed_after


class _Sink(Protocol):
    """Writes a statement in one form."""

    def begin(self, openings: Sequence[Record]) -> None:
        """Write what comes before the entries."""

    def add(self, entry: Record) -> None:
        """Write an entry."""

    def end(self, made: Statement) -> None:
        """Write what comes after the entries."""


class _Page:
    """A page for people."""

    def __init__(self, about: Record, *, one_app: bool, utc: bool) -> None:
        self._about = about
        columns = [one for one in _ENTRIES.columns if one != "app_id" or not one_app]
        self._layout = replace(_ENTRIES, columns=columns)
        self._utc = utc

    def begin(self, openings: Sequence[Record]) -> None:
        show(self._about, Format.TABLE, utc=self._utc)
        sys.stdout.write("\n")
        show_rows(openings, _OPENINGS, Format.TABLE)
        sys.stdout.write("\n")
        self._entries = ReportedTable(self._layout, utc=self._utc)

    def add(self, entry: Record) -> None:
        shown = {name: entry[name] or None for name in ("credits_in", "credits_out", "report_name")}
        self._entries.add({**entry, **shown})

    def end(self, made: Statement) -> None:
        self._entries.end()
        if made.types:
            sys.stdout.write("\n")
            show_rows(made.totals(), _TOTALS, Format.TABLE)
        if made.apps:
            sys.stdout.write("\n")
            show_rows(made.closings(), _CLOSINGS, Format.TABLE)


class _Sheet:
    """CSV: a row for each opening balance, the entries, and a row for each closing balance."""

    def __init__(self, about: Mapping[str, object]) -> None:
        self._about = about
        self._rows = CsvRows(sys.stdout, _ENTRIES.fields)

    def begin(self, openings: Sequence[Record]) -> None:
        self._rows.head()
        for one in openings:
            self._balance("OPENING", self._about["from"], one["app_id"], one["opening"])

    def add(self, entry: Record) -> None:
        self._rows.add(entry)

    def end(self, made: Statement) -> None:
        for one in made.closings():
            self._balance("CLOSING", self._about["until"], one["app_id"], one["closing"])

    def _balance(self, kind: str, at: object, app_id: object, balance: object) -> None:
        known = {"created_at": at, "app_id": app_id, "type": kind, "balance": balance}
        self._rows.add(dict.fromkeys(_ENTRIES.fields) | known)


class _Document:
    """One JSON document on one line, written as the entries arrive."""

    def __init__(self, about: Record) -> None:
        self._about = about
        self._separator = ""

    def begin(self, openings: Sequence[Record]) -> None:
        head = json.dumps({**self._about, "openings": openings})
        sys.stdout.write(f'{head[:-1]}, "transactions": [')

    def add(self, entry: Record) -> None:
        sys.stdout.write(self._separator + json.dumps(entry))
        self._separator = ", "

    def end(self, made: Statement) -> None:
        tail = json.dumps({"totals": made.totals(), "apps": made.closings()})
        sys.stdout.write(f"], {tail[1:]}\n")
