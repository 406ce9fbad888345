"""Users whose ids are no numbers, and revisions, in the commands of `credit`."""

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from credit_client.cli.commands import app
from credit_client.cli.exits import Exit
from credit_models import ErrorReason
from typer.testing import CliRunner, Result

from tests.client.served import Served

UUID = "3f2c9a5e-6d1b-4c8e-9f27-0a5b8d3e71c4"
ADD = ["add", "--user", UUID, "--app", "1", "--credits", "5"]
FIRST = 2_000_000_000


@pytest.fixture
def served(
    fake_server: Callable[..., AbstractAsyncContextManager[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Served]:
    with Served(fake_server) as served:
        monkeypatch.setenv("CREDIT_TARGET", f"127.0.0.1:{served.port}")
        monkeypatch.setenv("CREDIT_RETRY_BACKOFF_INITIAL_SECONDS", "0.001")
        monkeypatch.setenv("CREDIT_RETRY_ATTEMPTS_MAX", "3")
        yield served


def credit(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


# Any: a field of JSON has any type.
def done(*arguments: str) -> list[dict[str, Any]]:
    """Run a command that succeeds, and return its lines of JSON."""
    result = credit(*arguments)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_text_names_a_user(served: Served) -> None:
    done(*ADD)
    assert served.service.ledger.balance(app_id=1, user_id=FIRST) == 5
    (balance,) = done("balance", "--user", UUID, "--app", "1")
    assert balance["balance"] == 5
    assert len(done("transactions", "--user", UUID, "--app", "1")) == 1


def test_digits_are_a_number(served: Served) -> None:
    done("add", "--user", "7", "--app", "1", "--credits", "5")
    assert served.service.ledger.balance(app_id=1, user_id=7) == 5
    for text in ("-7", "0"):
        assert credit("add", "--user", text, "--app", "1", "--credits", "5").exit_code == 2


def test_a_user_is_shown_with_the_number_and_the_text(served: Served) -> None:
    done(*ADD)
    for name in (UUID, str(FIRST)):
        (shown,) = done("user", name, "--users-app", "1")
        assert (shown["user_id"], shown["external_id"]) == (FIRST, UUID)
    table = credit("user", str(FIRST), "-o", "table").stdout
    assert UUID in table
    done("add", "--user", "7", "--app", "1", "--credits", "5")
    assert "external_id" not in done("user", "7")[0]


def test_a_text_names_the_user_of_a_statement(served: Served) -> None:
    done(*ADD)
    month = f"{served.service.clock.now():%Y-%m}"
    for options in (["--app", "1"], ["--users-app", "1"]):
        (shown,) = done("statement", UUID, "--month", month, "--utc", *options)
        assert (shown["user_id"], len(shown["transactions"])) == (UUID, 1)


def test_an_export_of_a_text_is_one_of_the_number(served: Served, tmp_path: Path) -> None:
    done(*ADD)
    assert done("export", UUID, "--users-app", "1", "-o", "json")[0]["user_id"] == FIRST
    file = str(tmp_path / "all.csv")
    done("export", UUID, "--users-app", "1", "--file", file)
    done(*ADD)
    done("export", UUID, "--users-app", "1", "--resume", file)
    done("export", str(FIRST), "--resume", file)
    assert len(Path(file).read_text().splitlines()) == 3
    other = credit("export", "7", "--resume", file)
    assert f"it has transactions of user {FIRST}, and not of 7" in " ".join(other.stderr.split())


def test_a_refund_finds_the_sequence_of_a_text(served: Served) -> None:
    done(*ADD)
    done("use", "--user", UUID, "--app", "1", "--report", "r", "--name", "n", "--credits", "3")
    refund = ["refund", "--user", UUID, "--app", "1", "--sequence"]
    (receipt,) = done(*refund, "2")
    assert receipt["balance"] == 5
    absent = credit(*refund, "9")
    assert absent.exit_code == Exit.NOT_FOUND
    assert f"user {UUID} has no transaction 9" in absent.stderr


def test_a_watch_of_a_text_prints_how_to_continue(served: Served) -> None:
    done(*ADD)
    result = credit("watch", "--user", UUID, "--users-app", "1", "--once", "-o", "json")
    assert json.loads(result.stdout)["snapshot"]["user_id"] == FIRST
    words = shlex.split(result.stderr.partition("to continue: ")[2])[1:]
    assert words[:5] == ["watch", "--user", UUID, "--users-app", "1"]
    done("use", "--user", UUID, "--app", "1", "--report", "r", "--name", "n", "--credits", "3")
    (event,) = done(*words, "--once")
    assert event["transaction"]["user_id"] == FIRST


def test_a_text_names_the_user_of_alerts(served: Served) -> None:
    done(*ADD)
    own = ["--user", UUID, "--app", "1"]
    done("alert", "set", *own, "--credits", "4")
    assert len(done("alert", "list", *own)[0]["user_alerts"]) == 1
    done("use", *own, "--report", "r", "--name", "n", "--credits", "3")
    (event,) = done("alert", "events", *own)
    assert event["user_id"] == FIRST
    assert done("alert", "remove", *own, "--credits", "4")[0]["alerts_left"] == 0


@pytest.mark.parametrize(
    "command",
    [
        ["summary", "--since", "2020-01-01", "--until", "2030-01-01"],
        ["purchases"],
        ["grants"],
        ["holds"],
        ["forecast"],
        ["caps"],
        ["balance", "--at", "2026-01-01"],
        ["cap", "--day", "5"],
    ],
    ids=" ".join,
)
def test_a_text_names_the_user_of_any_command(served: Served, command: list[str]) -> None:
    done(*ADD)
    done(*command, "--user", UUID, "--app", "1")


def test_a_balance_has_its_revision(served: Served) -> None:
    done(*ADD)
    balance = ["balance", "--user", UUID, "--app", "1"]
    assert done(*balance)[0]["revision"] == 1
    table = credit(*balance, "-o", "table").stdout
    assert [line.split() for line in table.splitlines()] == [
        ["app_id", "1"],
        ["user_id", UUID],
        ["balance", "5"],
        ["revision", "1"],
    ]
    # The balance of a user without credits, and that of an older server, have none.
    assert "revision" not in credit("balance", "--user", "7", "--app", "1", "-o", "table").stdout


def test_a_user_without_a_number_is_not_found(served: Served) -> None:
    result = credit("balance", "--user", "ada", "--app", "1")
    assert result.exit_code == Exit.NOT_FOUND
    assert (
        "the directory of app 1 has no user 'ada': `add` and `grant` create the user"
        in result.stderr
    )


def test_a_call_without_an_app_names_the_option(served: Served) -> None:
    result = credit("balance", "--user", "ada")
    assert result.exit_code == Exit.MISUSE
    assert "--app must be set where --user is text, or pass --users-app" in result.stderr


def test_the_command_that_retries_names_the_same_user(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDIT_USERS_APP_ID", "9")
    served.service.fail_next(ErrorReason.STORE_UNAVAILABLE, times=3)
    result = credit(*ADD)
    retry = shlex.split(result.stderr.splitlines()[-1].partition("counts once: ")[2])[1:]
    assert retry[retry.index("--users-app") + 1] == "9"
    monkeypatch.delenv("CREDIT_USERS_APP_ID")
    done(*retry)
    assert done("balance", "--user", UUID, "--app", "1", "--users-app", "9")[0]["balance"] == 5


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", f"user_id,app_id,credits\n{UUID},1,5\n7,1,6\n{UUID},1,7\n"),
        (
            "rows.ndjson",
            "".join(
                json.dumps({"user_id": user, "app_id": 1, "credits": credits_}) + "\n"
                for user, credits_ in ((UUID, 5), ("7", 6), (UUID, 7))
            ),
        ),
    ],
)
def test_a_file_has_texts_and_numbers(served: Served, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    done("import", str(tmp_path / name), "--name", "a")
    assert served.service.ledger.balance(app_id=1, user_id=FIRST) == 12
    assert served.service.ledger.balance(app_id=1, user_id=7) == 6


@pytest.mark.parametrize(
    "command",
    [
        ["balance", "--user", "7", "--app", "1"],
        ["balance", "--user", "7", "--app", "1", "--at", "2026-01-01"],
        ["balance", "--user", "7"],
        ["user", "7"],
        ["purchases", "--user", "7"],
        ["purchases", "--user", "7", "--last", "1"],
        ["summary", "--user", "7", "--since", "2026-01-01", "--until", "2026-02-01"],
        ["alert", "list", "--user", "7", "--app", "1"],
        ["transactions", "--user", "7"],
        ["transactions", "--user", "7", "--last", "1"],
        ["grants", "--user", "7", "--app", "1"],
        ["holds", "--user", "7", "--app", "1"],
        ["forecast", "--user", "7", "--app", "1"],
        ["caps", "--user", "7", "--app", "1"],
    ],
    ids=" ".join,
)
def test_a_command_that_reads_can_require_a_revision(served: Served, command: list[str]) -> None:
    done("add", "--user", "7", "--app", "1", "--credits", "5")
    done(*command, "--min-revision", "1")
    late = credit(*command, "--min-revision", "2")
    assert late.exit_code == Exit.CONDITION_FAILED
    assert "has not reached revision 2" in late.stderr
