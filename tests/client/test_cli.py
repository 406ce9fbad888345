"""The `credit` command: what it prints, and the exit codes that scripts build on."""

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path

import pytest
from credit_client.cli.commands import app
from credit_client.cli.exits import MEANINGS, Exit, exit_of
from credit_client.cli.flags import sentence_of
from credit_client.errors import ActorNotAllowed, DeadlineExceeded, Unauthenticated
from credit_client.transport import AttemptFailed
from credit_models import CreditRequest, ErrorReason, PurchaseRequest
from credit_testing.certificates import Authority
from grpclib.const import Status
from hyperframe.frame import SettingsFrame
from typer.testing import CliRunner, Result

from tests.client.served import Served

COMMAND = str(Path(sys.executable).with_name("credit"))
PAGE = Path(__file__).parents[2] / "docs/cli.md"
ADD = ["add", "--user", "7", "--app", "1", "--credits", "120"]
USE = ["use", "--user", "7", "--app", "1", "--report", "r1", "--name", "Report", "--credits", "5"]


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


def test_writes_and_reads_give_one_json_document_each(served: Served) -> None:
    added = json.loads(credit(*ADD).stdout)
    assert (added["balance"], added["sequence"], added["replayed"]) == (120, 1, False)
    assert json.loads(credit(*USE).stdout)["balance"] == 115
    assert json.loads(credit("balance", "--app", "1").stdout) == {"app_id": 1, "balance": 115}
    of_user: dict[str, object] = {"app_id": 1, "user_id": 7, "balance": 115}
    of_user |= {"held": 0, "owed": 0, "expiring_next": None, "revision": 2}
    assert json.loads(credit("balance", "--app", "1", "--user", "7").stdout) == of_user
    held = json.loads(credit("balance", "--user", "7").stdout)
    assert held["balances"] == [
        {"app_id": 1, "balance": 115, "held": 0, "owed": 0, "expiring_next": None}
    ]
    assert held["updated_at"].endswith("Z")


def test_the_error_for_another_actor_names_the_option_and_the_variable() -> None:
    refused = ActorNotAllowed(
        "the identity may not act in the name of 1; no change was made", created_by=1
    )
    assert sentence_of(refused) == (
        "the identity may not act in the name of 1: set --by or CREDIT_BY to the identity's actor;"
        " no change was made"
    )


def test_the_error_for_a_call_without_an_identity_names_the_option_and_the_variable() -> None:
    refused = Unauthenticated(
        "The call has no identity: send the header 'authorization: Bearer <token>' or connect with"
        " a client certificate."
    )
    assert sentence_of(refused) == (
        "The call has no identity: set CREDIT_TOKEN or pass --token-file or pass"
        " --client-certificate."
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("balance 7 --app 1", "unexpected argument '7': to name a user, use --user 7"),
        ("balance 7 8 --app 1", "unexpected argument '7': to name a user, use --user 7"),
        ("balance 'a b'", "unexpected argument 'a b': to name a user, use --user 'a b'"),
        ("balance --user 7 8", "unexpected argument '8'"),
        ("policy 7 --app 1", "unexpected argument '7'"),
        ("transfer --user 7 --app 1 --credits 5", "pass --to-user or --to-app"),
        (
            "transfer --user 7 --app 1 --credits 5 --to-user 7",
            "--to-user must differ from --user unless --to-app differs from --app",
        ),
        ("adjust --user 7 --app 1 --delta 0 --note n", "--delta must not be 0"),
    ],
)
def test_misuse_is_explained(served: Served, command: str, words: str) -> None:
    result = credit(*shlex.split(command))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.partition("; no change")[0].strip().endswith(words)


def test_lists_give_a_json_line_for_each_entry(served: Served) -> None:
    credit(*ADD)
    credit(*USE)
    entries = [
        json.loads(line) for line in credit("transactions", "--user", "7").stdout.split("\n")[:-1]
    ]
    assert [(entry["type"], entry["balance_after"]) for entry in entries] == [
        ("ADD", 120),
        ("USE", 115),
    ]
    (purchase,) = credit("purchases", "--user", "7").stdout.splitlines()
    assert json.loads(purchase)["report_name"] == "Report"


def test_a_list_starts_after_a_sequence(served: Served) -> None:
    for _ in range(3):
        credit(*ADD)
    after = credit("transactions", "--user", "7", "--after", "1").stdout.splitlines()
    assert [json.loads(line)["sequence"] for line in after] == [2, 3]
    _refused(credit("purchases", "--user", "7", "--after", "-1"), 2, "--after must be 0 or more")


def test_tables_have_aligned_columns(served: Served) -> None:
    credit(*ADD)
    credit(*USE)
    head, first, second = credit("transactions", "--user", "7", "-o", "table").stdout.splitlines()
    end = head.index("EFFECT") + len("EFFECT")
    assert (first[:end].split()[-1], second[:end].split()[-1]) == ("+120", "-5")
    head, only = credit("balance", "--user", "7", "-o", "table").stdout.splitlines()
    assert (head.split(), only.split()) == (["APP", "ID", "BALANCE"], ["1", "115"])
    single = credit("balance", "--app", "1", "-o", "table").stdout
    assert single == "app_id   1\nbalance  115\n"


def test_names_cannot_steer_the_terminal(served: Served) -> None:
    credit(*ADD)
    # An entry that was written before names had rules.
    name = "\x1b[2Jcleared\nline"
    purchase = PurchaseRequest(user_id=7, app_id=1, report_name=name, credits=5, created_by=1)
    served.service.ledger.use(purchase)
    _, row = credit("purchases", "--user", "7", "-o", "table").stdout.splitlines()
    assert row.endswith(r"\x1b[2Jcleared\nline")


def _refused(result: Result, code: int, words: str) -> None:
    assert result.exit_code == code
    assert result.stdout == ""
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


def _uncertain(result: Result, code: int, words: str) -> list[str]:
    """Check how a write ended whose result is not known, and return the words of the retry."""
    assert result.exit_code == code
    assert result.stdout == ""
    sentence, retry = result.stderr.splitlines()
    assert words in sentence
    intro, _, command = retry.partition(" once: ")
    assert intro == "credit: this command retries the write, and it counts"
    return shlex.split(command)


def test_each_refusal_has_its_exit_code_and_a_sentence(served: Served) -> None:
    _refused(credit(*USE), 3, "the user has 0 credits and 5 are required")
    _refused(credit(*ADD[:-1], "0"), 2, ": --credits must be 1 to 4294967295, got 0")
    assert credit(*ADD, "--key", "k").exit_code == 0
    _refused(
        credit(*ADD, "--by", "2", "--key", "k"), 4, "a request that differs in: --by; no change"
    )
    _refused(credit(*ADD[:-1], "4294967295"), 5, "more would raise it above 4294967295")
    served.service.fail_next(ErrorReason.STORE_UNAVAILABLE, times=3)
    _refused(credit("balance", "--app", "1"), 6, "(request ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([*ADD, "--key", "order-7\r"], "--key must not begin or end with white space"),
        ([*ADD, "--key", "order\ufeff7"], "--key must not contain the character U+FEFF"),
        ([*ADD, "--key", "order\udcff"], "--key must be valid Unicode text"),
        ([*USE, "--name", "  "], "--name must not begin or end with white space"),
        ([*USE, "--name", "\u2800"], "--name must contain a visible character"),
        ([*USE, "--report", "r\t1"], "--report must not contain the character U+0009"),
    ],
    ids=ascii,
)
def test_what_looks_like_something_else_is_misuse_and_changes_nothing(
    served: Served, options: list[str], words: str
) -> None:
    _refused(credit(*options), 2, words)
    assert credit("transactions", "--user", "7").stdout == ""


def test_a_write_that_may_have_taken_effect_names_the_command_that_retries_it(
    served: Served,
) -> None:
    served.service.fail_next(ErrorReason.STORE_UNAVAILABLE, times=3)
    retry = _uncertain(
        credit(*ADD, "--key", "my key"),
        10,
        "set to fail; the write may have taken effect (request ",
    )
    target = f"127.0.0.1:{served.port}"
    assert retry == ["credit", *ADD, "--by", "1", "--key", "my key", "--target", target]


def test_a_write_without_a_key_of_its_own_names_the_one_that_was_sent(served: Served) -> None:
    served.service.fail_next(ErrorReason.STORE_UNAVAILABLE, times=3)
    _, *retry = _uncertain(credit(*ADD), 10, "set to fail")
    key = retry[retry.index("--key") + 1]
    assert len(key) == 32
    assert credit(*retry).exit_code == 0
    (entry,) = credit("transactions", "--user", "7").stdout.splitlines()
    assert json.loads(entry)["idempotency_key"] == key


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_refused_connection_has_its_exit_code(
    served: Served, unused_tcp_port: int, host: str
) -> None:
    target = f"{host}:{unused_tcp_port}"
    result = credit("balance", "--app", "1", "--target", target)
    _refused(
        result,
        6,
        f"cannot connect to {target}: the connection was refused (is the server running?)",
    )
    assert re.search(r"\(request [0-9a-f]{32}\)", result.stderr)


@pytest.mark.parametrize(
    "arguments", [["transactions", "--user", "7"], ["balance", "--app", "1"], ["--help"]]
)
def test_a_full_disk_is_a_sentence(
    served: Served, forked_credit: str, arguments: list[str]
) -> None:
    _history(served, 300)
    with Path("/dev/full").open("wb") as out:
        done = subprocess.run(
            [forked_credit, *arguments], check=False, stdout=out, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr == b"credit: cannot write the output: No space left on device\n"


def test_a_list_goes_into_a_file_while_a_terminal_shows_its_progress(
    served: Served, forked_credit: str, tmp_path: Path
) -> None:
    _history(served, 3)
    ours, theirs = pty.openpty()
    with (tmp_path / "history.json").open("wb") as out:
        done = subprocess.run(
            [forked_credit, "transactions", "--user", "7"], check=False, stdout=out, stderr=theirs
        )
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    entries = (tmp_path / "history.json").read_text().splitlines()
    assert done.returncode == 0
    assert [json.loads(entry)["sequence"] for entry in entries] == [1, 2, 3]
    assert "transactions" in shown
    assert "balance_after" not in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["purchases", "--user", "9"], "no purchases\n"),
        (["transactions", "--user", "9"], "no transactions\n"),
        (["balance", "--user", "9"], "no balances\n"),
    ],
)
def test_an_empty_table_is_reported_and_empty_json_is_not(
    served: Served, arguments: list[str], sentence: str
) -> None:
    result = credit(*arguments, "-o", "table")
    assert (result.exit_code, result.stderr) == (0, sentence)
    assert credit(*arguments, "-o", "json").stderr == ""


def test_the_balance_of_an_unknown_user_is_0_and_a_table_has_a_hint(served: Served) -> None:
    of_user = ["balance", "--user", "9", "--app", "1"]
    shown = credit(*of_user, "-o", "table")
    assert (shown.exit_code, shown.stderr) == (
        0,
        "credit: user 9 has no credits in app 1, and no known history\n",
    )
    assert re.search(r"balance +0\n", shown.stdout)
    for form in ("json", "csv"):
        result = credit(*of_user, "-o", form)
        assert (result.exit_code, result.stderr) == (0, "")
    credit(*ADD)
    credit("use", "--user", "7", "--app", "1", "--report", "r", "--name", "n", "--credits", "120")
    for app_id in ("1", "2"):  # spent, and only known in another app
        known = credit("balance", "--user", "7", "--app", app_id, "-o", "table")
        assert (known.exit_code, known.stderr) == (0, "")


def test_a_rejected_identity_has_its_exit_code(served: Served) -> None:
    served.service.fail_next(ErrorReason.UNAUTHENTICATED)
    _refused(credit(*ADD), 8, "set to fail; no change was made (request ")
    served.service.fail_next(ErrorReason.APP_NOT_ALLOWED)
    _refused(credit(*ADD), 8, "set to fail")
    served.service.fail_next(ErrorReason.RATE_LIMITED, times=3)
    _refused(credit(*ADD), 9, "set to fail")


def test_a_limit_on_credits_and_a_skewed_clock_have_their_exit_codes(served: Served) -> None:
    served.service.fail_next(ErrorReason.CLOCK_SKEWED, times=3)
    _uncertain(credit(*ADD), 6, "set to fail; no change was made (request ")
    served.service.ledger._credits_max = 119
    _refused(credit(*ADD), 5, "adds 120 credits and one call may add 119")


def test_a_token_comes_from_a_file_or_the_environment_and_not_from_the_command_line(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    monkeypatch.setenv("CREDIT_TOKEN", "from-the-environment")
    credit("balance", "--app", "1")
    credit("balance", "--app", "1", "--token-file", str(file))
    assert served.authorizations == ["Bearer from-the-environment", "Bearer from-a-file"]
    assert credit("balance", "--app", "1", "--token", "t").exit_code == 2
    missing = credit("balance", "--app", "1", "--token-file", str(tmp_path / "missing"))
    _refused(missing, 8, "missing: No such file")


@pytest.mark.parametrize(
    "words",
    [
        "verify-history {}",
        "verify-history {file} --receipts {}",
        "verify-history {file} --checkpoint {} --key {}",
        "checkpoint --app 1 --key {}",
        "export 7 --file {}",
        "import {}",
        "balance --app 1 --token-file {}",
        "balance --app 1 --tls-ca {}",
        "balance --app 1 --client-certificate {} --client-key {}",
    ],
)
def test_a_file_that_cannot_be_used_is_named_without_an_errno(
    served: Served, tmp_path: Path, words: str
) -> None:
    file = tmp_path / "file"
    file.write_text("neither PEM nor JSON\n")
    for path in (tmp_path / "absent" / "below", file / "below", tmp_path):
        result = credit(*words.replace("{}", str(path)).replace("{file}", str(file)).split())
        assert result.exit_code > 0
        assert str(path) in result.stderr
        assert "[Errno" not in result.stderr
        assert "Error:" not in result.stderr.replace("Error: Invalid value", "")


def test_a_token_is_not_sent_to_another_machine_in_the_clear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CREDIT_TOKEN", "t")
    _refused(credit("balance", "--app", "1", "--target", "credit.example"), 2, "without TLS")


def test_options_turn_tls_on(served: Served, tmp_path: Path) -> None:
    authority = Authority(folder=tmp_path)
    tls = ["--tls-ca", str(authority.file)]
    _refused(credit("balance", "--app", "1", *tls), 6, "does not speak TLS at this port")
    own = authority.issue("app-7")
    certificate = ["--client-certificate", str(own.certificate), "--client-key", str(own.key)]
    _refused(credit("balance", "--app", "1", "--tls", *certificate), 6, "does not speak TLS")
    _refused(credit("balance", "--app", "1", "--tls-ca", "missing.pem"), 2, "missing.pem: No such")


# These make no call.
OFFLINE = {"verify-history"}


@pytest.mark.parametrize(
    "command", [one.name for one in app.registered_commands if one.name not in OFFLINE]
)
def test_every_command_has_the_options_of_a_connection(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], terminal_width=200).stdout
    for option in ("--target", "--timeout", "--token-file", "--tls", "--tls-ca", "--insecure"):
        assert option in shown
    assert "--client-certificate" in shown
    assert "--client-key" in shown


def test_the_version_is_that_of_the_package() -> None:
    assert credit("--version").stdout == f"credit {version('credit-client')}\n"


def test_the_help_and_the_page_list_every_exit_code() -> None:
    shown = " ".join(credit("--help").stdout.split())
    for code, meaning in MEANINGS.items():
        assert f"{code.value} {meaning}" in shown
        assert f"| {code.value} | {meaning}" in PAGE.read_text()
    assert set(MEANINGS) == set(Exit)


def test_no_answer_in_time_has_its_exit_code() -> None:
    def greet(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(SettingsFrame(0).serialize())
            while connection.recv(65536):  # until the client gives up
                pass

    with socket.create_server(("127.0.0.1", 0)) as silent:
        thread = threading.Thread(target=greet, args=[silent])
        thread.start()
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        result = credit("balance", "--app", "1", "--target", target, "--timeout", "2")
        thread.join()
    _refused(result, 7, "no answer within 2 s")


def test_a_server_that_never_greets_has_the_exit_code_of_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CREDIT_CONNECT_TIMEOUT_SECONDS", "0.05")
    monkeypatch.setenv("CREDIT_RETRY_ATTEMPTS_MAX", "2")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        result = credit("balance", "--app", "1", "--target", target)
    _refused(result, 6, "no greeting within")


@pytest.mark.parametrize(
    ("status", "code"),
    [(Status.UNAVAILABLE, Exit.UNAVAILABLE), (Status.DEADLINE_EXCEEDED, Exit.DEADLINE_EXCEEDED)],
)
def test_a_failure_before_the_time_ran_out_decides_the_exit_code(
    status: Status, code: Exit
) -> None:
    error = DeadlineExceeded("no answer within 10 s")
    assert exit_of(error) is Exit.DEADLINE_EXCEEDED
    error.__cause__ = AttemptFailed(status, "before that")
    assert exit_of(error) is code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["balance"], "--app"),
        (["add", "--app", "x"], "'x' is not a whole number"),
        ([*ADD[:-1], "1.5"], "'1.5' is not a whole number"),
        (["unknown"], "No such command"),
        (["balance", "--app", "1", "--target", "http://x"], "is not a server's address"),
        (["balance", "--app", "1", "--timeout", "0"], "credit: --timeout must be above 0, got 0"),
        (["balance", "--app", "1", "--client-key", "k"], "credit: --client-key is given without"),
        (["user", "7", "--last", "-1"], "--last must be 0 or more"),
    ],
)
def test_misuse_has_its_exit_code(arguments: list[str], words: str) -> None:
    result = credit(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def _history(served: Served, length: int) -> None:
    request = CreditRequest(user_id=7, app_id=1, credits=1, created_by=1)
    for _ in range(length):
        served.service.ledger.add(request)


# Objects that the garbage collector closes end in an order that depends on where it lies in memory.
@pytest.mark.parametrize("allocator", ["pymalloc", "malloc"])
def test_a_closed_pipe_ends_a_list_quietly(served: Served, allocator: str) -> None:
    _history(served, 3000)
    with subprocess.Popen(
        [COMMAND, "transactions", "--user", "7"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONMALLOC": allocator},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["sequence"] == 1
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_the_installed_command_prints_a_table_at_a_terminal(served: Served) -> None:
    _history(served, 2)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [COMMAND, "transactions", "--user", "7"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=os.environ | {"COLUMNS": "120"},
    ) as process:
        os.close(theirs)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    screen = os.read(ours, 10_000).decode()
    os.close(ours)
    assert process.returncode == 0
    assert "SEQ " in screen
    assert len(screen.splitlines()) == 3


def test_an_interrupt_has_its_exit_code() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with subprocess.Popen(
            [COMMAND, "balance", "--app", "1", "--target", f"127.0.0.1:{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # What a shell runs in the background ignores the signal, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        ) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_names_the_package_to_install(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; from credit_client.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr == (
        "credit needs the extra cli: run make wheels in a clone of the repository, then"
        " pip install ./dist/*.whl 'credit-client[cli]'\n"
    )
