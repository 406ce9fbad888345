"""Structured logs on standard error: for people at a terminal, JSON for machines."""

import logging
import sys
from typing import Literal

import structlog


def configure(log_format: Literal["auto", "console", "json"], level: str) -> None:
    """Set up all logging of the process.

    Args:
        log_format: auto is console at a terminal and JSON otherwise.
        level: The least level that is logged.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        # The request id and the trace of the call that logs.
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if console:
        # The console renderer formats exceptions by itself. Its default, where rich is installed,
        # shows local variables as well: headers, and the token in them.
        renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    else:
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
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
    # h2 and hpack log each frame at debug; motor's driver logs each command.
    for chatty in ("h2", "hpack", "pymongo", "grpclib", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
