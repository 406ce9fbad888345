"""Read the examples of a documentation page, and run its commands as at a terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from credit_testing.template import template

_COLUMNS = 80
# The shell prints this text after each command. No command prints it.
_SEPARATOR = "\x1e"

# Matches what differs between runs: ids, serialized receipts, and times.
_VARYING = re.compile(
    r"\b[0-9a-f]{24}\b|\b[0-9a-f]{32}\b|\bCh[A-Za-z0-9+/]{30,}"
    r"|\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
)


# `credit` prints this line if an answer takes more than a second, as on a busy machine.
_WAITING = re.compile(r"^credit: waiting for .*\n", re.MULTILINE)


class Example(NamedTuple):
    """A command of a page, and what the page shows as its output."""

    command: str
    output: str


def blocks(page: str, language: str) -> list[str]:
    """Return the content of a page's code blocks in a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def examples(page: str) -> list[Example]:
    """Return the commands of a page's `console` blocks, each with the output that follows it.

    A command begins with `$ `, and continues on the next line after a backslash.
    """
    found = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:.*\\\n)*.*\n", part)
            assert command is not None
            found.append(Example(command[0].rstrip("\n"), part[command.end() :]))
    return found


def run_commands(
    commands: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> list[str]:
    """Run commands in one shell at a terminal of 80 columns, and return the output of each.

    Args:
        commands: The commands; `credit`, `buf` and `python` are those of this environment. Each
            `credit` is a fork of the template.
        folder: Where they run.
        environment: Variables besides those of this process.
    """
    script = "".join(f"{command}\nprintf '{_SEPARATOR}'\n" for command in commands)
    own = {name: value for name, value in os.environ.items() if not name.startswith("CREDIT_")}
    terminal, end_of_shell = pty.openpty()
    fcntl.ioctl(end_of_shell, termios.TIOCSWINSZ, struct.pack("4H", 24, _COLUMNS, 0, 0))
    with tempfile.TemporaryDirectory() as forking:
        template().write_shell_command(Path(forking), "credit")
        path = os.pathsep.join([forking, str(Path(sys.executable).parent), os.environ["PATH"]])
        with subprocess.Popen(
            ["/bin/sh", "-c", script],
            cwd=folder,
            env={**own, "PATH": path, "TERM": "xterm-256color", "TZ": "UTC", **environment},
            stdin=subprocess.DEVNULL,
            stdout=end_of_shell,
            stderr=end_of_shell,
        ):
            os.close(end_of_shell)
            printed = _read_all(terminal)
    os.close(terminal)
    text = printed.decode().replace("\r\n", "\n")
    return [_WAITING.sub("", output) for output in text.split(_SEPARATOR)[:-1]]


def _read_all(terminal: int) -> bytes:
    printed = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # Linux raises it when the last process has ended
            return printed
        if not chunk:
            return printed
        printed += chunk


def without_styles(text: str) -> str:
    """Return an output without the terminal's codes for bold and colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def comparable(text: str) -> str:
    """Return an output without styles, trailing spaces, and what differs between runs."""
    plain = without_styles(text)
    return "".join(f"{line.rstrip()}\n" for line in _VARYING.sub("<varies>", plain).splitlines())


def shows(page: str, printed: str) -> bool:
    """Return whether an output on a page is what a command has printed.

    `…` in the page's output stands for any text of a line, and on a line of its own for any lines.
    """
    lines = [
        r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n"
        for line in comparable(page).splitlines()
    ]
    return re.fullmatch("".join(lines), comparable(printed)) is not None
