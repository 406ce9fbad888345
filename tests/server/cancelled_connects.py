"""Tests in which PyMongo's asyncio client cancels a connection attempt."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

# Any: the arguments and the result of any test.
TestT = TypeVar("TestT", bound=Callable[..., Any])


def sockets_are_collected(test: TestT) -> TestT:
    """Collect the sockets that a test leaves, so that the garbage collector warns in no other test.

    PyMongo 4.20 closes a socket whose connection attempt fails, but not one whose attempt is
    cancelled (`pool_shared._async_create_connection`).
    """
    collected: TestT = pytest.mark.usefixtures("collected_garbage")(test)
    ignored: TestT = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")(
        collected
    )
    return ignored
