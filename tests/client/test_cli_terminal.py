"""What the `credit` command shows to people: tables, times, amounts, help and completion."""

import io
import json
import os
import pty
import re
import subprocess
import termios
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import pytest
from credit_client.cli.commands import app
from credit_client.cli.exits import MEANINGS
from credit_client.cli.flags import sentence_of
from credit_client.cli.history import with_effect
from credit_client.cli.output import Format, Layout, show_rows
from credit_client.cli.table import shown
from credit_client.cli.times import duration, duration_text
from credit_client.errors import HoldLifeExceeded, TlsFailed
from credit_client.settings import ClientSettings
from credit_models import CreditRequest, PurchaseRequest, ledger
from credit_models.translation.refusals import answer_of
from typer.testing import CliRunner, Result

from tests.client.served import Served

COMMANDS = sorted(command.name for command in app.registered_commands if command.name is not None)
BOXES = re.compile(r"[\u2500-\u257f]")
STYLE = re.compile(r"\x1b\[[0-9;]*m")
LARGEST = 2**32 - 1
NAME = "Traffic of all cities, week by week and by kind of vehicle"
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
IDS = [f"{number:024x}" for number in (1, 3)]


@pytest.fixture(autouse=True)
def _far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set a time zone whose offset no test environment has by chance."""
    monkeypatch.setenv("TZ", "XXX-05:45")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def served(
    fake_server: Callable[..., AbstractAsyncContextManager[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Served]:
    with Served(fake_server) as served:
        monkeypatch.setenv("CREDIT_TARGET", f"127.0.0.1:{served.port}")
        ledger = served.service.ledger
        ledger.add(CreditRequest(user_id=7, app_id=LARGEST, credits=LARGEST, created_by=LARGEST))
        ledger.use(
            PurchaseRequest(
                user_id=7,
                app_id=LARGEST,
                report_id="report-" + "r" * 100,
                report_name=NAME,
                credits=1234567,
                created_by=1,
            )
        )
        yield served


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Terminal]:
    """Return a function that makes standard output a terminal of so many columns."""

    def make(columns: int) -> Terminal:
        screen = Terminal()
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr("sys.stdout", screen)
        return screen

    return make


def _show_table(
    records: Iterable[Mapping[str, object]], *columns: str, optional: Sequence[str] = ()
) -> None:
    layout = Layout(noun="rows", fields=(), columns=columns, optional=optional)
    show_rows(records, layout, Format.TABLE)


def credit(*arguments: str, terminal_width: int = 80) -> Result:
    return CliRunner().invoke(app, arguments, terminal_width=terminal_width)


def _on_a_terminal(command: str, columns: int, *arguments: str) -> str:
    """Run `credit` at a pseudo-terminal, and return its output."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen(
        [command, *arguments], stdout=theirs, stderr=subprocess.PIPE, env=environment
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
    return STYLE.sub("", shown.decode()).replace("\r\n", "\n")


@pytest.mark.parametrize("arguments", [["transactions", "--user", "7"], ["user", "7"]])
def test_a_table_fits_a_terminal_of_60_columns_and_cuts_nothing(
    served: Served, arguments: list[str], forked_credit: str
) -> None:
    screen = _on_a_terminal(forked_credit, 60, *arguments)
    assert max(map(len, screen.splitlines())) <= 60
    for value in (IDS[0], str(LARGEST), "4,294,967,295", "1,234,567", "4,293,732,728"):
        assert value in screen
    assert not BOXES.search(screen)


@pytest.mark.parametrize("columns", [80, 90])
def test_a_row_of_usual_numbers_is_one_line_at_a_terminal_of_80_columns(
    served: Served, columns: int, forked_credit: str
) -> None:
    ledger = served.service.ledger
    ledger.add(CreditRequest(user_id=8, app_id=12, credits=1234567, created_by=1))
    ledger.use(
        PurchaseRequest(
            user_id=8, app_id=12, report_id="r-81", report_name=NAME[:20], credits=5, created_by=1
        )
    )
    head, *rows = _on_a_terminal(forked_credit, columns, "transactions", "--user", "8").splitlines()
    assert head.split()[:3] == ["SEQ", "CREATED", "AT"]
    assert [row.split()[-3:-1] for row in rows] == [["ADD", "1,234,567"], ["USE", "1,234,562"]]
    _, *rows = _on_a_terminal(forked_credit, columns, "purchases", "--user", "8").splitlines()
    assert [row.split(maxsplit=5)[-1].rstrip() for row in rows] == [f"r-81       {NAME[:20]}"]
    _, _, latest = _on_a_terminal(forked_credit, columns, "user", "8").split("\n\n")
    assert len(latest.splitlines()) == 3


def test_a_wide_terminal_shows_all_columns(served: Served, forked_credit: str) -> None:
    screen = _on_a_terminal(forked_credit, 120, "transactions", "--user", "7")
    assert screen.splitlines()[0].split()[-3:] == ["CREATED", "BY", "ID"]
    assert IDS[0] in screen


def test_columns_that_are_left_out_stay_out_when_a_later_value_is_longer(
    terminal: Callable[[int], Terminal],
) -> None:
    screen = terminal(20)
    rows = [{"app_id": 1, "id": "a" * 10, "balance": each} for each in [*[1] * 30, LARGEST]]
    _show_table(rows, "app_id", "balance", "id", optional=("id",))
    lines = STYLE.sub("", screen.getvalue()).splitlines()
    assert lines[0].split() == ["APP", "ID", "BALANCE"]
    assert "a" not in "".join(lines)
    assert lines[-2:] == ["     1", "  4,294,967,295"]


def test_fields_without_a_value_have_no_line(served: Served) -> None:
    added = credit("add", "--user", "8", "--app", "1", "--credits", "120", "-o", "table").stdout
    assert [line.split()[0] for line in added.splitlines()] == [
        "transaction_id",
        "type",
        "credits",
        "effect",
        "balance_before",
        "balance",
        "sequence",
        "replayed",
    ]


def test_only_what_is_wider_than_the_terminal_is_wrapped(
    served: Served, forked_credit: str
) -> None:
    screen = _on_a_terminal(forked_credit, 60, "purchases", "--user", "7")
    assert max(map(len, screen.splitlines())) <= 60
    assert IDS[1] in screen
    *_, texts = screen.split(IDS[1])
    report_id, name = texts.split("Traffic")
    assert report_id.split() == ["report-" + "r" * 51, "r" * 49]
    assert " ".join(f"Traffic{name}".split()) == NAME
    assert len(name.splitlines()) == 1


@pytest.mark.parametrize("columns", [30, 45, 80, 100, 200])
def test_a_wider_terminal_needs_fewer_lines(
    terminal: Callable[[int], Terminal], columns: int
) -> None:
    fields = ("sequence", "created_at", "app_id", "credits", "id", "report_name")
    record = {
        "sequence": 1,
        "created_at": "2026-01-02T03:04:05.678Z",
        "app_id": LARGEST,
        "credits": LARGEST,
        "id": IDS[0],
        "report_name": "wide 漢字 " * 9,
    }
    screen = terminal(columns)
    _show_table([record] * 2, *fields)
    lines = STYLE.sub("", screen.getvalue()).splitlines()
    # A wide character takes two columns.
    widths = [len(line) + len(re.findall("[漢字]", line)) for line in lines]
    assert max(widths) <= columns
    assert "".join(lines).count("漢") == 2 * 9
    for value in (IDS[0], str(LARGEST), "4,294,967,295", "2026-01-02 08:49:05+05:45"):
        assert screen.getvalue().count(value) == 2
    assert (len(lines) == 3) == (columns == 200)


def test_a_longer_value_after_the_first_rows_makes_its_column_wider(
    terminal: Callable[[int], Terminal],
) -> None:
    screen = terminal(40)
    rows = [{"app_id": 1, "balance": balance} for balance in [*[1] * 30, LARGEST, 2]]
    _show_table(rows, "app_id", "balance")
    *_, before, longest, after = screen.getvalue().splitlines()
    assert before == "     1        1"
    assert longest == "     1  4,294,967,295"
    assert after == "     1              2"


def test_rows_are_written_as_they_come(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(80)
    written = []

    def rows() -> Iterator[dict[str, int]]:
        for sequence in range(1, 101):
            yield {"sequence": sequence}
            written.append(len(screen.getvalue().splitlines()) - 1)

    _show_table(rows(), "sequence")
    assert written[-1] == 100
    assert all(sequence - lines <= 20 for sequence, lines in enumerate(written, 1))


def test_elsewhere_a_row_is_one_line_however_long(served: Served) -> None:
    shown = credit("purchases", "--user", "7", "-o", "table").stdout
    head, row = shown.splitlines()
    assert head.split()[0] == "SEQ"
    assert row.endswith(f"report-{'r' * 100}  {NAME}")
    assert not BOXES.search(shown)


def test_times_are_local_without_the_option_for_utc(served: Served) -> None:
    _, local, _ = credit("transactions", "--user", "7", "-o", "table").stdout.splitlines()
    _, utc, _ = credit("transactions", "--user", "7", "-o", "table", "--utc").stdout.splitlines()
    assert re.search(r"\d\d:\d\d:\d\d\+05:45 ", local)
    assert re.search(r"\d\d:\d\d:\d\d\+00:00 ", utc)
    assert shown("created_at", "2026-01-02T03:04:05.678Z") == "2026-01-02 08:49:05+05:45"
    assert shown("created_at", "2026-01-02T03:04:05.678Z", utc=True) == "2026-01-02 03:04:05+00:00"


def test_json_has_plain_numbers_and_times_in_utc_at_a_terminal_too(
    served: Served, forked_credit: str
) -> None:
    screen = _on_a_terminal(forked_credit, 60, "transactions", "--user", "7", "-o", "json")
    entries = [json.loads(line) for line in screen.splitlines()]
    assert entries[1]["balance_after"] == 4293732728
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", entries[0]["created_at"])
    assert (
        credit("transactions", "--user", "7", "--utc").stdout
        == credit("transactions", "--user", "7").stdout
    )


def test_amounts_have_thousands_separators_and_ids_have_none(served: Served) -> None:
    shown = credit("balance", "--app", str(LARGEST), "-o", "table").stdout
    assert shown == "app_id   4294967295\nbalance  4,293,732,728\n"
    receipt = credit(
        *["add", "--user", "1000000", "--app", "1", "--credits", "1000", "-o", "table"]
    ).stdout
    assert "\nbalance         1,000\n" in receipt


def test_a_server_that_sends_no_effects_gets_signs_from_the_types() -> None:
    def effect(kind: str, sent: int) -> object:
        return with_effect({"type": kind, "credits": 5, "effect": sent})["effect"]

    assert [effect("ADD", 0), effect("USE", 0), effect("USE", -5)] == [5, -5, -5]
    assert [effect("EXTEND", 0), effect("CAP", 0)] == [0, 0]


@pytest.mark.parametrize(
    "text", ["0s", "1s", "59s", "90s", "15m", "90m", "12h", "36h", "7d", "9999d"]
)
def test_a_duration_is_shown_as_it_is_given(text: str) -> None:
    assert duration_text(int(duration(text).total_seconds())) == text


def test_the_longest_duration_of_a_grant_is_shown_in_days() -> None:
    assert duration_text(LARGEST) == "49710d"


def test_the_longest_life_of_a_hold_is_shown_in_days() -> None:
    answer = answer_of(ledger.HoldLifeExceeded(limit_seconds=604_800, placed_at=NOON))
    error = HoldLifeExceeded(answer.message, limit_seconds=604_800, placed_at=NOON)
    assert sentence_of(error).startswith("a hold ends at most 7d after it was placed")


def test_a_user_s_summary_has_balances_and_last_transactions(served: Served) -> None:
    for _ in range(3):
        served.service.ledger.add(CreditRequest(user_id=7, app_id=2, credits=5, created_by=1))
    about, balances, latest = credit("user", "7", "-o", "table").stdout.split("\n\n")
    assert re.fullmatch(
        r"user_id     7\nrevision    5\ncreated_at  .*\+05:45\nupdated_at  .*\+05:45",
        about,
    )
    assert [line.split() for line in balances.splitlines()[1:]] == [
        ["2", "15"],
        ["4294967295", "4,293,732,728"],
    ]
    assert [line.split()[0] for line in latest.splitlines()[1:]] == ["1", "2", "3", "4", "5"]
    *_, latest = credit("user", "7", "--last", "2", "-o", "table", "--utc").stdout.split("\n\n")
    assert [line.split()[0] for line in latest.splitlines()[1:]] == ["4", "5"]
    assert credit("user", "7", "--last", "0", "-o", "table").stdout.count("\n\n") == 1


def test_a_user_s_summary_is_one_json_document(served: Served) -> None:
    summary = json.loads(credit("user", "7", "--last", "1").stdout)
    held = json.loads(credit("balance", "--user", "7").stdout)
    _, last = credit("transactions", "--user", "7").stdout.splitlines()
    assert summary == held | {"transactions": [json.loads(last)]}


def test_the_user_of_a_summary_is_an_argument_or_an_option(served: Served) -> None:
    assert credit("user", "--user", "7").stdout == credit("user", "7").stdout
    assert credit("user", "7", "--user", "7").stdout == credit("user", "7").stdout
    for arguments in ([], ["7", "--user", "8"]):
        wrong = credit("user", *arguments)
        assert wrong.exit_code == 2
        assert "name one user: credit user 7, or credit user --user 7" in wrong.stderr


def test_a_user_without_credits_has_an_empty_summary(served: Served) -> None:
    result = credit("user", "9", "-o", "table")
    note = "credit: user 9 has no balance and no transaction\n"
    assert (result.exit_code, result.stderr) == (0, note)
    assert result.stdout.splitlines() == ["user_id   9", "revision  0"]
    result = credit("user", "9")
    assert (result.exit_code, result.stderr) == (0, note)
    assert json.loads(result.stdout)["transactions"] == []


def test_lists_of_all_users_have_sequences_and_show_up_to_when_they_are_complete(
    served: Served,
) -> None:
    app = ("--app", str(LARGEST))
    span = ("--since", "2026-01-01", "--until", "2100-01-01")
    for command in (["transactions", *app], ["purchases", *app], ["summary", *app, *span]):
        table = credit(*command, "-o", "table")
        assert re.fullmatch(
            r"credit: complete until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+05:45; later entries are left"
            r" out\n",
            table.stderr,
        )
        assert credit(*command).stderr == ""
        early = [*command[:-1], "2026-02-01"] if span[1] in command else [*command, "--until", "1d"]
        assert credit(*early, "-o", "table").stderr in (
            "",
            f"no {command[0]}\n",
            "no transactions\n",
        )
        assert ("SEQ" in table.stdout) == (command[0] != "summary")
    assert "complete" not in credit("transactions", "--user", "7", "-o", "table").stderr


def test_an_earlier_balance_has_a_local_time(served: Served) -> None:
    at = ("balance", "--user", "7", "--app", "1", "--at", "2026-01-01T00:00Z", "-o", "table")
    assert "as_of     2026-01-01 05:45:00+05:45" in credit(*at).stdout


def test_the_removal_of_an_alert_and_of_a_webhook_is_shown(served: Served) -> None:
    limit = ("--app", "1", "--credits", "20")
    url = ("--app", "1", "--url", "https://example.com/hook")
    for command, expected in (
        ("alert set", None),
        ("alert remove", {"credits": 20, "direction": "FALLS_BELOW", "alerts_left": 0}),
        ("webhook set", None),
        ("webhook remove", {"url": url[3], "removed": True, "webhooks_left": 0}),
        ("webhook remove", {"url": url[3], "removed": False, "webhooks_left": 0}),
    ):
        options = limit if command.startswith("alert") else url
        result = credit(*command.split(), *options)
        assert result.exit_code == 0, result.stderr
        if expected is not None:
            document = json.loads(result.stdout)
            assert {name: document[name] for name in expected} == expected
    table = credit("webhook", "remove", *url, "-o", "table").stdout
    assert table.splitlines()[1:] == [
        f"url            {url[3]}",
        "removed        False",
        "webhooks_left  0",
    ]


def test_the_acting_id_comes_from_the_environment_unless_it_is_given(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ["add", "--user", "8", "--app", "1", "--credits", "1"]
    credit(*add)
    monkeypatch.setenv("CREDIT_BY", "42")
    credit(*add)
    credit(*add, "--by", "43")
    entries = served.service.ledger.transactions(user_id=8)
    assert [entry.created_by for entry in entries] == [1, 42, 43]
    monkeypatch.setenv("CREDIT_BY", "me")
    wrong = credit(*add)
    assert wrong.exit_code == 2
    assert "'me' is not a whole number" in wrong.stderr
    assert "--by" in wrong.stderr


@pytest.mark.parametrize(
    ("options", "variables", "sentence"),
    [
        (["--timeout", "-1"], {}, "--timeout must be above 0, got -1"),
        ([], {"TIMEOUT_SECONDS": "-1"}, "CREDIT_TIMEOUT_SECONDS must be above 0, got '-1'"),
        (
            [],
            {"CHANNELS": "0", "RETRY_ATTEMPTS_MAX": "0"},
            (
                "CREDIT_RETRY_ATTEMPTS_MAX must be at least 1, got '0';"
                " CREDIT_CHANNELS must be at least 1, got '0'"
            ),
        ),
        (
            ["--client-key", "k"],
            {},
            "--client-key is given without CREDIT_TLS_CLIENT_CERTIFICATE",
        ),
        (
            [],
            {"TOKEN": "t", "TOKEN_FILE": "f"},
            "CREDIT_TOKEN and CREDIT_TOKEN_FILE are both given: give one",
        ),
        (
            ["--target", "credit.example"],
            {"TOKEN": "t"},
            (
                "the token would be sent to credit.example:50051 without TLS, readable on the way:"
                " pass --tls (CREDIT_TLS), or --insecure (CREDIT_TOKEN_INSECURE) where that is"
                " acceptable"
            ),
        ),
    ],
)
def test_a_wrong_setting_is_named_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, options: list[str], variables: dict[str, str], sentence: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"CREDIT_{name}", value)
    result = credit("balance", "--app", "1", *options)
    assert (result.exit_code, result.stderr) == (2, f"credit: {sentence}\n")


def test_advice_about_tls_names_the_options() -> None:
    advice = "give `client_certificate` and `client_key`, or the file of its CA as `tls`"
    assert sentence_of(TlsFailed(advice)) == (
        "give --client-certificate and --client-key, or the file of its CA with --tls-ca"
    )


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_is_wrapped_and_complete_at_any_width(
    command: str, columns: int
) -> None:
    narrow = credit(command, "--help", terminal_width=columns).stdout
    assert max(map(len, narrow.splitlines())) <= columns
    assert "…" not in narrow
    assert not BOXES.search(narrow)
    makes_calls = command != "verify-history"
    assert ("CREDIT_TLS_CLIENT_CERTIFICATE]" in narrow) is makes_calls
    assert narrow.split() == credit(command, "--help", terminal_width=200).stdout.split()


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_the_general_help_is_wrapped_and_complete_at_any_width(columns: int) -> None:
    narrow = credit("--help", terminal_width=columns).stdout
    assert max(map(len, narrow.splitlines())) <= columns
    assert "..." not in narrow.replace("[ARGS]...", "")
    words = " ".join(narrow.split())
    assert "of a user in an app, of all users of an app, or of a user in all apps." in words
    for code, meaning in MEANINGS.items():
        assert f"{code.value} {meaning}" in words


def test_the_help_fits_a_terminal_of_60_columns(forked_credit: str) -> None:
    screen = _on_a_terminal(forked_credit, 60, "use", "--help")
    assert max(map(len, screen.splitlines())) <= 60
    assert "CREDIT_TLS_CLIENT_CERTIFICATE]" in screen


def test_the_help_names_the_variable_of_every_option_that_has_one() -> None:
    shown = credit("add", "--help", terminal_width=200).stdout
    named = set(re.findall(r"CREDIT_[A-Z_]+", shown))
    known = {f"CREDIT_{name.upper()}" for name in ClientSettings.model_fields}
    assert named - known == {"CREDIT_ASK_ABOVE", "CREDIT_BY"}
    assert len(named) == 11


def test_completion_can_be_installed_and_completes_commands_and_options() -> None:
    def completion(instruction: str, typed: str = "") -> str:
        environment = {"_CREDIT_COMPLETE": instruction, "_TYPER_COMPLETE_ARGS": typed}
        return CliRunner().invoke(app, [], prog_name="credit", env=environment).stdout

    shown = credit("--help").stdout
    assert "--show-completion" in shown
    assert "--install-completion" in shown
    # What these two options show and install.
    assert "_CREDIT_COMPLETE=complete_bash" in completion("source_bash")
    assert re.findall(r'"([\w-]+)":', completion("complete_zsh", "credit bal")) == ["balance"]
    assert re.findall(r'"([\w-]+)":', completion("complete_zsh", "credit user --ut")) == ["--utc"]
