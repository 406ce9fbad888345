"""Fixtures for the tests of apps: a credit service in memory, and a client of it.

pytest loads this module by its entry point, `credit_client`; `-p no:credit_client` leaves it out.
"""

from collections.abc import Iterator

import pytest

from credit_client.sync import CreditClient
from credit_client.sync.testing import FakeCreditService, fake_credits


@pytest.fixture
def credit_service() -> FakeCreditService:
    """A service in memory that starts empty; `credit_service.clock.advance(…)` moves its clock.

    An asynchronous test opens its client: `async with fake_credits(credit_service) as credits:`.
    """
    return FakeCreditService()


@pytest.fixture
def credits(credit_service: FakeCreditService) -> Iterator[CreditClient]:  # noqa: A001
    """A synchronous client of `credit_service`."""
    with fake_credits(credit_service) as client:
        yield client
