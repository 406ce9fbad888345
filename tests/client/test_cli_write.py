"""Every way out of a write but a plain success names its key and the command that retries it."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import IO, Any, get_type_hints

import pytest
from credit_client import ClientSettings, CreditClient, CreditError, Outcome, Receipt
from credit_client.cli import calls
from credit_client.cli.commands import app
from credit_client.cli.connection import Connection
from credit_client.cli.exits import Exit, exit_of
from credit_client.testing import FakeLedger
from credit_models import CreditRequest, ErrorReason
from credit_models.codec import WireError
from hyperframe.frame import DataFrame, SettingsFrame
from typer.testing import CliRunner

from tests.client.served import Served

COMMAND = str(Path(sys.executable).with_name("credit"))
ADD = ["add", "--user", "7", "--app", "1", "--credits", "120"]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INTRODUCTION = "credit: this command retries the write, and it counts once: "

Serve = Callable[..., AbstractAsyncContextManager[int]]
File = int | IO[bytes] | None


class HoldingLedger(FakeLedger):
    """Adds credits, and then keeps the answer back.

    Attributes:
        reached: Set once credits are added.
        released: Set to let the answers go.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.released = threading.Event()

    def add(self, request: CreditRequest) -> Receipt:
        receipt = super().add(request)
        self.reached.set()
        self.released.wait()
        return receipt


@pytest.fixture(autouse=True)
def _few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_RETRY_BACKOFF_INITIAL_SECONDS", "0.001")
    monkeypatch.setenv("CREDIT_RETRY_ATTEMPTS_MAX", "2")


@pytest.fixture
def ledger() -> Iterator[HoldingLedger]:
    held = HoldingLedger()
    yield held
    held.released.set()


@contextmanager
def _served(serve: Serve, ledger: FakeLedger, patch: pytest.MonkeyPatch) -> Iterator[Served]:
    with Served(serve, ledger) as served:
        patch.setenv("CREDIT_TARGET", f"127.0.0.1:{served.port}")
        try:
            yield served
        finally:
            if isinstance(ledger, HoldingLedger):
                ledger.released.set()  # its thread stands still until then


@pytest.fixture
def holding(
    fake_server: Serve, ledger: HoldingLedger, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Served]:
    with _served(fake_server, ledger, monkeypatch) as served:
        yield served


@pytest.fixture
def answering(fake_server: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with _served(fake_server, FakeLedger(), monkeypatch) as served:
        yield served


def _signals_as_at_a_terminal() -> None:
    # What a shell runs in the background ignores them, and so would its children.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _start(
    *arguments: str,
    stdout: File = subprocess.PIPE,
    stderr: File = subprocess.PIPE,
    prepare: Callable[[], None] = _signals_as_at_a_terminal,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        preexec_fn=prepare,  # noqa: PLW1509 - it makes system calls alone
    )


def _retry_of(complaint: str) -> list[str]:
    """The arguments of the command that a complaint ends with."""
    *_, last = complaint.splitlines()
    assert last.startswith(INTRODUCTION)
    credit, *arguments = shlex.split(last.removeprefix(INTRODUCTION))
    assert credit == "credit"
    return arguments


def _retry_counts_once(served: Served, complaint: str) -> None:
    """Run the command that a complaint names, and check that the credits were added once."""
    arguments = _retry_of(complaint)
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (entry,) = served.service.ledger.transactions(user_id=7)
    assert entry.idempotency_key == arguments[arguments.index("--key") + 1]


@pytest.mark.parametrize(
    ("number", "code", "sentence"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hung up"),
        (signal.SIGQUIT, 131, "quit"),
    ],
)
def test_a_signal_does_not_take_the_key_with_it(
    holding: Served, ledger: HoldingLedger, number: signal.Signals, code: int, sentence: str
) -> None:
    with _start(*ADD) as process:
        ledger.reached.wait()
        process.send_signal(number)
        out, err = process.communicate()
    ledger.released.set()
    assert (process.returncode, out) == (code, b"")
    complaint = err.decode()
    assert complaint.startswith(f"credit: {sentence}; the write may have taken effect\n")
    assert len(complaint.splitlines()) == 2
    _retry_counts_once(holding, complaint)


@contextmanager
def _full_pipe() -> Iterator[tuple[int, int]]:
    """A pipe that takes nothing more: its two ends."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while os.write(writing, b"." * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(writing, True)
    try:
        yield reading, writing
    finally:
        os.close(reading)


def test_a_second_interrupt_while_the_first_is_reported_does_not_take_the_key_with_it(
    holding: Served, ledger: HoldingLedger
) -> None:
    with _full_pipe() as (reading, writing), _start(*ADD, stderr=writing) as process:
        os.close(writing)
        ledger.reached.wait()
        for _ in range(20):
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        with open(reading, "rb", closefd=False) as pipe:
            complaint = pipe.read().lstrip(b".").decode()
    ledger.released.set()
    assert process.returncode == 130
    _retry_counts_once(holding, complaint)


def _ignore_hanging_up() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_a_signal_that_is_ignored_stays_ignored(holding: Served, ledger: HoldingLedger) -> None:
    with _start(*ADD, prepare=_ignore_hanging_up) as process:
        ledger.reached.wait()
        process.send_signal(signal.SIGHUP)
        ledger.released.set()
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["balance"] == 120


def test_a_signal_ends_a_command_whose_output_is_not_read(answering: Served) -> None:
    with _full_pipe() as (_, writing), _start(*ADD, stdout=writing) as process:
        os.close(writing)
        while not answering.service.ledger.transactions(user_id=7):
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 143
    _retry_counts_once(answering, err.decode())


def test_a_full_disk_does_not_take_the_key_with_it(answering: Served) -> None:
    with Path("/dev/full").open("wb") as full, _start(*ADD, stdout=full) as process:
        _, err = process.communicate()
    assert process.returncode == 11
    complaint = err.decode()
    assert complaint.startswith(
        "credit: cannot write the output: No space left on device; the write took effect\n"
    )
    _retry_counts_once(answering, complaint)


def test_a_closed_pipe_does_not_take_the_key_with_it(answering: Served) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with _start(*ADD, stdout=writing) as process:
        os.close(writing)
        _, err = process.communicate()
    assert process.returncode == 141
    complaint = err.decode()
    assert complaint.startswith("credit: cannot write the output: Broken pipe; the write took")
    _retry_counts_once(answering, complaint)


@pytest.mark.parametrize("stdin_too", [False, True])
def test_a_closed_standard_output_does_not_take_the_key_with_it(
    answering: Served, stdin_too: bool
) -> None:
    def close() -> None:
        os.close(1)
        if stdin_too:
            os.close(0)

    with _start(*ADD, stdout=None, prepare=close) as process:
        _, err = process.communicate()
    assert process.returncode == 11
    complaint = err.decode()
    assert complaint.startswith("credit: cannot write the output: Bad file descriptor; the write")
    _retry_counts_once(answering, complaint)


def _close_standard_error() -> None:
    _signals_as_at_a_terminal()
    os.close(2)


@pytest.mark.parametrize("closed", [True, False])
def test_a_standard_error_that_takes_nothing_leaves_the_key_to_standard_output(
    answering: Served, closed: bool
) -> None:
    answering.service.fail_next(ErrorReason.STORE_UNAVAILABLE, times=2)
    with Path("/dev/full").open("wb") as full:
        streams: dict[str, Any] = (
            {"stderr": None, "prepare": _close_standard_error} if closed else {"stderr": full}
        )
        with _start(*ADD, **streams) as failed:
            complaint = failed.communicate()[0].decode()
        assert failed.returncode == 10
        assert "set to fail; the write may have taken effect" in complaint
    _retry_counts_once(answering, complaint)


def test_a_signal_finds_another_way_out_too(holding: Served, ledger: HoldingLedger) -> None:
    with _start(*ADD, stderr=None, prepare=_close_standard_error) as process:
        ledger.reached.wait()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate()
    assert process.returncode == 143
    ledger.released.set()
    _retry_counts_once(holding, out.decode())


def test_no_answer_in_time_names_the_key(holding: Served, ledger: HoldingLedger) -> None:
    code, complaint = _in_process(*ADD, "--timeout", "2")
    ledger.released.set()
    assert code == 10
    assert "no answer within 2 s; the write may have taken effect (request " in complaint
    retry = [word for word in _retry_of(complaint) if word not in {"--timeout", "2.0"}]
    _retry_counts_once(holding, INTRODUCTION + shlex.join(["credit", *retry]))


def _in_process(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    assert result.stdout == ""
    return result.exit_code, result.stderr


def _receive_message(connection: socket.socket) -> None:
    """Read until a message has begun: the first frame DATA."""
    received = b""
    at = len(PREFACE)
    while len(received) < at + 9 or received[at + 3] != DataFrame.type:
        if len(received) >= at + 9:
            at += 9 + int.from_bytes(received[at : at + 3])
        else:
            received += connection.recv(65536)


def test_a_lost_connection_names_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang_up(server: socket.socket) -> None:
        for _ in range(2):  # attempts
            connection, _ = server.accept()
            with connection:
                connection.sendall(SettingsFrame(0).serialize())
                _receive_message(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=hang_up, args=[server])
        thread.start()
        monkeypatch.setenv("CREDIT_TARGET", f"127.0.0.1:{server.getsockname()[1]}")
        code, complaint = _in_process(*ADD, "--key", "k")
        thread.join()
    assert code == 10
    assert "the write may have taken effect (request " in complaint
    assert _retry_of(complaint)[:11] == [*ADD, "--by", "1", "--key", "k"]


def test_a_server_that_was_never_reached_made_no_change_and_the_key_is_named_all_the_same(
    unused_tcp_port: int,
) -> None:
    code, complaint = _in_process(*ADD, "--target", f"127.0.0.1:{unused_tcp_port}")
    assert code == 6
    assert "is the server running?); no change was made (request " in complaint
    assert "--key" in _retry_of(complaint)


def test_an_internal_error_names_the_key(
    fake_server: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FakeLedger):
        def add(self, request: CreditRequest) -> Receipt:
            raise ZeroDivisionError

    with _served(fake_server, Broken(), monkeypatch):
        code, complaint = _in_process(*ADD)
    assert code == 10
    assert "Internal Server Error; the write may have taken effect (request " in complaint
    assert "--key" in _retry_of(complaint)


def test_a_receipt_that_cannot_be_read_names_the_key(
    answering: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Receipt:
        raise WireError("truncated")

    with monkeypatch.context() as patch:
        patch.setattr("credit_client.operation.decode", fail)
        code, complaint = _in_process(*ADD)
    assert code == 11
    assert "the write took effect, but the receipt cannot be read" in complaint
    _retry_counts_once(answering, complaint)


def test_a_bug_is_a_traceback_and_the_key(
    answering: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> Receipt:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(CreditClient, "add", fail)
        code, complaint = _in_process(*ADD)
    assert code == 10
    assert complaint.startswith("Traceback")
    assert "credit: unexpected ZeroDivisionError; the write may have taken effect\n" in complaint
    assert "--key" in _retry_of(complaint)
    with monkeypatch.context() as patch:
        patch.setattr(calls, "show_receipt", lambda *_: 1 // 0)
        code, complaint = _in_process(*ADD)
    assert code == 11
    assert "ZeroDivisionError: integer division or modulo by zero; the write took" in complaint
    _retry_counts_once(answering, complaint)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([*ADD, "--key", "used", "--by", "2"], 4, "differs in: --by;"),
        (
            ["use", *ADD[1:], "--report", "r", "--name", "n", "--credits", "500"],
            3,
            "500 are required",
        ),
        ([*ADD[:-1], "0"], 2, ": --credits must be 1 to 4294967295"),
    ],
)
def test_a_refusal_that_made_no_change_is_one_sentence(
    answering: Served, arguments: list[str], code: int, words: str
) -> None:
    assert CliRunner().invoke(app, [*ADD, "--key", "used"]).exit_code == 0
    exit_code, complaint = _in_process(*arguments)
    assert exit_code == code
    (line,) = complaint.splitlines()
    assert words in line


def test_a_refusal_after_an_unanswered_attempt_names_the_key(answering: Served) -> None:
    answering.service.fail_next(ErrorReason.STORE_UNAVAILABLE)
    code, complaint = _in_process("use", *ADD[1:], "--report", "r", "--name", "n")
    assert code == 10
    ending = "120 are required; an earlier attempt may have taken effect (request "
    assert ending in complaint
    assert "--key" in _retry_of(complaint)


def test_the_command_that_retries_a_write_has_all_that_was_given_and_no_secret(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDIT_TOKEN", "s3cret")
    target = f"127.0.0.1:{unused_tcp_port}"
    token_file = tmp_path / "the token"
    token_file.write_text("s3cret")
    given = [
        *["use", "--user", "7", "--app", "1", "--report", "-r 1", "--name", 'It\'s "mine" $HOME'],
        *[
            "--credits",
            "5",
            "--by",
            "3",
            "--key",
            "--key 1",
            "--target",
            target,
            "--timeout",
            "9.5",
        ],
        *["--token-file", str(token_file), "--no-tls", "--insecure", "--output", "table"],
    ]
    code, complaint = _in_process(*given)
    assert code == 6
    assert _retry_of(complaint) == given
    assert "s3cret" not in complaint
    assert _in_process(*_retry_of(complaint))[1].splitlines()[1] == complaint.splitlines()[1]


def test_the_command_that_retries_a_write_can_have_every_option() -> None:
    """A new option of a connection must be in `Connection.words`."""
    given = Connection(
        target="t",
        timeout=1.0,
        token_file=Path("a"),
        tls=True,
        tls_ca=Path("b"),
        client_certificate=Path("c"),
        client_key=Path("d"),
        insecure=True,
        users_app=5,
    )
    settings = ClientSettings(target="t", users_app_id=5)
    options = {
        # typer takes the first name for a default, until it sees that it is inside `Annotated`.
        hint.__metadata__[0].default.partition("/")[0]
        for hint in get_type_hints(Connection, include_extras=True).values()
    }
    assert {word for word in given.words(settings) if word.startswith("--")} == options
    assert all(getattr(given, each.name) is not None for each in fields(given))


def _kinds(kind: type[CreditError]) -> set[type[CreditError]]:
    return {kind}.union(*map(_kinds, kind.__subclasses__()))


@pytest.mark.parametrize(
    "kind", sorted(_kinds(CreditError), key=str), ids=lambda each: each.__name__
)
def test_the_exit_code_of_a_failed_write_depends_on_its_outcome(kind: type[CreditError]) -> None:
    error = kind.__new__(kind)
    error.message, error.request_id, error.idempotency_key = "m", None, "k"
    error.outcome = Outcome.UNKNOWN
    assert exit_of(error) is Exit.OUTCOME_UNKNOWN
    error.outcome = Outcome.APPLIED
    assert exit_of(error) is Exit.NOT_SHOWN
    error.outcome = Outcome.NO_CHANGE
    assert exit_of(error) not in (Exit.DONE, Exit.OUTCOME_UNKNOWN, Exit.NOT_SHOWN)
