"""A counter by one label, some of which others count: they are read when somebody looks."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily

ValueT = TypeVar("ValueT", bound=str)


class Tally:
    """A counter of Prometheus with one label.

    Prometheus's own cannot be read from elsewhere, and what is counted anyway need not be counted
    twice for each event.
    """

    def __init__(
        self, name: str, documentation: str, label: str, registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label = label
        self._own: Counter[str] = Counter()
        self._others: list[Callable[[], Mapping[str, int]]] = []
        registry.register(self)

    def expect(self, *values: str) -> None:
        """Show values of the label from the start, so that a first event is an increase."""
        for value in values:
            self._own[value] += 0

    def add(self, value: str) -> None:
        """Count an event. Values are the server's own words, never what a client has sent."""
        self._own[value] += 1

    def watch(self, counts: Callable[[], Mapping[ValueT, int]]) -> None:
        """Add what somebody else counts; it only ever grows, and is read from any thread."""
        # A copy: a thread of its own reads it, and dict copies without letting others in.
        self._others.append(lambda: {**cast(Mapping[str, int], counts())})

    def totals(self) -> Mapping[str, int]:
        """Return what has been counted, here and elsewhere, from any thread."""
        total = self._own.copy()
        for counts in self._others:
            total.update(counts())
        return total

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Tell Prometheus."""
        family = CounterMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, count in self.totals().items():
            family.add_metric([value], count)
        yield family
