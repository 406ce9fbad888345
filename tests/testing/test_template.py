"""A fork of the template is like a new process that runs the program."""

import os
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

import pytest
from credit_testing.template import Forked, ForkedChild, create_subprocess_exec, template


def start(folder: Path, code: str, *arguments: str, **environment: str) -> Forked:
    program = [sys.executable, "-c", code, *arguments]
    return template().start(program, folder=folder, environment=environment)


def test_it_has_its_own_arguments_folder_variables_streams_and_session(tmp_path: Path) -> None:
    code = (
        "import os, sys; print('wrong', file=sys.stderr); print(sys.argv, os.getcwd(),"
        " dict(os.environ), os.getsid(0) == os.getpid(), repr(sys.stdin.read())); sys.exit(3)"
    )
    with start(tmp_path, code, "a", NAME="value") as process:
        printed, errors = process.stdout.read().decode(), process.stderr.read()
        assert process.wait() == 3
    assert printed == f"['-c', 'a'] {tmp_path} {{'NAME': 'value'}} True ''\n"
    assert errors == b"wrong\n"


def test_its_imports_are_those_of_the_template(tmp_path: Path) -> None:
    code = "import sys; print('credit_server.app' in sys.modules, 'pytest' in sys.modules)"
    with start(tmp_path, code) as process:
        assert process.stdout.read() == b"True False\n"


def test_a_module_runs_as_the_main_program(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "credit_server.main", "--version"]
    with template().start(program, folder=tmp_path, environment={}) as process:
        assert (process.stdout.read().count(b"."), process.stderr.read()) == (2, b"")
        assert process.wait() == 0


ENDING = """
import atexit, sys, threading
atexit.register(print, "exit handler", end="")
threading.Timer(0.01, print, ["thread"]).start()
sys.exit({status})
"""


@pytest.mark.parametrize(
    ("status", "code", "errors"),
    [("None", 0, b""), ("0", 0, b""), ("3", 3, b""), ("-1", 255, b""), ("'why'", 1, b"why\n")],
)
def test_it_ends_like_an_interpreter(tmp_path: Path, status: str, code: int, errors: bytes) -> None:
    with start(tmp_path, ENDING.format(status=status)) as process:
        assert process.stdout.read() == b"thread\nexit handler"
        assert process.stderr.read() == errors
        assert process.wait() == code


def test_an_exception_is_shown(tmp_path: Path) -> None:
    with start(tmp_path, "raise LookupError('why')") as process:
        assert process.stderr.read().endswith(b"LookupError: why\n")
        assert process.wait() == 1


def test_a_failing_flush_at_the_end_is_reported(tmp_path: Path) -> None:
    code = "import sys; sys.stdout = open('/dev/full', 'w'); print('lost')"
    with start(tmp_path, code) as process:
        assert b"No space left on device" in process.stderr.read()
        assert process.wait() == 120


def test_a_signal_ends_it_and_the_others_continue(tmp_path: Path) -> None:
    code = "import time; print('started', flush=True); time.sleep(600)"
    with start(tmp_path, code) as one, start(tmp_path, code) as other:
        assert [process.stdout.readline() for process in (one, other)] == [b"started\n"] * 2
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(0)
        assert one.poll() is None
        one.send_signal(signal.SIGKILL)
        assert one.wait() == one.poll() == -signal.SIGKILL
        assert other.poll() is None
        other.send_signal(signal.SIGTERM)
        assert other.wait() == -signal.SIGTERM


def test_an_error_in_the_context_ends_it(tmp_path: Path) -> None:
    process = start(tmp_path, "import time; time.sleep(600)")
    with pytest.raises(LookupError), process:
        raise LookupError
    assert process.returncode == -signal.SIGKILL


def test_a_shell_runs_a_command_as_a_fork(tmp_path: Path) -> None:
    template().write_shell_command(tmp_path, "credit")
    done = subprocess.run(
        ["/bin/sh", "-c", "credit --version | cat; credit balance --app none"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count(".") == 2
    assert done.returncode == 2
    assert "--app" in done.stderr


async def child(
    *command: str, stdin: int | None = None, stdout: int | None = None
) -> ForkedChild | Process:
    return await create_subprocess_exec(
        *command, stdin=stdin, stdout=stdout, start_new_session=True
    )


async def test_a_child_of_an_event_loop_has_pipes_and_a_status() -> None:
    code = "import sys; print(sys.stdin.read() * 2, end=''); sys.exit(3)"
    process = await child(sys.executable, "-c", code, stdin=PIPE, stdout=PIPE)
    assert isinstance(process, ForkedChild)
    assert process.returncode is None
    assert await process.communicate(b"a b") == (b"a ba b", None)
    assert await process.wait() == process.returncode == 3


async def test_a_signal_ends_a_child_of_an_event_loop() -> None:
    code = "import time; print('started', flush=True); time.sleep(600)"
    process = await child(sys.executable, "-c", code, stdin=DEVNULL, stdout=PIPE)
    assert isinstance(process, ForkedChild)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    process.terminate()
    assert await process.wait() == -signal.SIGTERM
    process.kill()  # of a process that has ended


async def test_another_program_is_no_fork() -> None:
    process = await child("/bin/sh", "-c", "exit 3")
    assert isinstance(process, Process)
    assert await process.wait() == 3
