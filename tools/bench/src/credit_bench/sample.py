"""One sample: a single measurement of one system under one load."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Self

from credit_bench.cpu import LOAD

# The error of a write whose event no watcher received in time.
EVENT_MISSING = "EVENT_MISSING"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A measurement. An operation is a write, a read, or a row of a list.

    Attributes:
        operations_per_second: The operations that succeeded in the window, per second.
        warm_up_operations_per_second: The same for the time before the window.
        p50_ms: The median latency in milliseconds of the successful calls that began in the
            window, however late they ended; None without such a call.
        p99_ms: The 99th percentile of the same.
        acknowledged: The number of operations that succeeded, including those outside the window.
        errors: The number of operations that failed, by the name of their gRPC status.
        cpu_ms: The CPU time in milliseconds per operation of the window, by process.
    """

    operations_per_second: float
    warm_up_operations_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    acknowledged: int
    errors: Mapping[str, int]
    cpu_ms: Mapping[str, float]

    @property
    def failed(self) -> int:
        """Return the number of operations that failed."""
        return sum(self.errors.values())

    @property
    def load_share(self) -> float:
        """Return the share of one core that the load used."""
        return self.cpu_ms.get(LOAD, 0.0) * self.operations_per_second / 1000

    def to_json(self) -> str:
        """Return the sample as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> Self:
        """Return the sample that `to_json` wrote."""
        return cls(**json.loads(line))


def percentile(values: Sequence[float], rank: float) -> float | None:
    """Return the nearest-rank percentile: the least value that `rank` per cent do not exceed.

    The result is always one of the values, never between two of them.

    Args:
        values: The values, in any order.
        rank: The percentage, above 0 and at most 100.

    Returns:
        The percentile, or None without values.
    """
    if not values:
        return None
    return sorted(values)[ceil(len(values) * rank / 100) - 1]
