"""The forms of the output of `credit`: JSON, CSV and pages of a pager; and times that are given."""

import csv
import io
import json
import os
import pty
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import pytest
import typer
from credit_client.cli import pager, times
from credit_client.cli.commands import app
from credit_client.cli.options import Display
from credit_client.cli.output import Format
from credit_models import CreditRequest
from typer.testing import CliRunner, Result

from tests.client.served import Served

ADD = ["add", "--user", "7", "--app", "1", "--credits", "120"]
USE = ["use", "--user", "7", "--app", "1", "--report", "r1", "--name", "Report", "--credits", "5"]
OF_USER = ["--user", "7", "--app", "1"]


@pytest.fixture
def served(
    fake_server: Callable[..., AbstractAsyncContextManager[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Served]:
    with Served(fake_server) as served:
        monkeypatch.setenv("CREDIT_TARGET", f"127.0.0.1:{served.port}")
        monkeypatch.setenv("CREDIT_RETRY_ATTEMPTS_MAX", "1")
        yield served


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set a time zone of 5 h 45 min before UTC."""
    monkeypatch.setenv("TZ", "XXX-05:45")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def credit(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def done(*arguments: str) -> dict[str, object]:
    result = credit(*arguments)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


def sheet(*arguments: str) -> list[dict[str, str]]:
    """Run a command that prints CSV, and return its rows."""
    result = credit(*arguments, "-o", "csv")
    assert (result.exit_code, result.stderr) == (0, "")
    text = result.stdout_bytes.decode()
    assert text.endswith("\r\n")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_the_receipt_of_an_addition_and_a_purchase_is_complete(served: Served) -> None:
    names = ("type", "credits", "effect", "balance_before", "balance", "revision", "replayed")
    added = done(*ADD, "--key", "k")
    assert [added[name] for name in names] == ["ADD", 120, 120, 0, 120, 1, False]
    used = done(*USE)
    assert [used[name] for name in names] == ["USE", 5, -5, 120, 115, 2, False]
    once = done(*USE[:-1], "6", "--min-available-after", "0")  # a batch of one
    assert [once[name] for name in names] == ["USE", 6, -6, 115, 109, 3, False]
    again = done(*ADD, "--key", "k")
    assert [again[name] for name in names] == ["ADD", 120, 120, 0, 120, 1, True]


def test_the_receipt_of_an_addition_to_a_debt_shows_the_balance_before(served: Served) -> None:
    done("policy", "--app", "1", "--allow-negative")
    done("adjust", *OF_USER, "--delta", "-7", "--note", "Chargeback")
    added = done(*ADD[:-1], "5")
    assert (added["balance_before"], added["balance"], added["owed"]) == (0, 0, 2)
    added = done(*ADD[:-1], "5")
    assert (added["balance_before"], added["balance"], added["owed"]) == (0, 3, 0)


def test_the_balance_in_an_app_shows_what_is_held_and_what_expires(served: Served) -> None:
    done("grant", *OF_USER, "--credits", "10", "--expires", "2099-01-02T03:04Z")
    done("hold", *OF_USER, "--credits", "4")
    assert done("balance", *OF_USER) == {
        "app_id": 1,
        "user_id": 7,
        "balance": 6,
        "held": 4,
        "owed": 0,
        "expiring_next": {"credits": 6, "at": "2099-01-02T03:04:00.000Z"},
        "revision": 2,
    }
    shown = credit("balance", *OF_USER, "-o", "table", "--utc").stdout
    assert [line.split(maxsplit=1) for line in shown.splitlines()] == [
        ["app_id", "1"],
        ["user_id", "7"],
        ["balance", "6"],
        ["held", "4"],
        ["revision", "2"],
        ["expiring", "6"],
        ["expires_at", "2099-01-02 03:04:00+00:00"],
    ]
    (row,) = sheet("balance", *OF_USER)
    assert (row["held"], row["expiring"]) == ("4", "6")
    (row,) = sheet("balance", "--user", "7")
    assert (row["user_id"], row["app_id"], row["balance"], row["held"]) == ("7", "1", "6", "4")


def test_csv_of_balances_has_the_same_columns_whatever_is_selected(served: Served) -> None:
    done(*ADD)
    rows = [
        sheet("balance", *selected)[0]
        for selected in (["--app", "1"], ["--user", "7"], OF_USER, [*OF_USER, "--at", "2100-01-01"])
    ]
    assert len({tuple(row) for row in rows}) == 1
    assert [row["balance"] for row in rows] == ["120"] * 4
    assert [row["user_id"] for row in rows] == ["", "7", "7", "7"]
    assert [(row["revision"], row["sequence"]) for row in rows] == [
        ("", ""),
        ("", ""),
        ("1", ""),
        ("", "1"),
    ]
    assert [bool(row["as_of"]) for row in rows] == [False] * 3 + [True]


def test_csv_of_sums_has_values_only_for_its_group(served: Served) -> None:
    done(*ADD)
    span = ["summary", "--user", "7", "--since", "2026-01-01", "--until", "2100-01-01"]
    groups = ("starts_at", "type", "report_id", "app_id")
    for by, filled in (([], ""), (["--by", "type"], "type"), (["--by", "app"], "app_id")):
        (row,) = sheet(*span, *by)
        assert [name for name in groups if row[name]] == ([filled] if filled else [])
        assert row["credits_in"] == "120"
    assert sheet(*span, "--by", "month")[0]["starts_at"].endswith("-01T00:00:00.000Z")


def test_csv_has_a_header_the_numbers_as_they_are_and_no_formulas(served: Served) -> None:
    done(*ADD, "--key", "@k")
    done("grant", *OF_USER, "--credits", "5", "--metadata", "a=b", "--note", "-1")
    done(*USE[:-3], '=HYPERLINK("x")', "--credits", "7")
    rows = sheet("transactions", "--user", "7")
    assert [row["effect"] for row in rows] == ["120", "5", "-7"]
    assert [row["type"] for row in rows] == ["ADD", "GRANT", "USE"]
    assert rows[0]["idempotency_key"] == "'@k"
    assert (rows[1]["note"], json.loads(rows[1]["metadata"])) == ("'-1", {"a": "b"})
    assert rows[2]["report_name"] == '\'=HYPERLINK("x")'
    assert rows[0]["effective_at"] == ""
    assert rows[0]["created_at"].endswith("Z")
    (purchase,) = sheet("purchases", "--user", "7")
    assert purchase["report_name"] == '\'=HYPERLINK("x")'
    assert sheet("find", rows[2]["id"]) == [rows[2]]
    (receipt,) = sheet(*ADD)
    assert (receipt["effect"], receipt["replayed"]) == ("120", "false")


@pytest.mark.parametrize(
    "command",
    [
        "transactions --user 9",
        "transactions --user 9 --last 2",
        "purchases --user 9",
        "grants --user 9 --app 1",
        "holds --user 9 --app 1",
        "caps --user 9 --app 1",
        "forecast --user 9 --app 1",
        "balance --user 9",
    ],
)
def test_an_empty_list_as_csv_is_a_header(served: Served, command: str) -> None:
    result = credit(*command.split(), "-o", "csv")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout_bytes.count(b"\r\n") == 1
    assert len(result.stdout.split(",")) > 3


def test_caps_are_numbers_at_the_right(served: Served) -> None:
    done("cap", *OF_USER, "--day", "50000")
    head, row = credit("caps", *OF_USER, "-o", "table").stdout.splitlines()
    end = head.index("  SPENT")
    assert row[:end].endswith("50,000")
    assert sheet("caps", *OF_USER)[0]["cap"] == "50000"


def test_a_summary_is_no_csv(served: Served) -> None:
    result = credit("user", "7", "-o", "csv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "use credit balance or credit transactions" in " ".join(result.stderr.split())


def test_one_transaction_at_a_terminal_shows_only_what_it_has(served: Served) -> None:
    done(*ADD)
    done(*USE, "--key", "order-1")
    shown = credit("find", "order-1", *OF_USER, "-o", "table").stdout
    names = [line.split()[0] for line in shown.splitlines()]
    assert "report_name" in names
    assert not {"allocations", "metadata", "owed_after", "note", "related_id"} & set(names)


def test_a_reversal_is_called_a_refund(served: Served) -> None:
    held = done("grant", *OF_USER, "--credits", "5")
    hold = done("hold", *OF_USER, "--credits", "2")
    used = done("capture", *OF_USER, "--hold", str(hold["transaction_id"]), *USE[5:9])
    refund = ["refund", *OF_USER, "--transaction"]
    for words, wrong in (
        ("of the type HOLD cannot be refunded", [str(hold["transaction_id"])]),
        ("can still be refunded", [str(used["transaction_id"]), "--credits", "3"]),
    ):
        assert words in credit(*refund, *wrong).stderr
    assert held["type"] == "GRANT"


# ---- the pager


def _at_a_terminal(command: str, program: str, *arguments: str) -> str:
    """Run a command whose input and output are a terminal of 24 lines; return what it shows."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PAGER": program, "COLUMNS": "120", "LINES": "24", "TERM": "dumb"}
    with subprocess.Popen(
        [command, *arguments], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # Linux reports the end of a pseudo-terminal in this way
            pass
        assert process.stderr is not None
        assert process.stderr.read() == b""
    os.close(ours)
    assert process.returncode == 0
    return shown.decode().replace("\r\n", "\n")


def _history(served: Served, length: int) -> None:
    request = CreditRequest(user_id=7, app_id=1, credits=1, created_by=1)
    for _ in range(length):
        served.service.ledger.add(request)


def test_a_table_longer_than_the_terminal_goes_to_the_pager(
    served: Served, forked_credit: str
) -> None:
    _history(served, 100)
    listed = ["transactions", "--user", "7"]
    lines = _at_a_terminal(forked_credit, "sed s/^/paged:/", *listed).splitlines()
    assert len(lines) == 101
    assert all(line.startswith("paged:") for line in lines)
    # A pager that is closed early ends the command without an error.
    assert len(_at_a_terminal(forked_credit, "head -n 3", *listed).splitlines()) == 3


def test_a_table_that_fits_the_terminal_goes_to_no_pager(
    served: Served, forked_credit: str
) -> None:
    _history(served, 100)
    shown = _at_a_terminal(
        forked_credit, "sed s/^/paged:/", "transactions", "--user", "7", "--after", "80"
    )
    assert "paged:" not in shown
    assert len(shown.splitlines()) == 21


def test_there_is_no_pager_where_none_is_wanted() -> None:
    for wanted in ("", "cat", "no-such-program", "sed 'unclosed"):
        assert pager._command({"PAGER": wanted}) == []
    assert pager._command({"PAGER": "sed -n p"}) == ["sed", "-n", "p"]
    assert not Display(output=Format.JSON).paged
    assert not Display(output=Format.TABLE, pager=False).paged
    assert Display(output=Format.TABLE).paged
    # Standard output is no terminal.
    with pager.paged():
        assert not isinstance(sys.stdout, pager._Screen)


# ---- times


def test_a_time_is_local_unless_it_has_a_zone(far_from_utc: None) -> None:
    assert times.moment("2026-01-02").isoformat() == "2026-01-02T00:00:00+05:45"
    assert times.moment("2026-01-02", utc=True).isoformat() == "2026-01-02T00:00:00+00:00"
    assert times.moment("2026-01-02T03:04").isoformat() == "2026-01-02T03:04:00+05:45"
    assert times.moment("2026-01-02T03:04Z", utc=True) == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    assert times.fixed("2026-01-02") == "2026-01-02T00:00:00+05:45"
    assert times.fixed("2026-01-02T03:04Z") == "2026-01-02T03:04Z"
    assert times.fixed_or_duration("30d") == "30d"
    assert times.fixed_or_duration("2026-01-02") == "2026-01-02T00:00:00+05:45"
    begin, end = times.month("2026-12", utc=False)
    assert (begin.isoformat(), end.isoformat()) == (
        "2026-12-01T00:00:00+05:45",
        "2027-01-01T00:00:00+05:45",
    )
    before = datetime.now(UTC)
    then = times.past("2h", utc=False)
    assert before <= then + timedelta(hours=2) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        (times.duration, "30", "'30' has no unit: write 30d for days, or 30h, 30m or 30s"),
        (times.fixed_or_duration, "30", "'30' has no unit: write 30d for days"),
        (times.fixed_or_duration, "soon", "'soon' is neither a time such as 2026-12-31"),
        (times.fixed, "2026-13-01", "'2026-13-01' is not a time such as 2026-12-31"),
        (times.moment, "0001-01-01", "is not a time such as"),
        (lambda text: times.past(text, utc=True), "999999999d", "is before the year 1"),
        (lambda text: times.month(text, utc=True), "2026-13", "is not a month such as 2026-11"),
        (lambda text: times.month(text, utc=False), "November", "is not a month such as 2026-11"),
    ],
)
def test_a_wrong_time_is_explained(
    far_from_utc: None, read: Callable[[str], object], text: str, words: str
) -> None:
    with pytest.raises(typer.BadParameter) as raised:
        read(text)
    assert words in raised.value.message


def test_a_grant_expires_at_the_beginning_of_a_day_and_its_retry_in_no_other_zone(
    served: Served, far_from_utc: None
) -> None:
    grant = ["grant", *OF_USER, "--credits", "5", "--expires", "2099-01-02"]
    assert done(*grant)["expires_at"] == "2099-01-01T18:15:00.000Z"
    failed = credit(*grant, "--target", "127.0.0.1:1")
    _, retry = failed.stderr.splitlines()
    assert "2099-01-02T00:00:00+05:45" in shlex.split(retry)


def test_the_times_of_a_list_are_local_unless_utc_is_asked_for(
    served: Served, far_from_utc: None
) -> None:
    _history(served, 1)
    at = datetime.now(UTC)
    local, utc = ((at + offset).isoformat()[:16] for offset in (timedelta(hours=5), timedelta()))
    listed = ["transactions", "--user", "7", "--since"]
    # An hour ago in local time, which is hours ahead of now in UTC.
    assert credit(*listed, local).stdout.count("\n") == 1
    assert credit(*listed, local, "--utc").stdout == ""
    assert credit(*listed, utc, "--utc").stdout.count("\n") == 1
    assert credit(*listed, "1h").stdout.count("\n") == 1
    assert credit(*listed, "1h", "--until", "59m").stdout == ""
