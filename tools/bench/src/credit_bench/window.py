"""The window of a measurement by real clients: counts what ends in it."""

import time
from collections import Counter
from collections.abc import Mapping

from credit_bench.sample import Sample, percentile


class Window:
    """A warm-up and the measured time after it, both from now on.

    Threads may record calls at the same time: each call is one append to a list.

    Args:
        warm_up_seconds: The time before the measured time.
        seconds: The length of the measured time.
    """

    def __init__(self, warm_up_seconds: float, seconds: float) -> None:
        self.begin = time.perf_counter() + warm_up_seconds
        self.end = self.begin + seconds
        self._warm_up_seconds = warm_up_seconds
        self._seconds = seconds
        self._calls: list[tuple[float, float, int]] = []
        self._errors: list[str] = []

    @property
    def operations(self) -> int:
        """Return the number of operations that have ended in the measured time."""
        return sum(count for _, ended, count in self._calls if self.begin <= ended < self.end)

    def succeeded(self, started: float, operations: int = 1) -> None:
        """Record a call that ends now.

        Args:
            started: When the call began, by `time.perf_counter`.
            operations: The number of its operations.
        """
        self._calls.append((started, time.perf_counter(), operations))

    def failed(self, error: str, operations: int = 1) -> None:
        """Record the failure of a call.

        Args:
            error: The name of the error.
            operations: The number of its operations.
        """
        self._errors += [error] * operations

    def sample(self, cpu_ms: Mapping[str, float]) -> Sample:
        """Return what was measured.

        Args:
            cpu_ms: The CPU time in milliseconds per operation of the measured time, by process.
        """
        latencies_ms = [
            (ended - started) * 1000
            for started, ended, _ in self._calls
            if self.begin <= started < self.end
        ]
        warmed_up = sum(count for _, ended, count in self._calls if ended < self.begin)
        return Sample(
            operations_per_second=self.operations / self._seconds,
            warm_up_operations_per_second=(
                warmed_up / self._warm_up_seconds if self._warm_up_seconds else 0.0
            ),
            p50_ms=percentile(latencies_ms, 50),
            p99_ms=percentile(latencies_ms, 99),
            acknowledged=sum(count for _, _, count in self._calls),
            errors=Counter(self._errors),
            cpu_ms=cpu_ms,
        )
