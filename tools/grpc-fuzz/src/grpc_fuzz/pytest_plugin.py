"""The pytest plugin: options for the tests that `grpc_fuzz.suite` makes.

Every pytest run of the environment loads this module, so it imports no other grpc_fuzz module.
"""

from typing import Any

import pytest

# The values of the options, by the name of the setting. Any: settings of several types.
OVERRIDES = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("grpc-fuzz")
    group.addoption(
        "--grpc-fuzz-max-examples", type=int, metavar="N", help="random cases per method and mode"
    )
    group.addoption(
        "--grpc-fuzz-seed", type=int, metavar="N", help="the seed that decides which cases are sent"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Store the values of the options that are given."""
    given = {name: config.getoption(f"grpc_fuzz_{name}") for name in ("max_examples", "seed")}
    config.stash[OVERRIDES] = {name: value for name, value in given.items() if value is not None}
