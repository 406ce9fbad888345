"""The pytest plugin: options for the tests that `grpc_fuzz.suite` makes.

Every pytest run of the environment loads this module, which is why it imports nothing else of ours.
"""

from typing import Any

import pytest

# What the command line says, by the name of the setting. Any: settings of several types.
OVERRIDES = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options."""
    group = parser.getgroup("grpc-fuzz")
    group.addoption(
        "--grpc-fuzz-max-examples",
        type=int,
        metavar="N",
        help="random cases for each method and mode",
    )
    group.addoption(
        "--grpc-fuzz-seed", type=int, metavar="N", help="makes other cases; the same for the same N"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Notes what the options say."""
    given = {name: config.getoption(f"grpc_fuzz_{name}") for name in ("max_examples", "seed")}
    config.stash[OVERRIDES] = {name: value for name, value in given.items() if value is not None}
