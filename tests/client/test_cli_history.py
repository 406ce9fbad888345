"""The commands of `credit` that find transactions, on a real server."""

import asyncio
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from credit_client.cli.commands import app
from credit_testing.server import ServerProcess, migrated, running_server
from pymongo import AsyncMongoClient
from typer.testing import CliRunner, Result

DATABASE = "test_cli_history"
_USERS = itertools.count(1000)


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    options = await migrated(mongod_uri, DATABASE)
    async with running_server(tmp_path_factory.mktemp("cli"), *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(DATABASE)


@pytest.fixture
def user(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a user with 4 transactions: 1 and 4 in app 1, 2 in app 2, 3 a use in app 1."""
    monkeypatch.setenv("CREDIT_TARGET", server.address)
    user = str(next(_USERS))
    for app_id, amount in (("1", "10"), ("2", "20")):
        done("add", "--user", user, "--app", app_id, "--credits", amount)
    bought = ("--report", "r-1", "--name", "Answer", "--credits", "3")
    done("use", "--user", user, "--app", "1", *bought, "--by", "4", "--key", "order-1")
    done("add", "--user", user, "--app", "1", "--credits", "40")
    return user


def credit(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


# Any: a field of JSON has any type.
def done(*arguments: str) -> list[dict[str, Any]]:
    """Run a command that succeeds, and return its lines of JSON."""
    result = credit(*arguments)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [1, 2, 3, 4]),
        (["--last", "2"], [3, 4]),
        (["--last", "9"], [1, 2, 3, 4]),
        (["--last", "2", "--app", "1", "--kind", "add"], [1, 4]),
        (["--kind", "use"], [3]),
        (["--type", "use"], [3]),
        (["--kind", "use", "--kind", "ADD", "--after", "1"], [2, 3, 4]),
        (["--since", "2000-01-01"], [1, 2, 3, 4]),
        (["--until", "2000-01-01T00:00Z"], []),
        (["--report", "r-1"], [3]),
        (["--created-by", "4"], [3]),
        (["--related", "0" * 24], []),
        (["--grant", "0" * 24], []),
    ],
    ids=str,
)
def test_transactions_are_listed_oldest_first(
    user: str, options: list[str], expected: list[int]
) -> None:
    rows = done("transactions", "--user", user, *options)
    assert [row["sequence"] for row in rows] == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [3]),
        (["--last", "2"], [3]),
        (["--report", "r-1", "--app", "1"], [3]),
        (["--report", "r-2"], []),
        (["--created-by", "5"], []),
        (["--refunded"], []),
        (["--not-refunded"], [3]),
        (["--until", "2000-01-01"], []),
    ],
    ids=str,
)
def test_purchases_are_filtered(user: str, options: list[str], expected: list[int]) -> None:
    rows = done("purchases", "--user", user, *options)
    assert [row["sequence"] for row in rows] == expected


def test_the_entries_of_an_app_are_listed_without_the_latest_ones(user: str) -> None:
    assert done("transactions", "--app", "1") == done("purchases", "--app", "1") == []


def test_an_earlier_balance_is_shown(user: str) -> None:
    of = ("--user", user, "--app", "1")
    (before,) = done("balance", *of, "--at", "2026-01-01", "--utc")
    assert before == {
        "app_id": 1,
        "user_id": int(user),
        "balance": 0,
        "owed": 0,
        "sequence": 0,
        "as_of": "2026-01-01T00:00:00.000Z",
    }
    (now,) = done("balance", *of, "--at", "2100-01-01T00:00Z")
    assert (now["balance"], now["sequence"]) == (47, 4)
    result = credit("balance", "--user", user, "--at", "2026-01-01")
    assert result.exit_code == 2
    assert "--at needs both --user and --app" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [(None, 4, 70, 3)]),
        (["--by", "type"], [("ADD", 3, 70, 0), ("USE", 1, 0, 3)]),
        (["--by", "report", "--app", "1"], [("", 2, 50, 0), ("r-1", 1, 0, 3)]),
        (["--by", "app"], [(1, 3, 50, 3), (2, 1, 20, 0)]),
    ],
    ids=str,
)
def test_transactions_are_added_up(
    user: str, options: list[str], expected: list[tuple[object, int, int, int]]
) -> None:
    span = ("--since", "2000-01-01", "--until", "2100-01-01")
    rows = done("summary", "--user", user, *span, *options)
    name = {"type": "type", "report": "report_id", "app": "app_id"}.get("".join(options[1:2]), "")
    found = [(row.get(name), row["transactions"], row["credits_in"], row["spent"]) for row in rows]
    assert found == expected
    table = credit("summary", "--user", user, *span, *options, "-o", "table").stdout
    heads = ["TRANSACTIONS", "IN", "OUT", "SPENT", "EXPIRED", "REFUNDED"]
    assert table.splitlines()[0].split()[-6:] == heads


def test_a_summary_needs_a_user_or_an_app(server: ServerProcess) -> None:
    result = credit("summary", "--since", "2026-01-01", "--until", "2026-02-01")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "name a user, an app, or both" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("command", ["transactions", "purchases"])
def test_a_list_needs_a_user_or_an_app(server: ServerProcess, command: str) -> None:
    result = credit(command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "name a user, an app, or both" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kind", "spend"], "'spend' is not a type; the types are add, use"),
        (["--last", "0"], "--last must be 1 or more"),
        (
            ["--since", "yesterday"],
            "'yesterday' is neither a time such as 2026-12-31 or 2026-12-31T18:00Z nor a duration",
        ),
        (["--until", "30"], "Invalid value for '--until': '30' has no unit: write 30d"),
        (["--created-by", "0"], "--created-by must be 1 or more"),
        (["--app", "0"], "--app must be"),
    ],
)
def test_a_wrong_option_is_named(user: str, options: list[str], words: str) -> None:
    result = credit("transactions", "--user", user, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_a_transaction_is_found_by_its_key_and_its_id(user: str) -> None:
    (by_key,) = done("find", "order-1", "--user", user, "--app", "1")
    assert (by_key["sequence"], by_key["report_name"]) == (3, "Answer")
    assert done("find", str(by_key["id"])) == [by_key]


def test_a_key_that_was_not_used_is_not_found(user: str) -> None:
    result = credit("find", "order-2", "--user", user, "--app", "1")
    other = credit("find", "0" * 24)
    assert result.exit_code == other.exit_code
    assert "no request of the user in the app with this key was applied" in result.stderr
    assert "no transaction has this id: to find a key, pass --user and --app (" in other.stderr


def test_a_key_needs_its_user_and_its_app(user: str) -> None:
    result = credit("find", "order-1", "--user", user)
    assert result.exit_code == 2
    assert "a key needs both --user and --app" in " ".join(result.stderr.split())


def test_a_watch_shows_what_was_written_since_its_token(user: str) -> None:
    first = credit("watch", "--user", user, "--once", "-o", "json")
    assert first.exit_code == 0
    (event,) = [json.loads(line) for line in first.stdout.splitlines()]
    assert [each["balance"] for each in event["snapshot"]["balances"]] == [47, 20]
    token = event["resume_token"]
    assert f"to continue: credit watch --user {user} --from {token} --once\n" in first.stderr
    done("add", "--user", user, "--app", "2", "--credits", "5")
    rest = done("watch", "--user", user, "--from", token, "--once")
    assert [each["transaction"]["sequence"] for each in rest] == [5]
    table = credit("watch", "--user", user, "--from", token, "--once", "-o", "table")
    head, row = table.stdout.splitlines()
    assert head.split()[:3] == ["CREATED", "AT", "USER"]
    assert "+5" in row


def test_a_watch_rejects_what_is_no_token(user: str) -> None:
    result = credit("watch", "--user", user, "--from", "abc")
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        "credit: --from is not a token that a watch of this user or app returned" in result.stderr
    )


def test_a_watch_needs_a_user_or_an_app(user: str) -> None:
    assert credit("watch").exit_code == 2


async def test_an_interrupted_watch_ends_well_and_prints_how_to_continue(
    user: str, server: ServerProcess
) -> None:
    words = ["watch", "--user", user, "--app", "2", "--target", server.address]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from credit_client.cli import main; main()", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What a shell runs in the background ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    event = json.loads(await process.stdout.readline())
    process.send_signal(signal.SIGINT)
    rest, errors = await process.communicate()
    assert (process.returncode, rest) == (0, b"")
    token = event["resume_token"]
    expected = f"credit: to continue: credit watch --user {user} --app 2 --from {token}\n"
    assert errors.decode() == expected


def test_the_busiest_users_of_a_server_are_counted_as_they_write(user: str) -> None:
    program = [sys.executable, "-c", "from credit_client.cli import main; main()"]
    app_id = str(next(_USERS))
    with subprocess.Popen(
        [*program, "top", "--app", app_id, "--every", "1s"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["entries"] == 0
        done("add", "--user", user, "--app", app_id, "--credits", "40")
        while not (shown := json.loads(process.stdout.readline()))["entries"]:
            pass
        process.terminate()
    (row,) = shown["rows"]
    assert (row["user_id"], row["app_id"], row["credits_in"]) == (int(user), int(app_id), 40)
