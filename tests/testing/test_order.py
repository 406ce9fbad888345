"""A parallel run begins with the longest files, and runs each test once."""

from pathlib import Path

import pytest
from credit_testing.order import longest_first

from tests import conftest

LONGEST = ["longest", "long", "absent", "also long"]


@pytest.mark.parametrize("workers", range(1, 9))
@pytest.mark.parametrize("short", [0, 1, 2, 3, 50])
def test_each_test_runs_once_and_those_of_a_file_stay_in_their_order(
    workers: int, short: int
) -> None:
    files = ["also long", *["short"] * short, "long", "longest", "long"]
    order = longest_first(files, LONGEST, workers)
    assert sorted(order) == list(range(len(files)))
    for name in set(files):
        own = [index for index in order if files[index] == name]
        assert own == sorted(own)


def test_the_part_of_each_worker_begins_with_long_files() -> None:
    files = [*["short"] * 91, *["also long"] * 3, "long", *["longest"] * 5]
    order = [files[index] for index in longest_first(files, LONGEST, 3)]
    # Of 100 tests, pytest-xdist gives 33, 33 and 34 to three workers.
    assert order[:9] == [*["longest"] * 5, *["also long"] * 3, "short"]
    assert order[33:35] == ["long", "short"]
    assert order[66:].count("short") == 34


def test_the_longest_files_exist() -> None:
    folder = Path(conftest.__file__).parent
    assert [name for name in conftest.LONGEST if not (folder / name).exists()] == []
