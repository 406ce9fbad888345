"""Structured logs on standard error: text for people at a terminal, JSON for machines."""

import contextlib
import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Literal

import structlog

# Made once: `json.dumps` makes an encoder for each line.
_JSON = json.JSONEncoder(default=repr)

# At level DEBUG, h2 and hpack log each frame, and motor's driver logs each command.
LIBRARIES = ("h2", "hpack", "pymongo", "grpclib", "asyncio")

# One variable for all fields: structlog's own context has a variable for each field, which takes
# 10 µs more per call.
TASK_FIELDS: ContextVar[Mapping[str, object]] = ContextVar(
    "credit_server_log_fields", default=MappingProxyType({})
)
"""The fields of each line that the current task, or a task that it starts later, logs."""


def configure(
    log_format: Literal["auto", "console", "json"], level: str, *, worker: int | None = None
) -> None:
    """Set up all logging of the process.

    Args:
        log_format: auto is console at a terminal and JSON otherwise.
        level: The lowest level that is logged.
        worker: The number of this worker, for each line; None: this process is not one of several.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        _with_task_fields,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if worker is not None:
        shared.append(_numbered(worker))
    if console:
        shared.append(_escape_values)
        renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # Where rich is installed, its tracebacks would show local variables: headers, tokens.
            exception_formatter=structlog.dev.plain_traceback,
        )
    else:
        renderer = _render_json
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Lines(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.INFO), force=True)
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)


class _Lines(structlog.WriteLogger):
    """Writes lines, and drops those that cannot be written: a full disk must not end the caller.

    A line and its newline are one write, so that the lines of several processes do not mix.
    """

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = error = exception = critical = fatal = msg


def _with_task_fields(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the fields of the task. A field that the line sets itself keeps its value."""
    return {**TASK_FIELDS.get(), **line}


def _render_json(_logger: object, _method: str, line: structlog.typing.EventDict) -> str:
    return _JSON.encode(line)


def _numbered(worker: int) -> structlog.typing.Processor:
    """Return a processor that writes the number of the worker into each line."""

    def add(
        _logger: object, _method: str, line: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {**line, "worker": worker}

    return add


def _escape_values(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape characters that control a terminal or begin a line: clients choose paths and keys."""
    return {
        name: _escaped(value, keep="\n" if name == "exception" else "")
        if isinstance(value, str)
        else value
        for name, value in line.items()
    }


def _escaped(text: str, *, keep: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in keep
        else letter.encode("unicode_escape").decode()
        for letter in text
    )
