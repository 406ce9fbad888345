"""What is logged of files, kept instead of rendered."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:  # Any: structlog's own type
    with capture_logs() as entries:
        yield entries
