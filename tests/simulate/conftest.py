"""Drop the logs of the simulated servers."""

import sys
from collections.abc import Iterator

import pytest
from credit_simulate.run import quiet
from structlog._config import BoundLoggerLazyProxy


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    _forget_loggers()
    with quiet():
        yield
    _forget_loggers()


def _forget_loggers() -> None:
    """Forget the loggers that structlog has cached: an earlier test may have closed their file."""
    for name, module in list(sys.modules.items()):
        logger = getattr(module, "log", None) if name.startswith("credit_server.") else None
        if isinstance(logger, BoundLoggerLazyProxy):
            vars(logger).pop("bind", None)
