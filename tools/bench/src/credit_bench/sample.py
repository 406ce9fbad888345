"""One sample: a single measurement of one server in one cell by the load generator."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A measurement.

    Attributes:
        operations_per_second: The successful calls that ended in the window, per second.
        p50_ms: The median latency in milliseconds of the successful calls that began in the
            window, however late they ended; None without such a call.
        p99_ms: The 99th percentile of the same.
        acknowledged: The number of successful calls, including those outside the window.
        errors: The number of failed calls, by the name of their gRPC status.
        generator_cpu_share: The share of one core that the load generator used in the window.
    """

    operations_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    acknowledged: int
    errors: Mapping[str, int]
    generator_cpu_share: float

    @property
    def failed(self) -> int:
        """Return the number of failed calls."""
        return sum(self.errors.values())

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
