"""A server that an OpenTelemetry SDK observes, and a connection to it."""

from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

import pytest
from credit_testing.http2_client import Connection
from structlog.testing import capture_logs

from tests.server.telemetry.observed import Observed, Sdk, observed


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:  # Any: structlog's own type
    """Collect log lines instead of rendering them."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def sdk() -> Sdk:
    return Sdk()


@pytest.fixture
async def server(sdk: Sdk) -> AsyncIterator[Observed]:
    async with observed(sdk.telemetry()) as running:
        yield running


@pytest.fixture
async def wire(server: Observed) -> AsyncIterator[Connection]:
    async with Connection.connect(server.port) as connection:
        yield connection
