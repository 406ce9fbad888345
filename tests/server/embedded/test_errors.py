"""The diagnosis of a `mongod` that ended; the lines are MongoDB 6.0's own, shortened."""

import json
import signal

import pytest
from credit_server.embedded.errors import Cause, diagnose

_LOADER = (
    "mongod: error while loading shared libraries: {}: cannot open shared object file: No such"
)


def _entry(severity: str, message: str, error: object) -> str:
    entry = {
        "t": {"$date": "2026-01-01T00:00:00.000+00:00"},
        "s": severity,
        "c": "CONTROL",
        "msg": message,
        "attr": {"error": error},
    }
    return json.dumps(entry, separators=(",", ":"))


def test_a_missing_libcurl_is_named_with_its_packages() -> None:
    diagnosis = diagnose(return_code=127, output=_LOADER.format("libcurl.so.4"), log="")
    for part in ("libcurl.so.4", "`apt install libcurl4`", "`dnf install libcurl`"):
        assert part in diagnosis.sentence


def test_a_missing_library_without_a_known_package_is_named() -> None:
    diagnosis = diagnose(return_code=127, output=_LOADER.format("libfoo.so.7"), log="")
    assert "libfoo.so.7" in diagnosis.sentence


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(
            "DBPathInUse: Unable to create/open the lock file: a/mongod.lock (Read-only file "
            "system). Also make sure that another mongod instance is not already running",
            "may not write",
            id="read-only",
        ),
        pytest.param(
            "DBPathInUse: Unable to create/open the lock file: a/mongod.lock (Permission denied).",
            "may not write",
            id="not permitted",
        ),
        pytest.param(
            {"error": 28, "error_str": "No space left on device"}, "disk is full", id="full"
        ),
        pytest.param(
            "UPGRADE PROBLEM: Found an invalid featureCompatibilityVersion document (ERROR: ...)",
            "written by a version of MongoDB",
            id="newer features",
        ),
        pytest.param(
            "unsupported WiredTiger file version: this build only supports versions up to 1",
            "written by a version of MongoDB",
            id="newer files",
        ),
        pytest.param(
            {"error_str": "WT_TRY_SALVAGE: database corruption detected"},
            "restore the data directory from a backup",
            id="damaged",
        ),
    ],
)
def test_a_known_error_in_the_log_gets_its_remedy(error: object, words: str) -> None:
    diagnosis = diagnose(return_code=100, output="", log=_entry("E", "terminating", error))
    assert diagnosis.cause is Cause.OTHER
    assert words in diagnosis.sentence


def test_a_system_that_is_too_old_is_not_a_missing_library() -> None:
    output = "mongod: /lib/libc.so.6: version `GLIBC_2.34' not found (required by mongod)"
    assert "GLIBC_2.34 is missing" in diagnose(return_code=1, output=output, log="").sentence


def test_a_port_that_was_taken_has_its_own_cause() -> None:
    log = _entry("E", "Error setting up listener", {"errmsg": "Address already in use"})
    assert diagnose(return_code=48, output="", log=log).cause is Cause.PORT_TAKEN


def test_a_database_that_was_taken_has_its_own_cause() -> None:
    log = _entry(
        "E",
        "DBException in initAndListen, terminating",
        "DBPathInUse: Unable to lock the lock file: a/mongod.lock (Resource temporarily "
        "unavailable). Another mongod instance is already running on the a directory",
    )
    assert diagnose(return_code=100, output="", log=log).cause is Cause.DATABASE_LOCKED


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "out of memory"),
        (signal.SIGILL, "AVX"),
        (signal.SIGABRT, "ended by SIGABRT"),
    ],
)
def test_a_signal_is_explained(number: signal.Signals, words: str) -> None:
    assert words in diagnose(return_code=-number, output="", log="").sentence


def test_for_any_other_end_only_the_last_errors_are_quoted() -> None:
    log = "\n".join(
        [
            _entry("E", "first", 1),
            _entry("E", "second", 2),
            _entry("I", "information", 0),
            _entry("F", "third", {"code": 3}),
            _entry("F", "fourth", "x" * 1000),
        ]
    )
    diagnosis = diagnose(return_code=14, output="", log=log)
    first, *quoted = diagnosis.sentence.splitlines()
    assert first == "It exited with status 14. Its last errors:"
    assert [line.split()[0] for line in quoted] == ["second", "third", "fourth"]
    assert '"code": 3' in quoted[1]
    assert len(quoted[2]) < 320


def test_a_line_of_information_that_mentions_an_error_is_ignored() -> None:
    log = _entry("I", "Slow query", "No space left on device")
    assert diagnose(return_code=2, output="", log=log).sentence == "It exited with status 2."


@pytest.mark.parametrize(
    "line", ['{"t":1,"s":"E" cut off', '{"t":1,"s":"E"}', '{"t":1,"s":"F","msg":5}']
)
def test_a_line_that_is_not_a_log_entry_is_quoted_unchanged(line: str) -> None:
    assert line in diagnose(return_code=1, output="", log=line).sentence
