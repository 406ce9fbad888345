"""`credit statement` and `credit export`: what adds up, and files that are continued."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from credit_client.cli.commands import app
from credit_client.testing import FakeLedger
from credit_models import CreditTransaction, ErrorReason, TransactionType
from typer.testing import CliRunner, Result

from tests.client.served import Served

COMMAND = str(Path(sys.executable).with_name("credit"))
NOVEMBER = ["statement", "7", "--month", "2026-11", "--utc"]


class Clock:
    now = datetime(2026, 10, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def served(
    fake_server: Callable[..., AbstractAsyncContextManager[int]],
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> Iterator[Served]:
    with Served(fake_server, FakeLedger(clock=clock)) as served:
        monkeypatch.setenv("CREDIT_TARGET", f"127.0.0.1:{served.port}")
        monkeypatch.setenv("CREDIT_RETRY_ATTEMPTS_MAX", "1")
        yield served


@pytest.fixture
def user(served: Served, clock: Clock) -> None:
    """Give user 7 transactions in two apps before, in and after November."""
    done("add", *_of(1), "--credits", "100")
    done("add", *_of(2), "--credits", "7")
    clock.now = datetime(2026, 11, 1, tzinfo=UTC)
    done("use", *_of(1), "--report", "r-1", "--name", "Traffic", "--credits", "30", "--by", "4")
    clock.now = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    done("add", *_of(1), "--credits", "5")
    done("use", *_of(1), "--report", "r-2", "--name", "=Weather", "--credits", "10")
    clock.now = datetime(2026, 12, 1, tzinfo=UTC)
    done("use", *_of(1), "--report", "r-3", "--name", "Traffic", "--credits", "1")


def _of(app_id: int) -> list[str]:
    return ["--user", "7", "--app", str(app_id)]


def credit(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def done(*arguments: str) -> str:
    result = credit(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def sheet(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


@pytest.mark.usefixtures("user")
def test_a_statement_is_a_page_with_balances_entries_and_totals() -> None:
    about, openings, entries, totals, closings = done(*NOVEMBER, "-o", "table").split("\n\n")
    assert [line.split(maxsplit=1) for line in about.splitlines()] == [
        ["user_id", "7"],
        ["month", "2026-11"],
        ["from", "2026-11-01 00:00:00+00:00"],
        ["until", "2026-12-01 00:00:00+00:00"],
    ]
    assert [line.split() for line in openings.splitlines()[1:]] == [["1", "100"], ["2", "7"]]
    head, *rows = entries.splitlines()
    assert head.split() == [
        *["SEQ", "CREATED", "AT", "APP", "ID", "TYPE", "REPORT", "NAME", "CREATED", "BY"],
        *["IN", "OUT", "BALANCE"],
    ]
    assert [row.split()[3:] for row in rows] == [
        ["1", "USE", "Traffic", "4", "-", "30", "70"],
        ["1", "ADD", "-", "1", "5", "-", "75"],
        ["1", "USE", "=Weather", "1", "-", "10", "65"],
    ]
    assert [line.split() for line in totals.splitlines()[1:]] == [
        ["ADD", "1", "5", "0"],
        ["USE", "2", "0", "40"],
    ]
    assert [line.split() for line in closings.splitlines()[1:]] == [
        ["1", "100", "5", "40", "65"],
        ["2", "7", "0", "0", "7"],
    ]


@pytest.mark.usefixtures("user")
def test_a_statement_of_one_app_has_no_column_for_it() -> None:
    _, openings, entries, _, closings = done(*NOVEMBER, "--app", "1", "-o", "table").split("\n\n")
    assert "APP ID" not in entries
    assert len(openings.splitlines()) == len(closings.splitlines()) == 2
    october = done("statement", "7", "--month", "2026-10", "--app", "2", "--utc", "-o", "table")
    assert october.splitlines()[-1].split() == ["2", "0", "7", "0", "7"]


@pytest.mark.usefixtures("user")
def test_a_statement_is_one_json_document() -> None:
    document = json.loads(done(*NOVEMBER, "-o", "json"))
    assert document["from"] == "2026-11-01T00:00:00.000Z"
    assert document["openings"] == [{"app_id": 1, "opening": 100}, {"app_id": 2, "opening": 7}]
    first = document["transactions"][0]
    names = ("sequence", "report_id", "credits_in", "credits_out", "balance", "created_by")
    assert [first[name] for name in names] == [3, "r-1", 0, 30, 70, 4]
    assert [total["type"] for total in document["totals"]] == ["ADD", "USE"]
    assert [one["closing"] for one in document["apps"]] == [65, 7]
    empty = json.loads(done("statement", "9", "--month", "2026-11", "-o", "json"))
    assert (empty["transactions"], empty["apps"]) == ([], [])


@pytest.mark.usefixtures("user")
def test_a_statement_as_csv_has_rows_for_the_balances() -> None:
    rows = sheet(done(*NOVEMBER, "-o", "csv"))
    assert [(row["type"], row["app_id"], row["balance"]) for row in rows] == [
        ("OPENING", "1", "100"),
        ("OPENING", "2", "7"),
        ("USE", "1", "70"),
        ("ADD", "1", "75"),
        ("USE", "1", "65"),
        ("CLOSING", "1", "65"),
        ("CLOSING", "2", "7"),
    ]
    assert rows[4]["report_name"] == "'=Weather"
    assert (rows[0]["credits_in"], rows[0]["credits_out"]) == ("", "")


def test_a_debt_is_a_balance_below_zero(served: Served) -> None:
    done("policy", "--app", "1", "--allow-negative")
    done("adjust", *_of(1), "--delta", "-7", "--note", "Chargeback")
    document = json.loads(done("statement", "7", "--month", "2026-10", "--utc", "-o", "json"))
    assert [one["balance"] for one in document["transactions"]] == [-7]
    assert document["apps"][0]["closing"] == -7


def test_a_statement_of_more_than_a_page_adds_up(served: Served) -> None:
    for _ in range(1001):
        done_by_fake(served)
    document = json.loads(done("statement", "7", "--month", "2026-10", "--utc", "-o", "json"))
    assert len(document["transactions"]) == 1001
    assert document["apps"][0]["closing"] == 1001


def done_by_fake(served: Served) -> None:
    from credit_models import CreditRequest

    served.service.ledger.add(CreditRequest(user_id=7, app_id=1, credits=1, created_by=1))


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_transactions_that_do_not_add_up_are_an_error(
    served: Served, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    true = served.service.ledger.transactions

    def wrong(*, user_id: int, after_sequence: int = 0) -> list[CreditTransaction]:
        found = list(true(user_id=user_id, after_sequence=after_sequence))
        return [one for one in found if one.sequence != 4]  # one is lost

    monkeypatch.setattr(served.service.ledger, "transactions", wrong)
    result = credit(*NOVEMBER, "-o", form)
    assert result.exit_code == 1
    assert result.stderr == (
        "credit: the statement is wrong and ends here: app 1, sequence 5: the balance before is 70,"
        " the effect -10, and the balance after 65; report this to the operator\n"
    )
    if form == "json":
        with pytest.raises(json.JSONDecodeError):
            json.loads(result.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--month", "2026-13"], "'2026-13' is not a month such as 2026-11"),
        (["--month", "today"], "Invalid value for '--month'"),
        ([], "Missing option '--month'"),
    ],
)
def test_a_statement_needs_a_month(served: Served, arguments: list[str], words: str) -> None:
    result = credit("statement", "7", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.replace("│", " ").split())


# ---- export


@pytest.mark.usefixtures("user")
def test_an_export_has_all_transactions(tmp_path: Path) -> None:
    rows = sheet(done("export", "7"))
    assert [row["sequence"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    listed = done("transactions", "--user", "7")
    assert done("export", "7", "-o", "json") == listed
    file = tmp_path / "all.csv"
    assert credit("export", "7", "--file", str(file)).stdout == ""
    assert sheet(file.read_text()) == rows
    assert [each.name for each in tmp_path.iterdir()] == ["all.csv"]
    assert sheet(done("export", "9")) == []


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("form", ["csv", "json"])
def test_an_interrupted_export_is_continued_after_its_last_complete_row(
    tmp_path: Path, form: str
) -> None:
    whole = credit("export", "7", "-o", form).stdout_bytes
    file, part = tmp_path / "all", tmp_path / "all.part"
    for length in range(0, len(whole), 211):
        part.write_bytes(whole[:length])
        result = credit("export", "7", "--resume", str(file), *(["-o", form] if not length else []))
        assert result.exit_code == 0, result.stderr
        assert file.read_bytes() == whole
        assert not part.exists()
        file.unlink()


@pytest.mark.usefixtures("user")
def test_a_complete_export_gets_the_transactions_since_then(tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    done("export", "7", "--file", str(file))
    done("add", *_of(1), "--credits", "2")
    result = credit("export", "7", "--resume", str(file))
    assert result.stderr == f"credit: 1 transaction was written to {file}\n"
    assert [row["sequence"] for row in sheet(file.read_text())] == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
    ]


@pytest.mark.usefixtures("user")
def test_an_export_never_looks_complete_if_it_is_not(served: Served, tmp_path: Path) -> None:
    file, part = tmp_path / "all.csv", tmp_path / "all.csv.part"
    served.service.fail_next(ErrorReason.STORE_UNAVAILABLE)
    assert credit("export", "7", "--file", str(file)).exit_code == 6
    assert list(tmp_path.iterdir()) == []
    done("export", "7", "--file", str(file))
    complete = file.read_bytes()
    served.service.fail_next(ErrorReason.STORE_UNAVAILABLE)
    assert credit("export", "7", "--resume", str(file)).exit_code == 6
    assert file.read_bytes() == complete
    file.rename(part)
    part.write_bytes(complete[:-5])
    served.service.fail_next(ErrorReason.STORE_UNAVAILABLE)
    failed = credit("export", "7", "--resume", str(file))
    assert failed.exit_code == 6
    assert "an incomplete row of" in failed.stderr
    assert f"{part} ends with sequence 5; the same command with --resume {file}" in failed.stderr
    assert not file.exists()
    done("export", "7", "--resume", str(file))
    assert file.read_bytes() == complete


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"a,b\r\n1,2\r\n", ["--resume"], "it is not an export"),
        (b"my notes", ["--resume"], "it is not an export"),
        (b'{"a": 1}', ["--resume"], "it is not an export"),
        (b'{"id": "x", "user_id": 8, "sequence": 3}\n', ["--resume"], "of user 8, and not of 7"),
        (b'{"id": "x", "user_id": 7}\n', ["--resume"], "its last row is not a transaction"),
        (
            b'{"id": "x", "user_id": 7, "sequence": 3}\n',
            ["-o", "csv", "--resume"],
            "its form is json, and -o is csv",
        ),
        (b"", ["--file"], "all.csv exists: continue it with --resume"),
    ],
)
def test_a_file_that_cannot_be_continued_is_left_as_it_is(
    tmp_path: Path, content: bytes, options: list[str], words: str
) -> None:
    file = tmp_path / "all.csv"
    file.write_bytes(content)
    result = credit("export", "7", *options, str(file))
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert file.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1


def test_misuse_of_an_export_is_named(served: Served, tmp_path: Path) -> None:
    both = credit("export", "7", "--file", "a", "--resume", "b")
    assert "give --file for a new file, or --resume" in " ".join(both.stderr.split())
    table = credit("export", "7", "-o", "table")
    assert "an export must be csv or json" in " ".join(table.stderr.split())
    missing = credit("export", "7", "--file", str(tmp_path / "no" / "a.csv"))
    assert "No such file" in " ".join(missing.stderr.split())
    (tmp_path / "a").touch()
    (tmp_path / "a.part").touch()
    two = credit("export", "7", "--resume", str(tmp_path / "a"))
    assert "a.part exists too" in " ".join(two.stderr.split())


@pytest.mark.usefixtures("user")
def test_an_export_shows_its_progress_at_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    file = tmp_path / "all.csv"
    finished = subprocess.run([COMMAND, "export", "7", "--file", file], check=False, stderr=theirs)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert finished.returncode == 0
    assert "transactions" in shown
    assert f"6 transactions were written to {file}" in " ".join(shown.split())


def test_every_type_can_be_listed_by_its_name() -> None:
    shown = " ".join(credit("transactions", "--help").stdout.split())
    for kind in TransactionType:
        if kind and kind.name:
            assert kind.name.lower() in shown
