"""`credit import`: files, rejected lines, exit codes, interruption and repetition."""

import contextlib
import csv
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from credit_client.cli.commands import app
from credit_client.cli.exits import Exit
from credit_models import ErrorReason
from typer.testing import CliRunner, Result

from tests.client.served import Served

COMMAND = str(Path(sys.executable).with_name("credit"))
CSV = """\
kind,user_id,app_id,credits,created_by,report_id,report_name,idempotency_key
add,7,1,100,3,,,
use,7,1,30,,r-1,"Traffic, ""May"" I",order-1
,8,1,5,,,,
"""
NDJSON = """\
{"user_id": 7, "app_id": 1, "credits": 100, "created_by": 3}

{"kind": "use", "user_id": 7, "app_id": 1, "credits": 30, "report_id": "r-1", "report_name": "R"}
{"user_id": 8, "app_id": 1, "credits": 5}
"""


@pytest.fixture
def served(
    fake_server: Callable[..., AbstractAsyncContextManager[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Served]:
    with Served(fake_server) as served:
        monkeypatch.setenv("CREDIT_TARGET", f"127.0.0.1:{served.port}")
        monkeypatch.setenv("CREDIT_RETRY_BACKOFF_INITIAL_SECONDS", "0.001")
        monkeypatch.setenv("CREDIT_RETRY_ATTEMPTS_MAX", "2")
        yield served


def _import(*arguments: object, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, arguments)], input=text)


def _file(folder: Path, text: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("text", [CSV, NDJSON, "\ufeff" + CSV, CSV.replace("\n", "\r\n")])
def test_rows_of_a_file_take_effect_once(served: Served, tmp_path: Path, text: str) -> None:
    path, ledger = _file(tmp_path, text), served.service.ledger
    first = _import(path, "--name", "may", "--by", 9)
    assert (first.exit_code, first.stderr) == (0, "")
    assert json.loads(first.stdout) == {"rows": 3, "applied": 3, "replayed": 0, "rejected": 0}
    again = _import(path, "--name", "may", "--by", 9)
    assert json.loads(again.stdout) == {"rows": 3, "applied": 0, "replayed": 3, "rejected": 0}
    added, used = ledger.transactions(user_id=7)
    assert (added.created_by, added.idempotency_key, used.created_by) == (3, "may:1", 9)
    assert [each.report_name in {"R", 'Traffic, "May" I'} for each in ledger.purchases(user_id=7)]
    assert ledger.balance(app_id=1) == 75


def test_standard_input_is_imported_too(served: Served) -> None:
    result = _import("-", "--name", "may", text=NDJSON)
    assert json.loads(result.stdout)["applied"] == 3


def test_an_empty_file_has_no_rows(served: Served, tmp_path: Path) -> None:
    assert json.loads(_import(_file(tmp_path, "\n"), "--name", "a").stdout)["rows"] == 0


BAD_CSV = """\
user_id,app_id,credits
7,1,100
7,x,5
7,1
7,1,0
,1,5

8,1,7
"""
BAD_NDJSON = """\
{"user_id": 7, "app_id": 1, "credits": 100}
{"user_id": 7, "app_id": "x", "credits": 5}
{"user_id":
[]
{"user_id": 7, "app_id": 1, "credits": 5, "color": 1}
{"app_id": 1, "credits": 5}
{"user_id": 8, "app_id": 1, "credits": 7}
"""


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            BAD_CSV,
            [
                "line 3: app_id must be a whole number, not 'x'",
                "line 4: it has 2 values, and the header has 3",
                "line 5: credits must be 1 to 4294967295, got 0",
                "line 6: user_id is missing",
            ],
        ),
        (
            BAD_NDJSON,
            [
                "line 2: app_id must be int, not str",
                "line 3: it is no JSON: Expecting value: line 2 column 1 (char 12)",
                "line 4: it is no JSON object",
                "line 5: color is no field of a row",
                "line 6: user_id is missing",
            ],
        ),
    ],
)
def test_bad_lines_are_named_and_the_others_take_effect(
    served: Served, tmp_path: Path, text: str, problems: list[str]
) -> None:
    path, rejected = _file(tmp_path, text), tmp_path / "rejected"
    result = _import(path, "--name", "a", "--rejected", rejected)
    assert result.exit_code == Exit.ROWS_REJECTED
    assert result.stderr.splitlines() == [f"credit: {each}" for each in problems]
    numbers = json.loads(result.stdout)
    assert (numbers["applied"], numbers["rejected"]) == (2, len(problems))
    assert served.service.ledger.balance(app_id=1) == 107
    # The position of a row counts bad lines: its key stays when they are corrected.
    (last,) = served.service.ledger.transactions(user_id=8)
    assert last.idempotency_key == f"a:{numbers['rows']}"
    assert len(rejected.read_text().splitlines()) == len(problems) + (text is BAD_CSV)


def test_bytes_that_are_no_text_are_a_bad_line(served: Served, tmp_path: Path) -> None:
    head = b"kind,user_id,app_id,credits,report_id,report_name\n"
    path = _file(tmp_path, head + b"use,7,1,5,r,\xff\nadd,7,1,5,,\n")
    result = _import(path, "--name", "a")
    assert "line 2: report_name must be valid Unicode text" in result.stderr
    assert json.loads(result.stdout)["applied"] == 1


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("csv", "kind,user_id,app_id,credits,report_id,report_name\nuse,7,1,5,r,R\n"),
        (
            "ndjson",
            (
                '{"kind": "use", "user_id": 7, "app_id": 1, "credits": 5,'
                ' "report_id": "r", "report_name": "R"}\n'
            ),
        ),
    ],
)
def test_the_file_of_rejected_rows_can_be_imported_again(
    served: Served, tmp_path: Path, suffix: str, text: str
) -> None:
    rejected = tmp_path / f"rejected.{suffix}"
    path = _file(tmp_path, text, f"rows.{suffix}")
    result = _import(path, "--name", "a", "--rejected", rejected)
    assert result.exit_code == Exit.ROWS_REJECTED
    if suffix == "csv":
        with rejected.open(newline="") as file:
            (row,) = csv.DictReader(file)
    else:
        row = json.loads(rejected.read_text())
    assert (str(row["line"]), row["idempotency_key"]) == ("2" if suffix == "csv" else "1", "a:1")
    assert "5 are required" in row["error"]
    CliRunner().invoke(app, ["add", "--user", "7", "--app", "1", "--credits", "5"])
    for numbers in ({"applied": 1}, {"replayed": 1}):
        again = json.loads(_import(rejected).stdout)
        assert again == {"rows": 1, "applied": 0, "replayed": 0, "rejected": 0} | numbers
    assert json.loads(_import(path, "--name", "a").stdout)["replayed"] == 1


def test_there_is_no_file_of_rejected_rows_without_one(served: Served, tmp_path: Path) -> None:
    rejected = tmp_path / "rejected.csv"
    _import(_file(tmp_path, CSV), "--name", "a", "--rejected", rejected)
    assert not rejected.exists()


def test_only_the_first_rejected_lines_are_shown(served: Served, tmp_path: Path) -> None:
    path = _file(tmp_path, "user_id,app_id,credits\n" + "0,1,1\n" * 30)
    lines = _import(path, "--name", "a").stderr.splitlines()
    assert len(lines) == 21
    assert lines[-1] == (
        "credit: more rejected lines are not shown: pass --rejected FILE to keep all"
    )
    kept = _import(path, "--name", "a", "--rejected", tmp_path / "r")
    assert kept.stderr.splitlines()[-1] == "credit: more rejected lines are not shown"
    assert len((tmp_path / "r").read_text().splitlines()) == 31


def test_a_dry_run_checks_the_rows_and_sends_nothing(tmp_path: Path) -> None:
    good = _import(_file(tmp_path, CSV), "--name", "a", "--dry-run")
    assert (good.exit_code, json.loads(good.stdout)["valid"]) == (0, 3)
    bad = _import(_file(tmp_path, BAD_CSV), "--name", "a", "--dry-run", "-o", "table")
    assert bad.exit_code == Exit.ROWS_REJECTED
    assert bad.stdout == "rows      6\nvalid     2\nrejected  4\n"
    assert "line 3: app_id must be a whole number" in bad.stderr


@pytest.mark.parametrize(
    ("arguments", "text", "problem"),
    [
        ([], CSV, "line 2 has no idempotency_key: pass --name"),
        (["--name", "a"], "user_id,app_id,credits,color\n", "the column 'color'; columns are"),
        (["--name", "a"], "user_id,app_id\n", "the header has no column credits"),
        (["--name", "a"], "user_id,app_id,credits,credits\n", "has a column twice"),
        (["--name", ""], CSV, "1 to 100 characters"),
        (["--name", "a", "--concurrency", "0"], CSV, "--concurrency must be 1 to 64"),
        (["--name", "a", "--timeout", "0"], CSV, "--timeout must be above 0, got 0"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_misuse_is_named(
    served: Served, tmp_path: Path, arguments: list[str], text: str, problem: str, dry: bool
) -> None:
    if dry and "--timeout" in arguments:
        return
    options = [*arguments, "--dry-run"] if dry else arguments
    result = _import(_file(tmp_path, text), *options)
    assert (result.exit_code, result.stdout) == (Exit.MISUSE, "")
    assert problem in result.stderr
    assert "Traceback" not in result.stderr
    assert served.service.ledger.balance(app_id=1) == 0


def test_a_file_must_exist_and_must_not_be_overwritten(tmp_path: Path) -> None:
    assert _import(tmp_path / "none").exit_code == Exit.MISUSE
    path = _file(tmp_path, CSV)
    result = _import(path, "--rejected", path)
    assert result.exit_code == Exit.MISUSE
    assert "--rejected must not be the file that is imported" in result.stderr
    assert path.read_text() == CSV


def test_an_import_that_ends_early_names_the_command_that_completes_it(
    served: Served, tmp_path: Path
) -> None:
    rows = "".join(f"{1 + number % 9},1,5\n" for number in range(1200))
    path = _file(tmp_path, "user_id,app_id,credits\n" + rows)
    served.service.fail_next(ErrorReason.OVERLOADED, times=5000)
    result = _import(path, "--name", "a", "--concurrency", "1")
    assert (result.exit_code, result.stdout) == (Exit.UNAVAILABLE, "")
    early, error, retry = result.stderr.splitlines()
    assert early.startswith("credit: the import ended early: of ")
    assert "took effect" in early
    assert "no change was made" in error
    assert f"counts once: credit import {path} --name a --by 1 --target" in retry
    served.service._failures.clear()
    again = json.loads(_import(path, "--name", "a").stdout)
    assert again["applied"] + again["replayed"] == 1200
    assert served.service.ledger.balance(app_id=1) == 6000


def test_an_interrupted_import_names_its_command(served: Served, tmp_path: Path) -> None:
    fifo = tmp_path / "rows"
    os.mkfifo(fifo)
    with (
        subprocess.Popen(
            [COMMAND, "import", str(fifo), "--name", "a"],
            stdout=-1,
            stderr=-1,
            text=True,
            # What a shell runs in the background ignores the signal, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        ) as process,
        fifo.open("w") as rows,
    ):
        rows.write("user_id,app_id,credits\n" + "7,1,5\n" * 1100)
        rows.flush()
        # The ledger is in another thread: a sum over all users would find it changed.
        while not served.service.ledger.balance(app_id=1, user_id=7):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate()
    assert process.returncode == Exit.INTERRUPTED
    assert "interrupted; the write may have taken effect" in complaint
    assert f"credit import {fifo} --name a" in complaint


def test_a_terminal_shows_the_progress_and_nothing_else_does(
    served: Served, tmp_path: Path
) -> None:
    path = _file(tmp_path, "user_id,app_id,credits\n" + "7,1,5\n" * 1100)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "import", str(path), "--name", "a"], stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(ours, 65536):
            shown += part
    out, _ = process.communicate()
    os.close(ours)
    assert json.loads(out)["applied"] == 1100
    assert b"rows" in shown
    quiet = subprocess.run(
        [COMMAND, "import", str(path), "--name", "a"], capture_output=True, check=True
    )
    assert quiet.stderr == b""
