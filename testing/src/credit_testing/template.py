"""Run Python programs as forks of a template process that has imported this project.

The imports take most of the CPU time of a start of `credit-server`, and the tests start hundreds of
processes. A fork skips the imports. Otherwise it is like a new process: it has its own session,
command line, variables, working directory and streams. Variables that the interpreter reads when it
starts, such as `PYTHONWARNINGS`, have no effect. At the end, threads are joined, exit handlers run
and streams are flushed, but the objects of the imported modules are not freed one by one.

A caller connects to the template's socket and sends the program with its three streams. The
template replies with the process id, and with the exit status at the end.
"""

import asyncio
import atexit
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import typer.main

from credit_testing.commands import build_once

COMMANDS = "credit_client.cli.commands"
# What the commands import. A module that runs as `__main__` must not be imported before.
IMPORTS = (
    COMMANDS,
    "credit_client.sync",
    "credit_server.app",
    "credit_server.backup.command",
    "credit_server.development",
    "credit_server.doctor",
    "credit_server.http2.nghttp2_frames",
    "credit_server.http2.nghttp2_streams",
    "credit_server.multiprocess",
    "credit_server.settings.command_line",
    "uvloop",
)
_MESSAGE_BYTES_MAX = 2**17
_NUMBER_BYTES_MAX = 64
_create_subprocess_exec = asyncio.create_subprocess_exec
# A command of a shell: it sends its own streams, and ends with the status of the fork.
_SHELL_COMMAND = """\
#!{python} -IS
import json, os, socket, sys
program = {{
    "arguments": [{python!r}, {script!r}, *sys.argv[1:]],
    "folder": os.getcwd(),
    "environment": dict(os.environ),
}}
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
    channel.connect({address!r})
    socket.send_fds(channel, [json.dumps(program).encode()], [0, 1, 2])
    channel.recv(64)
    status = int(channel.recv(64))
sys.exit(status if status >= 0 else 128 - status)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A program to run.

    Attributes:
        arguments: The command line of a Python interpreter: its path, then `-m` and a module, `-c`
            and code, or a script; then the program's own arguments.
        folder: The working directory.
        environment: All variables.
    """

    arguments: Sequence[str]
    folder: str
    environment: Mapping[str, str]

    def run(self, streams: Sequence[int]) -> None:
        """Run the program in this process, which has nothing of its own yet."""
        os.setsid()
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        time.tzset()
        _take_streams(streams)
        sys.orig_argv[:] = self.arguments
        _, program, *rest = self.arguments
        match program:
            case "-m":
                sys.argv[:] = rest
                runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
            case "-c":
                sys.argv[:] = ["-c", *rest[1:]]
                exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
            case script:
                sys.argv[:] = [script, *rest]
                runpy.run_path(script, run_name="__main__")


def _take_streams(streams: Sequence[int]) -> None:
    """Make descriptors the standard streams, buffered as those of a new interpreter."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - open until the end
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115


class _Fork:
    """A fork of the template that runs a program.

    Attributes:
        pid: The process id of the fork.
        returncode: Its exit status, or minus the number of the signal that ended it; None until
            `poll` or `wait` has read its exit status.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self.pid = int(channel.recv(_NUMBER_BYTES_MAX))
        self.returncode: int | None = None

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the fork ends."""
        return self._channel.fileno()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit status. Several threads may wait.

        Raises:
            subprocess.TimeoutExpired: It has not ended within the timeout, in seconds.
        """
        if self.returncode is None:
            reported = select.poll()
            reported.register(self._channel, select.POLLIN)
            if not reported.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            # The report stays there for the other threads.
            self.returncode = int(self._channel.recv(_NUMBER_BYTES_MAX, socket.MSG_PEEK))
        return self.returncode

    def close(self) -> None:
        """Wait until the fork ends, and close the connection to the template."""
        self.wait()
        self._channel.close()


class Forked(_Fork):
    """A fork whose output goes to pipes; the interface is that of `subprocess.Popen`.

    Attributes:
        stdout: The pipe from the standard output of the fork.
        stderr: The pipe from the standard error of the fork.
    """

    def __init__(self, channel: socket.socket, stdout: IO[bytes], stderr: IO[bytes]) -> None:
        super().__init__(channel)
        self.stdout = stdout
        self.stderr = stderr

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.send_signal(signal.SIGKILL)
        self.stdout.close()
        self.stderr.close()
        self.close()


class ForkedChild:
    """A fork for which an event loop waits; the interface is that of asyncio's `Process`.

    Attributes:
        pid: The process id of the fork.
        returncode: The same as of `Popen`; None until the loop has read the exit status.
        stdin: The writer of its standard input, if that is a pipe.
        stdout: The reader of its standard output, if that is a pipe.
    """

    def __init__(self, fork: _Fork) -> None:
        self._fork = fork
        self._ended = asyncio.Event()
        self.pid = fork.pid
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        asyncio.get_running_loop().add_reader(fork.fileno(), self._end)

    async def connect(self, stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> None:
        """Open asyncio's streams on this process's ends of the pipes."""
        loop = asyncio.get_running_loop()
        if stdin is not None:
            writing, protocol = await loop.connect_write_pipe(
                lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), stdin
            )
            self.stdin = asyncio.StreamWriter(writing, protocol, None, loop)
        if stdout is not None:
            reader = asyncio.StreamReader()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stdout)
            self.stdout = reader

    async def wait(self) -> int:
        """Wait until the fork ends, and return its exit status."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self, input: bytes = b"") -> tuple[bytes, None]:  # noqa: A002 - as asyncio
        """Write the input, read all output, and wait until the fork ends."""
        if self.stdin is not None:
            self.stdin.write(input)
            self.stdin.close()
        output = b"" if self.stdout is None else await self.stdout.read()
        await self.wait()
        return output, None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        self._fork.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fork.fileno())
        self.returncode = self._fork.wait()
        self._fork.close()
        if self.stdin is not None:
            self.stdin.close()
        self._ended.set()


class Template:
    """A template process, which ends with this process."""

    def __init__(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind("")  # the kernel chooses a name
            listener.listen()
            self._address = listener.getsockname()
            # A connection waits in the queue of the socket until the template has started.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "credit_testing.template", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def start(
        self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str]
    ) -> Forked:
        """Start a program without input, with pipes from its standard output and error.

        The arguments are those of `Program`.
        """
        program = Program(arguments=arguments, folder=str(folder), environment=dict(environment))
        (stdout, its_stdout), (stderr, its_stderr) = os.pipe(), os.pipe()
        channel = self.send(program, [os.open(os.devnull, os.O_RDONLY), its_stdout, its_stderr])
        return Forked(channel, os.fdopen(stdout, "rb"), os.fdopen(stderr, "rb"))

    def send(self, program: Program, streams: Sequence[int]) -> socket.socket:
        """Send a program and its three streams to the template, and return the channel.

        The streams are closed in this process.
        """
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.connect(self._address)
        socket.send_fds(channel, [json.dumps(asdict(program)).encode()], streams)
        for stream in streams:
            os.close(stream)
        return channel

    def write_shell_command(self, folder: Path, name: str) -> None:
        """Write an executable file that runs a command of this environment as a fork."""
        script = str(Path(sys.executable).with_name(name))
        path = folder / name
        path.write_text(
            _SHELL_COMMAND.format(python=sys.executable, script=script, address=self._address)
        )
        path.chmod(0o755)

    def end(self) -> None:
        """End the template. Its forks continue."""
        self._process.communicate()


@cache
def template() -> Template:
    """Return the template of this process, and start it at the first call."""
    started = Template()
    atexit.register(started.end)
    return started


async def create_subprocess_exec(
    *command: str | Path,
    stdin: int | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    start_new_session: bool = False,
) -> ForkedChild | Process:
    """Start a program as asyncio does, but as a fork if it is a Python program."""
    if Path(command[0]).name == "credit-server":
        command = (sys.executable, *command)
    if command[0] != sys.executable or not start_new_session:
        return await _create_subprocess_exec(
            *command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            start_new_session=start_new_session,
        )
    pipes: dict[int, IO[bytes]] = {}
    streams: list[int] = []
    for number, stream in enumerate((stdin, stdout, stderr)):
        if stream == PIPE:
            reading, writing = os.pipe()
            ours, its = (writing, reading) if number == 0 else (reading, writing)
            pipes[number] = os.fdopen(ours, "wb" if number == 0 else "rb", buffering=0)
            streams.append(its)
        elif stream == DEVNULL:
            streams.append(os.open(os.devnull, os.O_RDWR))
        else:
            streams.append(os.dup(_descriptor(number if stream is None else stream)))
    program = Program(
        arguments=[str(part) for part in command],
        folder=str(cwd or Path.cwd()),
        environment=dict(os.environ if env is None else env),
    )
    child = ForkedChild(_Fork(template().send(program, streams)))
    await child.connect(pipes.get(0), pipes.get(1))
    return child


def _descriptor(stream: int | IO[bytes]) -> int:
    return stream if isinstance(stream, int) else stream.fileno()


def _main(listener: int) -> None:
    """Import what programs need, and serve them until standard input ends."""
    build_once()
    for name in IMPORTS:
        importlib.import_module(name)
    typer.main.get_command(sys.modules[COMMANDS].app)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the pages of all objects
    fork = _serve(listener)
    if fork is not None:
        program, streams = fork
        _run(program, streams)


def _run(program: Program, streams: Sequence[int]) -> None:
    """Run a program, and end the process without freeing its memory.

    The interpreter would free each object that the template has imported, and so copy all pages.
    That takes 0.15 s of CPU time for a command that otherwise takes 0.02 s. If the program does not
    end with a numeric status, the interpreter ends the process.
    """
    status: object = None
    try:
        program.run(streams)
    except SystemExit as end:
        status = end.code
    if status is not None and not isinstance(status, int):
        sys.exit(str(status))
    # These are the first steps of the interpreter when it ends, in the same order.
    threading._shutdown()  # type: ignore[attr-defined] # it has no public name
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit((status or 0) & 0xFF)
    sys.exit(status)  # the interpreter reports that it cannot flush


def _serve(listening: int) -> tuple[Program, list[int]] | None:
    """Fork for each program that arrives.

    Returns:
        In a fork, the program and its streams; in the template None, when standard input ends.
    """
    running: dict[int, tuple[int, socket.socket]] = {}
    with socket.socket(fileno=listening) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    return None
                if key.fd != listening:
                    selector.unregister(key.fd)
                    _report(key.fd, *running.pop(key.fd))
                    continue
                caller, _ = listener.accept()
                message, streams, *_ = socket.recv_fds(caller, _MESSAGE_BYTES_MAX, 3)
                pid = os.fork()
                if pid == 0:
                    for descriptor, (_, other) in running.items():
                        os.close(descriptor)
                        other.close()
                    caller.close()
                    return Program(**json.loads(message)), streams
                for stream in streams:
                    os.close(stream)
                caller.send(str(pid).encode())
                descriptor = os.pidfd_open(pid)
                selector.register(descriptor, selectors.EVENT_READ)
                running[descriptor] = pid, caller


def _report(descriptor: int, pid: int, caller: socket.socket) -> None:
    """Send the exit status of a fork to its caller."""
    _, status = os.waitpid(pid, 0)
    os.close(descriptor)
    with caller, suppress(BrokenPipeError):
        caller.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    _main(int(sys.argv[1]))
