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


def _run(*arguments: object) -> None:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.stderr


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


def test_the_sample_of_the_page_takes_effect_after_the_example_of_the_readme(
    served: Served, tmp_path: Path
) -> None:
    _run("add", "--user", 7, "--app", 1, "--credits", 120, "--key", "payment-81")
    order = ("--report", "r-81", "--name", "Traffic", "--credits", 5, "--key", "order-4711")
    _run("use", "--user", 7, "--app", 1, *order)
    page = (Path(__file__).parents[2] / "docs" / "import.md").read_text()
    sample = page.split("```csv\n")[1].split("```")[0]
    result = _import(_file(tmp_path, sample), "--name", "welcome-2026", "-o", "table")
    assert result.stdout in page.replace("\n    ", "\n")
    assert result.stdout.startswith("rows      2\napplied   2\n")


def test_standard_input_is_imported_too(served: Served) -> None:
    result = _import("-", "--name", "may", text=NDJSON)
    assert json.loads(result.stdout)["applied"] == 3


def test_a_header_without_rows_is_a_file_of_no_rows(served: Served, tmp_path: Path) -> None:
    path = _file(tmp_path, "user_id,app_id,credits\n")
    assert json.loads(_import(path, "--name", "a").stdout)["rows"] == 0


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
                "line 3: the line is not valid JSON: Expecting value: line 1 column 12 (char 11)",
                "line 4: the line is not a JSON object",
                "line 5: color is not a field of a row",
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
    assert "line 2: it is not valid UTF-8" in result.stderr
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


def _rejected_rows(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".csv":
        with path.open(newline="", errors="surrogateescape") as file:
            return [dict(row) for row in csv.DictReader(file)]
    return [json.loads(line) for line in path.read_text().splitlines()]


PROMO_CSV = "user_id,app_id,credits\n7,1,10\n7,1,oops\n\n7,1,20\n"
PROMO_NDJSON = """\
{"user_id": 7, "app_id": 1, "credits": 10}
{"user_id": 7, "app_id": 1, "credits": "oops"}

{"user_id": 7, "app_id": 1, "credits": 20}
"""


@pytest.mark.parametrize("options", [[], ["--name", "promo"], ["--name", "other"]])
@pytest.mark.parametrize(
    ("suffix", "text", "wrong", "right"),
    [("csv", PROMO_CSV, "oops", "10"), ("ndjson", PROMO_NDJSON, '"oops"', "10")],
)
def test_a_corrected_row_counts_once_in_whichever_file_it_is(
    served: Served,
    tmp_path: Path,
    suffix: str,
    text: str,
    wrong: str,
    right: str,
    options: list[str],
) -> None:
    path, rejected = _file(tmp_path, text, f"rows.{suffix}"), tmp_path / f"rejected.{suffix}"
    assert json.loads(_import(path, "--name", "promo", "--rejected", rejected).stdout) == {
        "rows": 3,
        "applied": 2,
        "replayed": 0,
        "rejected": 1,
    }
    (row,) = _rejected_rows(rejected)
    assert (str(row["line"]), row["idempotency_key"]) == (
        "3" if suffix == "csv" else "2",
        "promo:2",
    )
    rejected.write_text(rejected.read_text().replace(wrong, right, 1))
    assert json.loads(_import(rejected, *options).stdout)["applied"] == 1
    path.write_text(text.replace(wrong, right))
    assert json.loads(_import(path, "--name", "promo").stdout)["replayed"] == 3
    assert served.service.ledger.balance(app_id=1) == 40


UNREADABLE_CSV = """\
user_id,app_id,credits,created_by
7,1,5
"7",1,5,2,6
8,1,5,2
"""
UNREADABLE_NDJSON = """\
{"user_id": 7, "app_id": 1, "credits": 5}, {}
[7, 1, 5]
{"user_id": 8, "app_id": 1, "credits": 5}
"""
UNREADABLE = [("csv", UNREADABLE_CSV), ("ndjson", UNREADABLE_NDJSON)]


@pytest.mark.parametrize(("suffix", "text"), UNREADABLE)
def test_a_line_without_values_of_its_fields_stays_rejected_until_it_is_corrected(
    served: Served, tmp_path: Path, suffix: str, text: str
) -> None:
    path, rejected = _file(tmp_path, text, f"rows.{suffix}"), tmp_path / f"rejected.{suffix}"
    again = tmp_path / f"again.{suffix}"
    _import(path, "--name", "a", "--rejected", rejected)
    lines = text.splitlines()[suffix == "csv" :]
    kept = [(row["text"], row["idempotency_key"]) for row in _rejected_rows(rejected)]
    assert kept == [(lines[0], "a:1"), (lines[1], "a:2")]
    result = _import(rejected, "--rejected", again)
    assert json.loads(result.stdout)["rejected"] == 2
    assert "move the values in text to their own fields, and empty text" in result.stderr
    assert [(row["text"], row["idempotency_key"]) for row in _rejected_rows(again)] == kept
    assert served.service.ledger.balance(app_id=1, user_id=7) == 0
    corrected = [
        {"user_id": 7, "app_id": 1, "credits": number, "created_by": 1, "text": ""} | row
        for number, row in zip((5, 6), ({"idempotency_key": key} for _, key in kept), strict=True)
    ]
    with again.open("w", newline="") as file:
        if suffix == "csv":
            writer = csv.DictWriter(file, list(corrected[0]))
            writer.writeheader()
            writer.writerows(corrected)
        else:
            file.writelines(json.dumps(row) + "\n" for row in corrected)
    assert json.loads(_import(again).stdout)["applied"] == 2
    keys = [each.idempotency_key for each in served.service.ledger.transactions(user_id=7)]
    assert keys == ["a:1", "a:2"]


# A row with a key of its own, and a line that can have one.
KEYED_CSV = "user_id,app_id,credits,idempotency_key\n8,1,5,own\n7,1,order-2\n"
KEYED_NDJSON = """\
{"user_id": 8, "app_id": 1, "credits": 5, "idempotency_key": "own"}
{"user_id": 7, "app_id": 1, "credits": 5, "idempotency_key": "order-2"
"""


@pytest.mark.parametrize(("suffix", "text"), [("csv", KEYED_CSV), ("ndjson", KEYED_NDJSON)])
def test_a_line_that_can_have_a_key_of_its_own_gets_none(
    served: Served, tmp_path: Path, suffix: str, text: str
) -> None:
    path, rejected = _file(tmp_path, text, f"rows.{suffix}"), tmp_path / f"rejected.{suffix}"
    again = tmp_path / f"again.{suffix}"
    result = _import(path, "--name", "a", "--rejected", rejected)
    assert "; its key is a:2 if it has none of its own" in result.stderr
    _import(rejected, "--name", "a", "--rejected", again)
    for file in (rejected, again):
        (row,) = _rejected_rows(file)
        assert row.get("idempotency_key", "") == ""
        assert "its key is a:2 if it has none of its own" in str(row["error"])


REJECTED = '{"user_id": 7, "app_id": 1, "credits": 0, "idempotency_key": "a:4", "error": "e"}\n'
CUT = '{"user_id": 7, "app_id": 1, "error": "e"\n'


@pytest.mark.parametrize("text", [REJECTED + CUT, REJECTED + '["a"]\n', CUT])
def test_a_broken_line_of_rejected_rows_gets_no_key(
    served: Served, tmp_path: Path, text: str
) -> None:
    """The key of its position is that of another row."""
    rejected = tmp_path / "rejected.ndjson"
    _import(_file(tmp_path, text), "--name", "a", "--rejected", rejected)
    assert "idempotency_key" not in _rejected_rows(rejected)[-1]


def test_a_word_of_a_broken_line_does_not_cost_its_key(served: Served, tmp_path: Path) -> None:
    rejected = tmp_path / "rejected.ndjson"
    path = _file(tmp_path, '{"user_id": 7, "report_name": "an error"\n')
    _import(path, "--name", "a", "--rejected", rejected)
    assert _rejected_rows(rejected)[0]["idempotency_key"] == "a:1"


def test_a_number_with_text_after_its_quotes_is_no_csv(served: Served, tmp_path: Path) -> None:
    result = _import(_file(tmp_path, 'user_id,app_id,credits\n7,1,"5"0\n'), "--name", "a")
    assert "line 2: the line is not valid CSV: ',' expected" in result.stderr


def test_a_key_of_the_wrong_type_stays_wrong(served: Served, tmp_path: Path) -> None:
    row = '{"user_id": 7, "app_id": 1, "credits": 5, "idempotency_key": 5}\n'
    rejected = tmp_path / "rejected.ndjson"
    _import(_file(tmp_path, row), "--name", "a", "--rejected", rejected)
    assert _rejected_rows(rejected)[0]["idempotency_key"] == 5
    assert json.loads(_import(rejected).stdout)["rejected"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "user_id,app_id,credits,line,error\n7,1,5,3,oops\n",
        '{"user_id": 7, "app_id": 1, "credits": 5, "line": 3, "error": "oops"}\n',
    ],
)
def test_a_rejected_row_gets_no_key_from_its_position_in_the_file_of_rejected_rows(
    served: Served, tmp_path: Path, text: str
) -> None:
    result = _import(_file(tmp_path, text), "--name", "a")
    assert (result.exit_code, result.stdout) == (Exit.MISUSE, "")
    assert "is a rejected row without its idempotency_key: run the first import" in result.stderr


def test_bytes_that_are_no_text_are_kept_and_rejected_again(served: Served, tmp_path: Path) -> None:
    head = b"kind,user_id,app_id,credits,report_id,report_name\n"
    path, rejected = _file(tmp_path, head + b"use,7,1,5,r,caf\xe9\n"), tmp_path / "rejected.csv"
    _import(path, "--name", "a", "--rejected", rejected)
    assert b"use,7,1,5,r,caf\xe9,a:1,,2," in rejected.read_bytes()
    assert "line 2: it is not valid UTF-8" in _import(rejected).stderr


def test_lines_are_counted_from_the_start_of_the_file(served: Served, tmp_path: Path) -> None:
    for text in ("\n\nuser_id,app_id,credits\n7,1,0\n", '\n\n\n{"user_id": 7}\n'):
        assert "credit: line 4: " in _import(_file(tmp_path, text), "--name", "a").stderr


def test_rejected_rows_are_in_the_file_as_soon_as_they_are_rejected(
    served: Served, tmp_path: Path
) -> None:
    rejected, fifo = tmp_path / "rejected.csv", tmp_path / "rows"
    os.mkfifo(fifo)
    arguments = [COMMAND, "import", str(fifo), "--name", "a", "--rejected", str(rejected)]
    with (
        subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process,
        fifo.open("w") as rows,
    ):
        rows.write("user_id,app_id,credits\n" + "7,1,0\n" * 500)
        rows.flush()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if rejected.exists() and len(rejected.read_text().splitlines()) == 501:
                break
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert [row["idempotency_key"] for row in _rejected_rows(rejected)] == [
        f"a:{position}" for position in range(1, 501)
    ]


def test_an_import_stops_where_positions_are_uncertain(served: Served, tmp_path: Path) -> None:
    head, rows = "user_id,app_id,credits\n", "7,1,5\n" * 600
    for bad, problem in (
        (
            '8,1,"5\n8,1,5\n',
            "line 602 has a quote that is not closed, or a value with a line break",
        ),
        ("8,1,5\r8,1,5\n", "line 602 has a carriage return (CR) before its end"),
    ):
        path = _file(tmp_path, head + rows + bad + "9,1,5\n")
        result = _import(path, "--name", "a")
        assert (result.exit_code, result.stdout) == (Exit.MISUSE, "")
        assert problem in result.stderr
        assert "; rows before it may have taken effect, and count once" in result.stderr
        assert "nothing was sent" in _import(path, "--name", "a", "--dry-run").stderr
        assert served.service.ledger.balance(app_id=1, user_id=9) == 0


def test_a_missing_field_of_a_use_is_named(served: Served, tmp_path: Path) -> None:
    head = "kind,user_id,app_id,credits,report_id,report_name\n"
    result = _import(_file(tmp_path, head + "use,7,1,5,,R\nuse,7,1,5,r,\n"), "--name", "a")
    assert result.stderr == (
        "credit: line 2: report_id is missing\ncredit: line 3: report_name is missing\n"
    )


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
        (["--name", "a"], "", "the file is empty; nothing was sent"),
        (["--name", "a"], "\n \n", "the file is empty"),
        (["--name", "a"], CSV.replace("\n", "\r"), "line 1 has a carriage return (CR)"),
        (["--name", "a"], "\x89PNG\r\n\x1a\n".encode("latin-1"), "first line is not valid UTF-8"),
        (["--name", "a"], CSV.encode("utf-16"), "the file is not UTF-8 text: save it as CSV"),
        (["--name", "a"], CSV.replace("\n", "\r\n").encode("utf-16-be"), "is not UTF-8 text"),
        (["--name", "a"], "\xe9,1\n".encode("latin-1"), "the first line is not valid UTF-8"),
        (["--name", "a"], "a" * 200_000, "the first line is not valid CSV: field larger than"),
        (["--name", "a"], 'user_id,"app_id\n', "line 1 has a quote that is not closed"),
        (["--name", "a"], CSV.replace(",", ";"), "must be separated by commas; nothing was sent"),
        (["--name", "a"], "7,1,5\n7,1,6\n", "the first line must name the columns of a CSV file: "),
        (["--name", ""], CSV, "1 to 100 characters"),
        (["--name", "a", "--concurrency", "0"], CSV, "--concurrency must be 1 to 64"),
        (["--name", "a", "--timeout", "0"], CSV, "--timeout must be above 0, got 0"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_misuse_is_named(
    served: Served, tmp_path: Path, arguments: list[str], text: str | bytes, problem: str, dry: bool
) -> None:
    if dry and "--timeout" in arguments:
        return
    options = [*arguments, "--dry-run"] if dry else arguments
    result = _import(_file(tmp_path, text), *options)
    assert (result.exit_code, result.stdout) == (Exit.MISUSE, "")
    assert problem in result.stderr
    assert "Traceback" not in result.stderr
    assert served.service.ledger.balance(app_id=1) == 0


def test_a_file_must_exist_and_must_not_be_overwritten(tmp_path: Path, forked_credit: str) -> None:
    assert _import(tmp_path / "none").exit_code == Exit.MISUSE
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    looped = _import(tmp_path / "loop", "--rejected", tmp_path / "rejected")
    assert looped.exit_code == Exit.MISUSE
    assert "cannot be read" in looped.stderr
    path = _file(tmp_path, CSV)
    (tmp_path / "hard").hardlink_to(path)
    (tmp_path / "soft").symlink_to(path)
    complaint = "--rejected must not be the file that is imported"
    for name in (path, tmp_path / "hard", tmp_path / "soft"):
        result = _import(path, "--rejected", name)
        assert result.exit_code == Exit.MISUSE
        assert complaint in result.stderr
    assert complaint in _import("-", "--rejected", "-", text=CSV).stderr
    with path.open() as stdin:
        command = [forked_credit, "import", "-", "--name", "may", "--rejected", str(path)]
        ended = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
    assert ended.returncode == Exit.MISUSE
    assert complaint in ended.stderr
    assert path.read_text() == CSV
    result = _import(path, "--rejected", tmp_path / "none" / "rejected.csv")
    assert result.exit_code == Exit.MISUSE
    assert "there is no folder" in result.stderr


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
