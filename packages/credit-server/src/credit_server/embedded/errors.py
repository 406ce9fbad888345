"""The errors of the embedded `mongod`, and the diagnosis that explains why one ended.

EmbeddedError
├── MongodNotFound      the machine has none: the operator installs one
├── NoDatabase          a command needs an existing database: the operator names its directory
├── DataDirectoryInUse  another process holds the data: the operator stops it or picks another place
└── MongodFailed        `mongod` did not start, or the data directory cannot be used

The four are named after the condition, without `Error` at the end, like the refusals elsewhere.
Each message states what the operator must do.
"""

import json
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from credit_server.errors import EmbeddedError

_QUOTED_LINES = 3
_QUOTED_CHARACTERS = 300

# Debian/Ubuntu's and Fedora's packages of the libraries that the wheel's mongod needs.
_PACKAGES = {
    "libcurl.so.4": ("libcurl4", "libcurl"),
    "libssl.so.3": ("libssl3", "openssl-libs"),
    "libcrypto.so.3": ("libssl3", "openssl-libs"),
}

# Signals that leave no time to log the reason: the last lines of the log are about something else.
_UNLOGGED_ENDINGS: dict[int | None, str] = {
    -signal.SIGILL: (
        "The processor cannot run it: MongoDB 5 and newer need AVX. Put an older `mongod` on PATH, "
        "or set CREDIT_MONGODB_URI."
    ),
    -signal.SIGKILL: (
        "It was killed (SIGKILL): if no operator did that, the machine ran out of memory."
    ),
}


class MongodNotFound(EmbeddedError):
    """There is no `mongod` on PATH, and none that the `embedded` extra has installed."""


class NoDatabase(EmbeddedError):
    """No server has ever run on the data directory, so there is nothing to read."""


class DataDirectoryInUse(EmbeddedError):
    """Another live process holds the data directory."""


class MongodFailed(EmbeddedError):
    """`mongod` ended or hung before it could serve, or the data directory cannot be used."""


class Cause(Enum):
    """The causes that the caller can handle, and all the others."""

    PORT_TAKEN = auto()
    DATABASE_LOCKED = auto()
    OTHER = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """Why a `mongod` ended.

    Attributes:
        cause: The kind of failure.
        sentence: What happened and the remedy, for the operator.
    """

    cause: Cause
    sentence: str


def diagnose(*, return_code: int | None, output: str, log: str) -> Diagnosis:
    """Explain why a `mongod` ended from what it has written.

    Args:
        return_code: Its exit status, negative for a signal; None while it still runs.
        output: What it wrote to its standard output and error.
        log: What it has logged since it was started.
    """
    errors = [line for line in (*output.splitlines(), *log.splitlines()) if _is_error(line)]
    text = "\n".join(errors)
    for pattern, cause, explain in _SYMPTOMS:
        match = pattern.search(text)
        if match is not None:
            return Diagnosis(cause=cause, sentence=explain(match))
    if return_code in _UNLOGGED_ENDINGS:
        return Diagnosis(cause=Cause.OTHER, sentence=_UNLOGGED_ENDINGS[return_code])
    return Diagnosis(cause=Cause.OTHER, sentence=_ending(return_code) + _quotation(errors))


def _is_error(line: str) -> bool:
    """Return whether a line is an error in `mongod`'s log, or not of the log (of the loader)."""
    if not line.startswith('{"t":'):
        return bool(line.strip())
    return '"s":"E"' in line or '"s":"F"' in line


def _missing_library(match: re.Match[str]) -> str:
    library = match["library"]
    sentence = f"It needs the shared library {library}, which this machine does not have."
    if library not in _PACKAGES:
        return f"{sentence} Install the package that contains it."
    debian, fedora = _PACKAGES[library]
    return (
        f"{sentence} Install it: `apt install {debian}` (Debian, Ubuntu), "
        f"`dnf install {fedora}` (Fedora)."
    )


def _always(sentence: str) -> Callable[[re.Match[str]], str]:
    return lambda _match: sentence


# The first symptom that is found counts: it is often the reason for a later one. The texts are
# those of MongoDB 6.0, seen by provoking each failure; those about newer versions are from its
# binary.
_SYMPTOMS: tuple[tuple[re.Pattern[str], Cause, Callable[[re.Match[str]], str]], ...] = (
    (
        re.compile(r"error while loading shared libraries: (?P<library>[^\s:]+): cannot open"),
        Cause.OTHER,
        _missing_library,
    ),
    (
        re.compile(r"version `(?P<version>GLIBC\w*_[\d.]+)' not found"),
        Cause.OTHER,
        lambda match: (
            f"It was built for a newer system than this one ({match['version']} is missing). "
            "Install MongoDB for this system and put its `mongod` on PATH, or set "
            "CREDIT_MONGODB_URI."
        ),
    ),
    (
        re.compile(r"Address already in use"),
        Cause.PORT_TAKEN,
        _always("Its port was taken by another program."),
    ),
    (
        re.compile(r"No space left on device|Disk quota exceeded"),
        Cause.OTHER,
        _always("The disk is full: free some space, or move the data directory to another disk."),
    ),
    (
        re.compile(r"Permission denied|Read-only file system|Operation not permitted"),
        Cause.OTHER,
        _always(
            "It may not write to the data directory: give the directory and all files in it to the "
            "user who runs the server, and check that the disk is not mounted read-only."
        ),
    ),
    (
        re.compile(r"Unable to lock the lock file"),
        Cause.DATABASE_LOCKED,
        _always("Another mongod is using the database."),
    ),
    (
        re.compile(
            r"Wrong mongod version|UPGRADE PROBLEM|unsupported WiredTiger (source )?file|"
            r"under any compatibility version"
        ),
        Cause.OTHER,
        _always(
            "The data was written by a version of MongoDB that this one cannot read: put the "
            "`mongod` that wrote them on PATH, or use another data directory."
        ),
    ),
    (
        re.compile(r"database corruption detected|WT_TRY_SALVAGE|checksum error"),
        Cause.OTHER,
        _always(
            "The database files are damaged: restore the data directory from a backup. Keep a copy "
            "of it before you try anything else."
        ),
    ),
)


def _ending(return_code: int | None) -> str:
    if return_code is None:
        return "It is still starting."
    if return_code >= 0:
        return f"It exited with status {return_code}."
    return f"It was ended by {signal.Signals(-return_code).name}."


def _quotation(errors: list[str]) -> str:
    if not errors:
        return ""
    quoted = "\n".join(f"  {_readable(line)}" for line in errors[-_QUOTED_LINES:])
    return f" Its last errors:\n{quoted}"


def _readable(line: str) -> str:
    try:
        entry = json.loads(line)
        words = f"{entry['msg'].strip()} {json.dumps(entry.get('attr', {}))}"
    except (ValueError, KeyError, TypeError, AttributeError):
        words = line.strip()
    return words[:_QUOTED_CHARACTERS]
