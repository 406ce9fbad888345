"""One sample: what the load generator saw of one server in one cell, once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A measurement.

    Attributes:
        operations_per_second: Successful calls that ended in the window, per second.
        p50_ms: The median latency in milliseconds of the successful calls that began in the
            window, however late they ended; None where there was none.
        p99_ms: The 99th percentile of the same.
        acknowledged: All calls that succeeded, those before and after the window included.
        errors: How many calls failed, by the name of their gRPC status.
        generator_cpu_share: How much of one core the load generator itself used in the window.
    """

    operations_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    acknowledged: int
    errors: Mapping[str, int]
    generator_cpu_share: float

    @property
    def failed(self) -> int:
        """How many calls failed."""
        return sum(self.errors.values())

    def to_json(self) -> str:
        """Write the sample as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> Self:
        """Read what `to_json` wrote."""
        return cls(**json.loads(line))


def percentile(values: Sequence[float], rank: float) -> float | None:
    """Return the least value that at least `rank` per cent of the values do not exceed.

    This is the nearest-rank percentile: always one of the values, never between two.

    Args:
        values: In any order.
        rank: Above 0, up to 100.

    Returns:
        The value, or None where there are none.
    """
    if not values:
        return None
    return sorted(values)[ceil(len(values) * rank / 100) - 1]
