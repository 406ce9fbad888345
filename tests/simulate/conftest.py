"""Drop the logs of the simulated servers."""

from collections.abc import Iterator

import pytest
from credit_simulate.run import quiet


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield
