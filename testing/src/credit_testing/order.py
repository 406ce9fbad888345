"""Order tests so that a parallel run begins with the longest files.

If a long file begins last, the run waits for it while the other cores are idle.
"""

from collections.abc import Sequence
from itertools import islice


def longest_first(files: Sequence[str], longest: Sequence[str], workers: int) -> list[int]:
    """Return the order in which tests run, as indices.

    pytest-xdist gives each worker an equal part of the list, and a worker without tests takes some
    from the end of another one's part. So each part begins with some of the longest files.

    Args:
        files: The file of each test.
        longest: The longest files, the longest one first.
        workers: How many workers run at once, at least 1.
    """
    parts: list[list[int]] = [[] for _ in range(workers)]
    for number, name in enumerate(longest):
        part = parts[number % workers]
        part += [index for index, file in enumerate(files) if file == name]
    others = (index for index, file in enumerate(files) if file not in longest)
    ordered: list[int] = []
    for number, part in enumerate(parts):
        size = (len(files) - len(ordered)) // (workers - number)
        ordered += [*part, *islice(others, max(0, size - len(part)))]
    return ordered + list(others)
