"""Logs: JSON for machines and text for people, in one stream and with the tracebacks of errors."""

import errno
import io
import json
import logging
import sys
from contextvars import copy_context
from datetime import datetime
from typing import Any, Literal

import pytest
import structlog
from credit_server import log, supervision

Format = Literal["auto", "console", "json"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _configured(
    monkeypatch: pytest.MonkeyPatch,
    log_format: Format,
    level: str = "info",
    stream: io.StringIO | None = None,
) -> io.StringIO:
    """Configure logging; return the stream that stands for standard error."""
    stream = stream or io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(log_format, level)
    return stream


# Any: what JSON holds.
def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_has_one_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _configured(monkeypatch, "json")
    structlog.get_logger("x").info("call", method="/a", milliseconds=1.5, text="two\nlines")
    (line,) = _lines(stream)
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() is not None
    assert line == {
        "event": "call",
        "level": "info",
        "method": "/a",
        "milliseconds": 1.5,
        "text": "two\nlines",
    }


@pytest.mark.parametrize("own", [True, False], ids=["own", "library's"])
def test_a_worker_s_lines_have_its_number(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _configured(monkeypatch, "json")
    log.configure("json", "info", worker=3)
    if own:
        structlog.get_logger("x").warning("something")
    else:
        logging.getLogger("library").warning("something")
    (line,) = _lines(stream)
    assert line["worker"] == 3


def test_a_line_and_its_end_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    _configured(monkeypatch, "json", stream=Stream())
    structlog.get_logger("x").info("long", text="x" * 100_000)
    (line,) = written  # several processes share standard error
    assert line.endswith("}\n")


def test_logs_of_libraries_have_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _configured(monkeypatch, "json")
    logging.getLogger("library").warning("%d things", 3)
    (line,) = _lines(stream)
    assert (line["event"], line["level"]) == ("3 things", "warning")
    assert line["timestamp"]


@pytest.mark.parametrize("own", [True, False], ids=["own", "library's"])
def test_a_traceback_is_part_of_its_line(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _configured(monkeypatch, "json")
    logger = structlog.get_logger("x") if own else logging.getLogger("x")
    try:
        raise ZeroDivisionError("why")
    except ZeroDivisionError as error:
        logger.error("call", exc_info=error)
    (line,) = _lines(stream)
    assert "ZeroDivisionError: why" in line["exception"]
    assert "test_log.py" in line["exception"]


@pytest.mark.parametrize(
    ("log_format", "terminal", "is_json"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("console", True, False),
        ("console", False, False),
        ("json", True, True),
        ("json", False, True),
    ],
)
def test_auto_is_text_at_a_terminal_and_json_elsewhere(
    log_format: Format, terminal: bool, is_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = _configured(monkeypatch, log_format, stream=Terminal() if terminal else io.StringIO())
    structlog.get_logger("x").info("hello", who="you")
    logging.getLogger("x").info("hello")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("{") is is_json for line in lines)


def test_text_is_coloured_at_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, coloured in ((Terminal(), True), (io.StringIO(), False)):
        _configured(monkeypatch, "console", stream=stream)
        structlog.get_logger("x").info("hello")
        assert ("\x1b[" in stream.getvalue()) is coloured


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_lines_below_the_level_are_not_logged(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _configured(monkeypatch, "json", level)
    logger = structlog.get_logger("x")
    levels = ["debug", "info", "warning", "error"]
    for name in levels:
        getattr(logger, name)(name)
    assert [line["event"] for line in _lines(stream)] == levels[levels.index(level) :]


def test_libraries_do_not_fill_the_log_even_at_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _configured(monkeypatch, "json", "debug")
    for name in ("h2", "hpack.hpack", "pymongo.command", "grpclib.server", "asyncio"):
        logging.getLogger(name).info("one of very many")
        logging.getLogger(name).debug("one of very many")
    assert not stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_values_that_are_bound_to_a_call_are_in_each_of_its_lines(
    log_format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = _configured(monkeypatch, log_format)

    def call() -> None:
        log.TASK_FIELDS.set({"request_id": "the-call"})
        structlog.get_logger("ours").warning("of ours")
        logging.getLogger("theirs").warning("of a library's")

    copy_context().run(call)
    structlog.get_logger("ours").warning("of no call")
    bound, library, free = stream.getvalue().splitlines()
    assert "the-call" in bound
    assert "the-call" in library
    assert "the-call" not in free


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("own", [True, False], ids=["own", "library's"])
def test_a_traceback_shows_no_variables(
    own: bool, log_format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = _configured(monkeypatch, log_format)
    logger = structlog.get_logger("x") if own else logging.getLogger("x")

    def serve(headers: dict[str, str]) -> None:
        raise ZeroDivisionError(f"of {len(headers)}")

    try:
        serve({"authorization": "".join(["Bearer ", "se", "cret"])})
    except ZeroDivisionError as error:
        logger.error("call", exc_info=error)
    assert "ZeroDivisionError: of 1" in stream.getvalue()
    assert "secret" not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("own", [True, False], ids=["own", "library's"])
def test_no_text_of_a_client_controls_the_terminal_or_begins_a_line(
    own: bool, log_format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = _configured(monkeypatch, log_format)
    odd = "/\x1b[2J\x9b1m\r\n2026 forged\u2028\u202e"
    try:
        raise ValueError(odd.replace("\n", ""))
    except ValueError as error:
        if own:
            structlog.get_logger("x").error("call", method=odd, exc_info=error)
        else:
            logging.getLogger("x").error(odd, exc_info=error)
    written = stream.getvalue()
    assert not [letter for letter in "\x1b\x9b\r\u2028\u202e" if letter in written]
    assert not [line for line in written.split("\n") if line.startswith("2026 forged")]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_full_disk_does_not_end_the_caller(
    log_format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(logging, "raiseExceptions", False)  # the library would print it
    _configured(monkeypatch, log_format, stream=Full())
    structlog.get_logger("x").warning("hello")
    logging.getLogger("x").warning("hello")


@pytest.mark.parametrize("time", ["first", "second"])
def test_the_loggers_of_modules_write_to_the_stream_of_this_test(
    time: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """structlog caches loggers, and `tests/conftest.py` clears those of the previous test."""
    stream = _configured(monkeypatch, "json")
    supervision.log.info(time)
    (line,) = _lines(stream)
    assert line["event"] == time
