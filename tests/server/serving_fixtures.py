"""Provide a new server for each test, and a bystander: a second client that must be served."""

from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

import pytest
from credit_models.http2_engine import Engine
from credit_testing.http2_client import Connection
from structlog.testing import capture_logs

from tests.server import serving as serving_module
from tests.server.serving import Serving, is_served, serving


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:  # Any: structlog's own type
    """Capture log lines instead of rendering them."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture(autouse=True, params=[Engine.NGHTTP2, Engine.H2])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Run a test with each library for HTTP/2."""
    found = Engine(request.param)
    monkeypatch.setattr(serving_module, "ENGINE", found)
    return found


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
async def wire(served: Serving) -> AsyncIterator[Connection]:
    async with Connection.connect(served.port) as connection:
        yield connection


@pytest.fixture
async def bystander(served: Serving) -> AsyncIterator[Connection]:
    """Open another client's connection before the test, and check it after the test."""
    async with Connection.connect(served.port) as connection:
        await is_served(connection)
        yield connection
        await is_served(connection)
