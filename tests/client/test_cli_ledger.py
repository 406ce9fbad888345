"""The commands of `credit` for grants, holds, refunds, transfers, corrections and policies.

They run on a real server, whose users are another one in each test.
"""

import itertools
import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from credit_client.cli.commands import app
from credit_testing.server import ServerProcess, migrated, running_server
from pymongo import AsyncMongoClient
from typer.testing import CliRunner, Result

COMMAND = str(Path(sys.executable).with_name("credit"))
KEY = ["--key", "k"]
REPORT = ["--report", "r-1", "--name", "Answer"]
_USERS = itertools.count(1000)


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    database = "test_cli_ledger"
    options = await migrated(mongod_uri, database)
    async with running_server(tmp_path_factory.mktemp("cli"), *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(database)


@pytest.fixture
def user(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a user without credits; commands find the server by themselves."""
    monkeypatch.setenv("CREDIT_TARGET", server.address)
    return str(next(_USERS))


@pytest.fixture
def of(user: str) -> Callable[[str], list[str]]:
    """Return a function that returns the words of a command for the user in the app 1."""
    return lambda command: [command, "--user", user, "--app", "1"]


def credit(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


# Any: the values of a JSON document have many types.
def done(*arguments: str) -> dict[str, Any]:
    """Run a command that succeeds, and return what it prints as JSON."""
    result = credit(*arguments)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


def rejected(code: int, words: str, *arguments: str) -> None:
    result = credit(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr


def id_of(receipt: dict[str, object]) -> str:
    return str(receipt["transaction_id"])


def change(receipt: dict[str, object]) -> tuple[object, ...]:
    names = ("type", "effect", "balance_before", "balance")
    return tuple(receipt[name] for name in names)


def test_each_write_shows_its_effect_and_the_balance_before_and_after(
    user: str, of: Callable[[str], list[str]]
) -> None:
    granted = done(*of("grant"), "--credits", "100", "--expires", "30d", "--category", "paid")
    assert change(granted) == ("GRANT", 100, 0, 100)
    held = done(*of("hold"), "--credits", "20", "--purpose", "Answer", "--expires", "2h")
    assert change(held) == ("HOLD", -20, 100, 80)
    hold = ["--hold", id_of(held)]
    extended = done(*of("extend"), *hold, "--expires", "3h")
    assert change(extended) == ("EXTEND", 0, 80, 80)
    first = done(*of("capture"), *hold, *REPORT, "--credits", "7", "--keep")
    assert (*change(first), first["held"]) == ("USE", -7, 87, 80, 13)
    released = done(*of("release"), *hold)
    assert (*change(released), released["held"]) == ("RELEASE", 13, 80, 93, 0)
    refunded = done(*of("refund"), "--transaction", id_of(first), "--credits", "3")
    assert change(refunded) == ("REFUND", 3, 93, 96)
    moved = done(*of("transfer"), "--credits", "6", "--to-user", str(next(_USERS)))
    assert change(moved) == ("TRANSFER_OUT", -6, 96, 90)
    adjusted = done(*of("adjust"), "--delta", "-5", "--note", "Counted twice")
    assert change(adjusted) == ("ADJUST", -5, 90, 85)
    voided = done(*of("void"), "--grant", id_of(granted))
    assert change(voided) == ("VOID", -85, 85, 0)
    capped = done(*of("cap"), "--day", "10")
    assert change(capped) == ("CAP", 0, 0, 0)
    entries = credit("transactions", "--user", user).stdout.splitlines()
    assert sum(json.loads(entry)["effect"] for entry in entries) == 0


def test_a_receipt_at_a_terminal_has_the_balance_before_the_one_after(
    of: Callable[[str], list[str]],
) -> None:
    grant = [*of("grant"), "--credits", "1200", "-o", "table"]
    lines = [line.split() for line in credit(*grant).stdout.splitlines()]
    assert [line[0] for line in lines] == [
        *["transaction_id", "type", "credits", "effect", "balance_before", "balance"],
        *["sequence", "replayed"],
    ]
    assert [line[1] for line in lines[2:6]] == ["1,200", "+1,200", "0", "1,200"]
    lines = [line.split() for line in credit(*grant, "--dry-run").stdout.splitlines()]
    assert ["validated", "True"] in lines
    assert [line[0] for line in lines if line[0] in ("transaction_id", "replayed")] == []


def test_a_dry_run_shows_what_would_happen_and_writes_nothing(
    user: str, of: Callable[[str], list[str]]
) -> None:
    preview = done(*of("grant"), "--credits", "5", "--dry-run")
    assert (*change(preview), preview["validated"]) == ("GRANT", 5, 0, 5, True)
    rejected(3, "required", *of("hold"), "--credits", "1", "--dry-run")
    assert credit("transactions", "--user", user).stdout == ""
    policy = ["policy", "--app", str(next(_USERS))]
    assert done(*policy, "--allow-negative", "--dry-run")["allow_negative"] is True
    assert done(*policy)["allow_negative"] is False


def test_each_refusal_has_its_exit_code(of: Callable[[str], list[str]]) -> None:
    grant = id_of(done(*of("grant"), "--credits", "10", *KEY))
    hold = id_of(done(*of("hold"), "--credits", "4"))
    capture = [*of("capture"), "--hold", hold, *REPORT]
    rejected(15, "the hold has 4 credits and 5 are required", *capture, "--credits", "5")
    rejected(2, "--credits must be 1 to 4294967295", *capture, "--credits", "0")
    used = id_of(done(*capture))
    rejected(15, "4 of its credits were captured and 0 released", *capture)
    rejected(15, "report", *of("use"), *REPORT, "--credits", "1", "--once")
    rejected(14, "no such hold", *of("release"), "--hold", "0" * 24)
    rejected(14, "no such grant", *of("void"), "--grant", "0" * 24)
    rejected(14, "no such transaction", *of("refund"), "--transaction", "0" * 24)
    rejected(14, "no transaction 99", *of("refund"), "--sequence", "99")
    refund = [*of("refund"), "--transaction", used]
    rejected(15, "4 credits of the transaction", *refund, "--credits", "5")
    rejected(15, "type HOLD cannot be refunded", *of("refund"), "--transaction", hold)
    rejected(17, "the revision is 4", *of("hold"), "--credits", "1", "--expected-revision", "3")
    rejected(17, "would be 5", *of("hold"), "--credits", "1", "--min-available-after", "6")
    rejected(4, "--credits", *of("grant"), "--credits", "11", *KEY)
    assert done(*of("grant"), "--credits", "10", *KEY)["replayed"] is True
    done(*of("cap"), "--hour", "4")
    rejected(16, "the spending cap is 4 credits per hour", *of("hold"), "--credits", "5")
    past = ["--expires", "2020-01-01T00:00Z"]
    rejected(2, "before its start", *of("grant"), "--credits", "1", *past)
    done(*of("void"), "--grant", grant)
    rejected(15, "nothing is left of the grant", *of("void"), "--grant", grant)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("grant --credits 1 --expires soon", "'soon' is neither a time such as 2026-12-31"),
        ("grant --credits 1 --expires 30", "'30' has no unit: write 30d for days"),
        ("grant --credits 1 --expires 3w", "'3w' is not a duration such as 30d"),
        ("grant --credits 1 --starts 2026-13-31", "is not a time such as 2026-12-31"),
        ("grant --credits 1 --starts 30d", "'--starts': '30d' is not a time such as"),
        ("grant --credits 1 --metadata order", "--metadata has the form NAME=TEXT"),
        ("grant --credits 1 --metadata a=1 --metadata a=2", "each name once"),
        ("grant --credits 1 --priority 1001", "--priority must be at most 1000"),
        ("hold --credits 1 --expires 2026-12-31T00:00Z", "is not a duration such as 30d"),
        ("grant --credits 1 --expires 60000d", "--expires must be 1s to 49710d, got 60000d"),
        ("hold --credits 1 --expires 8d", "--expires must be 1s to 7d, got 8d"),
        ("extend --hold h --expires 8d", "--expires must be 1s to 7d, got 8d"),
        ("extend --hold h --expires 0m", "--expires must be 1s to 7d, got 0s"),
        ("refund", "give either --transaction or --sequence"),
        ("refund --transaction a --sequence 1", "give either --transaction or --sequence"),
        ("adjust --delta 0 --note n", "--delta"),
        ("adjust --delta 1 --note ''", "--note must"),
        ("transfer --credits 1", "--to-user"),
        ("cap", "give the caps (--hour, --day, --month), or --remove"),
        ("cap --day 5 --remove", "give the caps"),
        ("cap --day 0", "--day must be 1 to"),
        ("forecast --until tomorrow", "'--until': 'tomorrow' is not a time such as 2026-12-31"),
    ],
)
def test_misuse_changes_nothing(
    user: str, of: Callable[[str], list[str]], words: str, complaint: str
) -> None:
    command, *options = shlex.split(words)
    rejected(2, complaint, *of(command), *options)
    assert credit("transactions", "--user", user).stdout == ""


def test_balances_show_what_is_held_owed_and_expires_next(
    user: str, of: Callable[[str], list[str]]
) -> None:
    done(*of("add"), "--credits", "10")
    plain = credit("balance", "--user", user, "-o", "table").stdout
    assert plain.splitlines()[0].split() == ["APP", "ID", "BALANCE"]
    end = "2099-01-02T03:04:00Z"
    done(*of("grant"), "--credits", "5", "--expires", end)
    done(*of("hold"), "--credits", "2")
    about, balances, _ = credit("user", user, "-o", "table", "--utc").stdout.split("\n\n")
    assert "revision    3" in about
    head, row = balances.splitlines()
    assert head.split() == ["APP", "ID", "BALANCE", "HELD", "EXPIRING", "EXPIRES", "AT"]
    assert row.split() == ["1", "13", "2", "3", "2099-01-02", "03:04:00+00:00"]
    app_id = str(next(_USERS))
    debt = ["--user", user, "--app", app_id]
    assert done("policy", "--app", app_id, "--allow-negative")["allow_negative"] is True
    assert done("adjust", *debt, "--delta", "-7", "--note", "Chargeback")["owed"] == 7
    assert "OWED" in credit("balance", "--user", user, "-o", "table").stdout


def test_lists_show_signs_refunds_grants_and_holds(
    user: str, of: Callable[[str], list[str]]
) -> None:
    grant = id_of(done(*of("grant"), "--credits", "1200", "--priority", "3", "--expires", "9d"))
    done(*of("use"), *REPORT, "--credits", "8")
    done(*of("refund"), "--sequence", "2", "--credits", "3")
    hold = id_of(done(*of("hold"), "--credits", "20", "--purpose", "Draft"))
    done(*of("release"), "--hold", hold)
    hold = id_of(done(*of("hold"), "--credits", "30"))
    _, *rows = credit("transactions", "--user", user, "-o", "table").stdout.splitlines()
    assert [row.split()[4:7] for row in rows] == [
        ["+1,200", "GRANT", "1,200"],
        ["-8", "USE", "1,192"],
        ["+3", "REFUND", "1,195"],
        ["-20", "HOLD", "1,175"],
        ["+20", "RELEASE", "1,195"],
        ["-30", "HOLD", "1,165"],
    ]
    _, row = credit("purchases", "--user", user, "-o", "table").stdout.splitlines()
    assert row.endswith("Answer (3 refunded)")
    assert done("purchases", "--user", user)["refunded_credits"] == 3
    _, row = credit(*of("grants"), "-o", "table").stdout.splitlines()
    assert row.split()[:4] == [grant, "1,165", "1,200", "3"]
    assert done(*of("grants"))["left"] == 1165
    assert done(*of("holds"))["id"] == hold
    _, first, second = credit(*of("holds"), "--all", "-o", "table").stdout.splitlines()
    assert (first.split()[1:6], first.split()[-1]) == (["RELEASED", "20", "0", "0", "20"], "Draft")
    assert second.split()[:6] == [hold, "OPEN", "30", "30", "0", "0"]
    forecast = credit(*of("forecast"), "-o", "table").stdout
    assert forecast.splitlines()[0] == "balance  1,165"
    assert [line.split()[2:4] for line in forecast.splitlines()[3:]] == [
        ["RELEASE", "+30"],
        ["EXPIRE", "-1,195"],
    ]
    assert len(done(*of("forecast"), "--until", "2000-01-01T00:00Z")["steps"]) == 0


def test_the_caps_and_the_policy_of_an_app(of: Callable[[str], list[str]]) -> None:
    app_id = str(next(_USERS))
    set_caps = ["cap", "--app", app_id]
    assert done(*set_caps, "--day", "500")["caps"] == {
        "per_hour": None,
        "per_day": 500,
        "per_month": None,
    }
    shown = credit("policy", "--app", app_id, "-o", "table").stdout
    assert [line.split() for line in shown.splitlines()[:3]] == [
        ["app_id", app_id],
        ["per_day", "500"],
        ["allow_negative", "False"],
    ]
    of_user = credit(*of("caps"), "-o", "table")
    assert "caps" in of_user.stderr  # of another app: there is none
    user = of("caps")[2]
    shown = credit("caps", "--user", user, "--app", app_id, "-o", "table").stdout
    assert shown.splitlines()[0].split() == [
        "PERIOD",
        "CAP",
        "SPENT",
        "HELD",
        "LEFT",
        "RESETS",
        "AT",
    ]
    assert shown.splitlines()[1].split()[:5] == ["DAY", "500", "0", "0", "500"]
    rejected(17, "the revision is 1", *set_caps, "--remove", "--expected-revision", "9")
    rejected(2, "need --user", *set_caps, "--remove", *KEY)
    rejected(2, "need --user", *set_caps, "--remove", "--note", "n")
    done(*set_caps, "--remove")
    assert "per_day" not in credit("policy", "--app", app_id, "-o", "table").stdout


def test_alerts_are_set_listed_and_removed_and_their_events_shown(user: str) -> None:
    app_id = str(next(_USERS))
    at = ["--app", app_id, "--credits", "20"]
    assert done("alert", "set", *at, "--direction", "rises") == {
        "credits": 20,
        "direction": "RISES_TO",
    }
    own = ["--user", user]
    assert done("alert", "set", *at, *own)["direction"] == "FALLS_BELOW"
    listed = credit("alert", "list", "--app", app_id, *own, "-o", "table").stdout.splitlines()
    assert [line.split() for line in listed] == [
        ["OF", "CREDITS", "DIRECTION"],
        ["user", "20", "FALLS_BELOW"],
        ["app", "20", "RISES_TO"],
    ]
    assert len(done("alert", "list", "--app", app_id)["app_alerts"]) == 1
    done("add", *own, "--app", app_id, "--credits", "20")
    done("use", *own, "--app", app_id, *REPORT, "--credits", "1")
    events = ["alert", "events", "--app", app_id]
    while len(credit(*events).stdout.splitlines()) < 2:  # the server orders them soon
        pass
    rows = credit(*events, "-o", "table", "--utc").stdout.splitlines()
    assert rows[0].split()[-5:] == ["CREDITS", "DIRECTION", "BALANCE", "TRANSACTION", "ID"]
    assert [line.split()[-4:-1] for line in rows[1:]] == [
        ["20", "RISES_TO", "20"],
        ["20", "FALLS_BELOW", "19"],
    ]
    first = json.loads(credit(*events).stdout.splitlines()[0])
    assert done(*events, "--after", str(first["position"]))["balance"] == 19
    assert done("alert", "remove", *at, *own)["alerts_left"] == 0
    assert done("alert", "remove", *at, "--direction", "rises")["alerts_left"] == 0


def test_events_are_shown_as_they_come_until_the_command_is_interrupted(user: str) -> None:
    at = ["--app", str(next(_USERS))]
    done("alert", "set", *at, "--credits", "20", "--direction", "rises")
    done("add", "--user", user, *at, "--credits", "20")
    command = [COMMAND, "alert", "watch", *at, "--after", "0", "-o", "json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell runs in the background ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as watching:
        assert watching.stdout is not None
        users = [int(user), next(_USERS)]
        for number, expected in enumerate(users):
            if number:
                done("add", "--user", str(expected), *at, "--credits", "20")
            event = json.loads(watching.stdout.readline())
            assert event["user_id"] == expected
        watching.send_signal(signal.SIGINT)
        rest, errors = watching.communicate()
    assert (watching.returncode, rest) == (0, "")
    continued = ["credit", "alert", "watch", *at, "--after", str(event["position"])]
    assert errors == f"credit: to continue: {' '.join(continued)}\n"


def test_a_table_of_events_shows_each_new_one_as_it_arrives(user: str) -> None:
    at = ["--app", str(next(_USERS))]
    done("alert", "set", *at, "--credits", "20", "--direction", "rises")
    done("add", "--user", user, *at, "--credits", "20")
    while not credit("alert", "events", *at).stdout:
        pass
    with subprocess.Popen(
        [COMMAND, "alert", "watch", *at, "-o", "table"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        # Until the watch has begun, an event is not new.
        ready = select.poll()
        ready.register(watching.stdout, select.POLLIN)
        others: list[str] = []
        while not ready.poll(200):
            others.append(str(next(_USERS)))
            done("add", "--user", others[-1], *at, "--credits", "20")
        lines = [watching.stdout.readline() for _ in range(2)]
        watching.terminate()
        watching.communicate()
    assert lines[0].split()[0] == "POSITION"
    assert set(lines[1].split()) & set(others)


def test_webhooks_are_set_listed_and_removed(user: str) -> None:
    at = ["--app", str(next(_USERS))]
    url = ["--url", "https://example.com/hook"]
    made = done("webhook", "set", *at, *url)
    assert made["url"] == url[1]
    assert str(made["secret"]).startswith("whsec_")
    assert done("webhook", "list", *at)["url"] == url[1]
    rows = credit("webhook", "list", *at, "-o", "table").stdout.splitlines()
    assert rows[1].split()[0] == url[1]
    assert credit("webhook", "dead", *at).stdout == ""
    assert done("webhook", "resend", *at) == {"resent": 0}
    rejected(14, "no dead letter with this id", "webhook", "resend", *at, "--id", "none")
    rejected(2, "must begin with https://", "webhook", "set", *at, "--url", "http://example.com")
    assert done("webhook", "remove", *at, *url)["removed"] is True
    assert credit("webhook", "list", *at).stdout == ""


def test_a_write_without_a_result_names_the_command_with_every_option(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDIT_RETRY_ATTEMPTS_MAX", "1")  # otherwise each waits for four seconds
    target = f"127.0.0.1:{unused_tcp_port}"
    own = {
        "grant": "--credits 1 --expires 30d --starts 2026-12-31T00:00+01:00 --priority 3"
        " --category own --by 2",
        "void": "--grant g --by 1",
        "hold": "--credits 1 --expires 7200s --purpose p --partial --by 1",
        "capture": "--hold h --report r --name n --credits 1 --keep --excess --by 1",
        "release": "--hold h --by 1",
        "extend": "--hold h --expires 60s --by 1",
        "refund": "--transaction t --credits 1 --restore-until 2026-12-31T00:00:00+00:00 --by 1",
        "transfer": "--credits 1 --to-user 2 --to-app 3 --by 1",
        "adjust": "--delta -5 --note 'a b' --by 1",
        "cap": "--hour 1 --day 2 --month 3 --by 1",
        "use": "--report r --name n --credits 1 --by 1 --once",
        "add": "--credits 1 --by 1",
    }
    conditions = "--expected-revision 1 --min-available-after 2"
    for command, options in own.items():
        details = conditions if command in ("add", "use") else f"{conditions} --metadata a=b"
        whose = ["--user", "7", "--app", "1"]
        if command == "cap":
            whose = ["--app", "1", "--user", "7"]
        note = [] if command in ("add", "use", "adjust") else ["--note", "n"]
        given = [command, *whose, *shlex.split(options), *shlex.split(details), *note]
        given += ["--key", "k", "--target", target]
        result = credit(*given)
        assert result.exit_code == 6, result.stderr
        _, retry = result.stderr.splitlines()
        assert shlex.split(retry.partition(" once: ")[2])[1:] == given


def _at_a_terminal(command: str, answer: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command at a pseudo-terminal, type an answer, and return what it shows there."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [command, *arguments], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        os.write(ours, answer.encode())
        out, _ = process.communicate()
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    return process.returncode, out, shown


def test_a_large_write_at_a_terminal_needs_a_yes(
    user: str, of: Callable[[str], list[str]], forked_credit: str
) -> None:
    grant = [*of("grant"), "--credits", "10001"]
    question = f"credit: grant 10,001 credits, user {user} in app 1, from 0 to 10,001 credits?"
    for answer in ("n\n", "\n", "\x04"):
        code, out, shown = _at_a_terminal(forked_credit, answer, *grant)
        assert (code, out) == (13, "")
        assert question in shown
        assert "credit: not confirmed; no change was made" in shown
    code, out, shown = _at_a_terminal(forked_credit, "y\n", *grant)
    assert (code, json.loads(out)["balance"]) == (0, 10_001)
    # An unknown amount: a preview shows it.
    void = [*of("void"), "--grant", json.loads(out)["transaction_id"]]
    code, out, shown = _at_a_terminal(forked_credit, "n\n", *void)
    assert code == 13
    assert "void 10,001 credits" in shown
    code, out, shown = _at_a_terminal(forked_credit, "n\n", *of("add"), "--credits", "10001")
    assert code == 13
    assert "credit: add 10,001 credits, user" in shown
    assert len(credit("transactions", "--user", user).stdout.splitlines()) == 1


def test_nothing_is_asked_below_the_limit_with_yes_or_without_a_terminal(
    of: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, forked_credit: str
) -> None:
    assert done(*of("grant"), "--credits", "1000000")["balance"] == 1_000_000
    code, _, shown = _at_a_terminal(forked_credit, "\nn\n", *of("hold"), "--credits", "10000")
    assert (code, "?" in shown) == (0, False)
    code, _, shown = _at_a_terminal(
        forked_credit, "\nn\n", *of("hold"), "--credits", "10001", "--yes"
    )
    assert (code, "?" in shown) == (0, False)
    limit = ["--ask-above", "10001"]
    code, _, shown = _at_a_terminal(
        forked_credit, "\nn\n", *of("hold"), "--credits", "10001", *limit
    )
    assert (code, "?" in shown) == (0, False)
    monkeypatch.setenv("CREDIT_ASK_ABOVE", "4")
    code, _, shown = _at_a_terminal(forked_credit, "n\n", *of("hold"), "--credits", "5")
    assert (code, "?" in shown) == (13, True)
