"""Test that the `credit` command reports at a terminal, and only there, that it waits."""

import asyncio
import io
from collections.abc import AsyncGenerator, Callable

import pytest
from credit_client.cli import waiting
from credit_client.cli.commands import app
from credit_client.cli.waiting import WaitingNotice
from typer.testing import CliRunner

NOTICE = "credit: waiting for credit.example:50051; press Ctrl-C to stop\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _notice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_NOTICE_AFTER_SECONDS", 0.0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Return a function that makes standard error a terminal: pytest sets it before each test."""

    def make() -> Terminal:
        screen = Terminal()
        monkeypatch.setattr("sys.stderr", screen)
        return screen

    return make


async def _loop_turns() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_terminal_gets_one_line_while_there_is_no_answer(
    terminal: Callable[[], Terminal],
) -> None:
    screen = terminal()
    with WaitingNotice("credit.example:50051"):
        await _loop_turns()
    assert screen.getvalue() == NOTICE


async def test_there_is_no_notice_after_the_answer(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    with WaitingNotice("credit.example:50051"):
        pass
    await _loop_turns()
    assert screen.getvalue() == ""


async def test_there_is_no_notice_after_the_first_row_of_a_list(
    terminal: Callable[[], Terminal],
) -> None:
    screen = terminal()

    async def rows() -> AsyncGenerator[int, None]:
        yield 1
        await _loop_turns()
        yield 2

    with WaitingNotice("credit.example:50051") as notice:
        assert [row async for row in notice.until_first(rows())] == [1, 2]
    assert screen.getvalue() == ""


async def test_a_list_is_closed_with_the_rows_that_are_shown() -> None:
    closed = []

    async def rows() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            closed.append(True)

    with WaitingNotice("credit.example:50051") as notice:
        shown = notice.until_first(rows())
        await anext(shown)
        await shown.aclose()
    assert closed == [True]


async def test_a_program_gets_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr("sys.stderr", file)
    with WaitingNotice("credit.example:50051"):
        await _loop_turns()
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    "command",
    [
        ["add", "--user", "7", "--app", "1", "--credits", "1"],
        ["balance", "--user", "7"],
        ["transactions", "--user", "7"],
        ["user", "7"],
    ],
)
def test_a_command_waits_for_a_server_that_does_not_listen_and_names_it(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int, command: list[str]
) -> None:
    # The runner replaces standard error by one that is no terminal.
    monkeypatch.setattr(waiting, "_is_terminal", lambda: True)
    monkeypatch.setenv("CREDIT_RETRY_BACKOFF_INITIAL_SECONDS", "0.001")
    monkeypatch.setenv("CREDIT_RETRY_ATTEMPTS_MAX", "2")
    target = f"127.0.0.1:{unused_tcp_port}"
    result = CliRunner().invoke(app, [*command, "--target", target])
    assert result.exit_code == 6
    notice, failure, *_ = result.stderr.splitlines()
    assert notice == f"credit: waiting for {target}; press Ctrl-C to stop"
    assert failure.startswith(f"credit: cannot connect to {target}: the connection was refused")
