"""`credit top`: what it adds up, in which window, and how it shows it."""

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_client.cli.activity import STEPS, Activity, Sums
from credit_client.cli.commands import app
from credit_models import CreditRequest, ErrorReason, PurchaseRequest
from typer.testing import CliRunner, Result

from tests.client.served import Served

# What a shell runs in the background ignores the signal, and so would its children.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from credit_client.cli import main
main()
"""
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def added(activity: Activity[str], *entries: tuple[str, int, float]) -> None:
    for key, effect, seconds in entries:
        created_at = NOON + timedelta(seconds=seconds)
        activity.add(key, effect, seconds=seconds, created_at=created_at)


def shown(activity: Activity[str]) -> list[tuple[str, int, int, int]]:
    return [
        (each.key, each.sums.entries, each.sums.credits_in, each.sums.credits_out)
        for each in activity.busiest()
    ]


def test_the_busiest_keys_come_first_and_of_equal_ones_the_latest() -> None:
    activity: Activity[str] = Activity(window_seconds=60)
    added(activity, ("a", 5, 1), ("b", -3, 2), ("a", 0, 3), ("c", -4, 4))
    assert shown(activity) == [("a", 2, 5, 0), ("c", 1, 0, 4), ("b", 1, 0, 3)]
    assert activity.total == Sums(entries=4, credits_in=5, credits_out=7)
    assert activity.busiest(1)[0].last_at == NOON + timedelta(seconds=3)


def test_entries_leave_the_window() -> None:
    activity: Activity[str] = Activity(window_seconds=60)
    added(activity, ("a", 5, 1), ("b", 1, 31), ("a", 7, 59))
    assert shown(activity) == [("a", 2, 12, 0), ("b", 1, 1, 0)]
    activity.move(62)
    assert shown(activity) == [("a", 1, 7, 0), ("b", 1, 1, 0)]
    activity.move(500)
    assert shown(activity) == []
    assert activity.total == Sums()


def test_the_time_that_is_covered_grows_up_to_the_window() -> None:
    activity: Activity[str] = Activity(window_seconds=60)
    assert activity.covered_seconds(1010, since=1000) == 10
    for seconds in (1060.0, 1061.9, 9999.5):
        covered = activity.covered_seconds(seconds, since=1000)
        assert 60 - 60 / STEPS <= covered <= 60


def test_the_memory_is_bounded_and_the_total_stays_exact() -> None:
    activity: Activity[str] = Activity(window_seconds=60, keys_max=10)
    for round_ in range(3):
        added(activity, *((f"busy {number}", 1, round_) for number in range(4)))
    added(activity, *((f"rare {number}", -1, 4.0) for number in range(1000)))
    assert len(activity.busiest()) <= 10
    assert {each.key for each in activity.busiest(4)} == {f"busy {number}" for number in range(4)}
    assert activity.total == Sums(entries=1012, credits_in=12, credits_out=1000)
    of_keys = sum(each.sums.entries for each in activity.busiest())
    assert of_keys + activity.others.entries == 1012
    activity.move(500)
    assert activity.total == activity.others == Sums()


@pytest.fixture
def served(
    fake_server: Callable[..., AbstractAsyncContextManager[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Served]:
    with Served(fake_server) as served:
        monkeypatch.setenv("CREDIT_TARGET", f"127.0.0.1:{served.port}")
        yield served


def write(served: Served, *, added: int = 2) -> None:
    """Add credits to user 8 in app 2, and to user 7 in app 1, who then uses some."""
    ledger = served.service.ledger
    ledger.add(CreditRequest(user_id=8, app_id=2, credits=1000, created_by=1))
    for _ in range(added):
        ledger.add(CreditRequest(user_id=7, app_id=1, credits=20, created_by=1))
    ledger.use(
        PurchaseRequest(
            user_id=7, app_id=1, report_id="r-1", report_name="R", credits=5, created_by=1
        )
    )


def top(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["top", *arguments])


def once(served: Served, *arguments: str) -> Result:
    write(served)
    served.service.clock.advance(timedelta(seconds=1))
    result = top("--once", "--app", "1", "--app", "2", *arguments)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("user", [(7, 1, None, 3, 40, 5), (8, 2, None, 1, 1000, 0)]),
        ("app", [(None, 1, None, 3, 40, 5), (None, 2, None, 1, 1000, 0)]),
        ("type", [(None, None, "ADD", 3, 1040, 0), (None, None, "USE", 1, 0, 5)]),
    ],
)
def test_the_last_window_is_read_from_the_history(
    served: Served, by: str, expected: list[tuple[object, ...]]
) -> None:
    document = json.loads(once(served, "--by", by).stdout)
    fields = ("user_id", "app_id", "type", "entries", "credits_in", "credits_out")
    assert [tuple(row[name] for name in fields) for row in document["rows"]] == expected
    assert [row["per_minute"] for row in document["rows"]] == [0.6, 0.2]
    assert document["rows"][0]["last_at"]
    sums = ("entries", "per_minute", "credits_in", "credits_out", "others", "seconds")
    assert [document[name] for name in sums] == [4, 0.8, 1040, 5, 0, 300.0]


def test_entries_before_the_window_are_left_out(served: Served) -> None:
    write(served)
    served.service.clock.advance(timedelta(minutes=2))
    document = json.loads(once(served, "--window", "1m").stdout)
    assert (document["entries"], document["per_minute"]) == (4, 4.0)


def test_a_table_has_a_line_about_the_window(served: Served) -> None:
    about, head, *rows = once(served, "-o", "table", "--utc").stdout.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  2 apps, 5m00s: 4 entries, 0\.0/s, \+1,040 -5", about)
    assert head.split() == [
        "USER",
        "ID",
        "APP",
        "ID",
        "ENTRIES",
        "PER",
        "MINUTE",
        "IN",
        "OUT",
        "LAST",
    ]
    assert [row.split()[:-1] for row in rows] == [
        ["7", "1", "3", "0.6", "40", "5"],
        ["8", "2", "1", "0.2", "1,000", "0"],
    ]


def test_csv_has_the_same_columns_for_all_groups(served: Served) -> None:
    first = list(csv.DictReader(io.StringIO(once(served, "-o", "csv", "--rows", "1").stdout)))
    assert [(row["user_id"], row["app_id"], row["type"]) for row in first] == [("7", "1", "")]
    types = list(
        csv.DictReader(io.StringIO(top("--once", "--app", "1", "--by", "type", "-o", "csv").stdout))
    )
    assert list(types[0]) == list(first[0])
    assert [row["type"] for row in types] == ["ADD", "USE"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing option '--app'"),
        (["--app", "1", "--window", "9s"], "--window must be 10s to 1d"),
        (["--app", "1", "--window", "2d"], "--window must be 10s to 1d"),
        (["--app", "1", "--every", "0s"], "--every must be 1s or more"),
        (["--app", "1", "--rows", "0"], "--rows must be 1 or more"),
        (["--app", "0", "--once"], "--app must be 1 to 4294967295"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(served: Served, arguments: list[str], words: str) -> None:
    result = top(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def running(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "top", *arguments], stderr=subprocess.PIPE, **options
    )


def test_outputs_follow_each_other_where_there_is_no_terminal_until_it_is_interrupted(
    served: Served,
) -> None:
    with running("--app", "1", "--app", "2", "--every", "1s", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = json.loads(process.stdout.readline())
        assert (first["entries"], first["rows"], first["per_minute"]) == (0, [], 0.0)
        write(served)
        while (document := json.loads(process.stdout.readline()))["entries"] < 4:
            pass
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert all(json.loads(line)["rows"] for line in rest.splitlines())
    assert [(row["user_id"], row["entries"]) for row in document["rows"]] == [(7, 3), (8, 1)]
    assert 0 < document["seconds"] <= 300


def test_a_screen_is_written_over_and_never_needs_to_be_restored(served: Served) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (6, 60))
    before = termios.tcgetattr(theirs)
    options = ("--app", "1", "--app", "2", "--every", "1s")
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    with running(*options, stdout=theirs, env=environment) as process:
        screen = os.read(ours, 65536)
        write(served)
        while b"1,000" not in screen:
            screen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)
    assert screen.startswith(b"\x1b[H\x1b[2J")
    assert screen.count(b"\x1b[2J") == 1
    # No cursor is hidden, and no other screen is used.
    assert b"\x1b[?" not in screen
    last = re.sub(rb"\x1b\[[0-9;]*[mHJ]", b"", screen.split(b"\x1b[H")[-1]).decode()
    lines = last.splitlines()
    assert len(lines) <= 5
    assert max(map(len, lines)) <= 60
    assert [line.split()[:2] for line in lines[2:]] == [["7", "1"], ["8", "2"]]


def test_an_error_of_one_watch_ends_the_command(served: Served) -> None:
    served.service.fail_next(ErrorReason.APP_NOT_ALLOWED)
    result = top("--app", "1", "--app", "2")
    assert result.exit_code == 8
    assert result.stderr.startswith("credit: ")
