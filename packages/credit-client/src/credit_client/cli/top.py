"""The command that shows the busiest users, apps or types of the last minutes."""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer
from credit_models import CreditTransaction

from credit_client.cli.activity import Activity, Busy
from credit_client.cli.calls import make_reads
from credit_client.cli.connection import Connection
from credit_client.cli.csv_rows import CsvRows
from credit_client.cli.groups import with_groups
from credit_client.cli.history import PAGE_SIZE, transaction_record
from credit_client.cli.options import Output, format_of, number
from credit_client.cli.output import Format, plain, show_json
from credit_client.cli.table import Record, Table
from credit_client.cli.times import duration
from credit_client.cli.waiting import WaitingNotice
from credit_client.client import CreditClient

_WINDOW_SECONDS_MIN, _WINDOW_SECONDS_MAX = 10, 24 * 3600
_ROWS = 20

# The lines of a screen that are no rows: the line about the window, the header, the cursor's line.
_LINES_BESIDE = 3
_TO_TOP, _CLEAR, _CLEAR_BELOW = "\x1b[H", "\x1b[2J", "\x1b[J"

_FIELDS = (
    "at",
    "seconds",
    "user_id",
    "app_id",
    "type",
    "entries",
    "per_minute",
    "credits_in",
    "credits_out",
    "last_at",
)
_SUMS = ("entries", "per_minute", "credits_in", "credits_out", "last")


class TopGroup(StrEnum):
    """The values of `--by`."""

    USER = "user"
    APP = "app"
    TYPE = "type"


_KEYS: Mapping[TopGroup, Sequence[str]] = {
    TopGroup.USER: ("user_id", "app_id"),
    TopGroup.APP: ("app_id",),
    TopGroup.TYPE: ("type",),
}
_NOUNS = {TopGroup.USER: "users", TopGroup.APP: "apps", TopGroup.TYPE: "types"}

_Key = tuple[object, ...]


@with_groups
def top(
    apps: Annotated[list[int], number("--app", "The app; repeatable.")],
    connection: Connection,
    by: Annotated[
        TopGroup, typer.Option("--by", help="What is counted: users in each app, apps, or types.")
    ] = TopGroup.USER,
    window: Annotated[
        timedelta,
        typer.Option(
            "--window",
            parser=duration,
            metavar="DURATION",
            show_default="5m",
            help="The length of the window, such as 5m: 10s to 1d.",
        ),
    ] = timedelta(minutes=5),
    every: Annotated[
        timedelta,
        typer.Option(
            "--every",
            parser=duration,
            metavar="DURATION",
            show_default="2s",
            help="The time between two outputs, 1s or more.",
        ),
    ] = timedelta(seconds=2),
    rows: Annotated[
        int | None,
        number(
            "--rows",
            f"The most rows. Default: as many as fit the terminal, and {_ROWS} elsewhere.",
        ),
    ] = None,
    once: Annotated[
        bool,
        typer.Option(
            "--once",
            help="Show the last window whose entries are complete, and exit. It ended about 120"
            " seconds ago.",
        ),
    ] = False,
    output: Output = None,
    utc: Annotated[
        bool, typer.Option("--utc", help="Show the times of tables in UTC instead of local time.")
    ] = False,
) -> None:
    """Show the busiest users of apps, and what they add and spend. Ctrl-C ends it.

    Entries are counted as they arrive: the first window begins when the command starts. With --once
    the entries are read from the history.
    """
    seconds = window.total_seconds()
    if not _WINDOW_SECONDS_MIN <= seconds <= _WINDOW_SECONDS_MAX:
        raise typer.BadParameter("--window must be 10s to 1d")
    if every < timedelta(seconds=1):
        raise typer.BadParameter("--every must be 1s or more")
    if rows is not None and rows < 1:
        raise typer.BadParameter("--rows must be 1 or more")
    shown = _Shown(
        apps=sorted(set(apps)), by=by, form=format_of(output), rows=rows, utc=utc, once=once
    )
    try:
        if once:
            make_reads(lambda client, notice: _last(client, notice, shown, window), connection)
        else:
            pause = every.total_seconds()
            make_reads(
                lambda client, notice: _live(client, notice, shown, seconds, pause), connection
            )
    except KeyboardInterrupt:
        raise typer.Exit from None


async def _live(
    client: CreditClient, notice: WaitingNotice, shown: "_Shown", window: float, pause: float
) -> None:
    """Show the entries that arrive, until the command is interrupted."""
    activity: Activity[_Key] = Activity(window_seconds=window)
    begun: dict[int, float] = {}
    started = asyncio.Event()

    async def count(app_id: int) -> None:
        events = client.watch(app_id=app_id, progress=True)
        async with aclosing(notice.until_first(events)) as coming:
            async for event in coming:
                now = time.monotonic()
                begun.setdefault(app_id, now)
                if len(begun) == len(shown.apps):
                    started.set()
                if event.transaction is not None:
                    _add(activity, shown.by, event.transaction, now)

    async def refresh() -> None:
        await started.wait()
        while True:
            now = time.monotonic()
            activity.move(now)
            covered = activity.covered_seconds(now, since=max(begun.values()))
            shown.show(activity, covered, datetime.now(UTC))
            await asyncio.sleep(pause)

    # A watch ends only with an error.
    tasks = [asyncio.ensure_future(each) for each in (refresh(), *map(count, shown.apps))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _last(
    client: CreditClient, notice: WaitingNotice, shown: "_Shown", window: timedelta
) -> None:
    """Show the last window of the history in which no entry is missing."""
    ends = []
    for app_id in shown.apps:
        page = await client.query_transactions(app_id=app_id, page_size=1).page()
        notice.answered()  # the window may have no entry
        ends.append(page.complete_until or datetime.now(UTC))
    end = min(ends)
    # The entries of the span do not leave a window that is longer.
    activity: Activity[_Key] = Activity(window_seconds=2 * window.total_seconds())
    for app_id in shown.apps:
        query = client.query_transactions(
            app_id=app_id,
            created_from=end - window,
            created_until=end,
            page_size=PAGE_SIZE,
            oldest_first=True,
        )
        async for each in notice.until_first(aiter(query)):
            _add(activity, shown.by, each, 0.0)
    shown.show(activity, window.total_seconds(), end)


def _add(
    activity: Activity[_Key], by: TopGroup, transaction: CreditTransaction, seconds: float
) -> None:
    record = transaction_record(transaction)
    activity.add(
        tuple(record[name] for name in _KEYS[by]),
        int(str(record["effect"])),
        seconds=seconds,
        created_at=transaction.created_at or datetime.now(UTC),
    )


@dataclass(kw_only=True, slots=True)
class _Shown:
    """Writes the busiest keys: on a screen that refreshes in place, or as a series of outputs.

    Attributes:
        apps: The apps.
        by: What is counted.
        form: The form of the output.
        rows: The most rows; None: as many as fit.
        utc: Whether a table has times in UTC.
        once: Whether there is only one output.
    """

    apps: Sequence[int]
    by: TopGroup
    form: Format
    rows: int | None
    utc: bool
    once: bool
    _outputs: int = field(default=0, init=False)

    def show(self, activity: Activity[_Key], seconds: float, at: datetime) -> None:
        """Write the rows of a window.

        Args:
            activity: The sums.
            seconds: The length of the window.
            at: The end of the window.
        """
        screen = self.form is Format.TABLE and not self.once and _is_screen()
        room = shutil.get_terminal_size().lines - _LINES_BESIDE if screen else _ROWS
        busiest = activity.busiest(max(1, room) if self.rows is None else self.rows)
        about = {"at": plain(at), "seconds": round(seconds, 1)}
        records = [{**about, **self._record(each, seconds)} for each in busiest]
        if self.form is Format.JSON:
            total, others = activity.total, activity.others
            sums = {"entries": total.entries, "per_minute": _rate(total.entries, seconds)}
            credits_ = {"credits_in": total.credits_in, "credits_out": total.credits_out}
            listed = [{name: one[name] for name in one if name not in about} for one in records]
            show_json({**about, **sums, **credits_, "others": others.entries, "rows": listed})
        elif self.form is Format.CSV:
            self._show_csv(records)
        else:
            if screen:
                sys.stdout.write(_TO_TOP + (_CLEAR_BELOW if self._outputs else _CLEAR))
            elif self._outputs:
                sys.stdout.write("\n")
            line = self._about(activity, seconds, at)
            sys.stdout.write(
                (line[: shutil.get_terminal_size().columns] if screen else line) + "\n"
            )
            self._show_table(records)
        self._outputs += 1
        sys.stdout.flush()

    def _record(self, busy: Busy[_Key], seconds: float) -> Record:
        key = dict(zip(_KEYS[self.by], busy.key, strict=True))
        return {
            "user_id": key.get("user_id"),
            "app_id": key.get("app_id"),
            "type": key.get("type"),
            "entries": busy.sums.entries,
            "per_minute": _rate(busy.sums.entries, seconds),
            "credits_in": busy.sums.credits_in,
            "credits_out": busy.sums.credits_out,
            "last_at": plain(busy.last_at),
        }

    def _about(self, activity: Activity[_Key], seconds: float, at: datetime) -> str:
        total = activity.total
        apps = f"app {self.apps[0]}" if len(self.apps) == 1 else f"{len(self.apps)} apps"
        per_second = total.entries / seconds if seconds >= 1 else 0.0
        line = (
            f"{self._clock(at)}  {apps}, {_span(seconds)}: {_entries(total.entries)},"
            f" {per_second:,.1f}/s, +{total.credits_in:,} -{total.credits_out:,}"
        )
        if activity.others.entries:
            line += f" ({_entries(activity.others.entries)} of other {_NOUNS[self.by]})"
        return line

    def _show_table(self, records: Sequence[Record]) -> None:
        # Within a window, the day of an entry is known.
        rows = [
            {**one, "last": self._clock(datetime.fromisoformat(str(one["last_at"])))}
            for one in records
        ]
        keys = [name for name in _KEYS[self.by] if name == _KEYS[self.by][0] or len(self.apps) > 1]
        table = Table((*keys, *_SUMS), optional=("last", "per_minute"))
        for row in rows:
            table.add(row)
        table.end()

    def _show_csv(self, records: Sequence[Record]) -> None:
        rows = CsvRows(sys.stdout, _FIELDS)
        if not self._outputs:
            rows.head()
        for record in records:
            rows.add(record)

    def _clock(self, at: datetime) -> str:
        return f"{at.astimezone(UTC if self.utc else None):%H:%M:%S}"


def _is_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number:,} entries"


def _rate(entries: int, seconds: float) -> float:
    """Return the entries of a minute; 0 while too little time is covered to have a rate."""
    return round(60 * entries / seconds, 1) if seconds >= 1 else 0.0


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
