"""Sums of the entries of the last minutes by user, app or type, in bounded memory."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

_KeyT = TypeVar("_KeyT")

# A window is made of this many equal steps. Entries leave it a step at a time.
STEPS = 30

# The most keys with sums of their own: 13 MB if each has sums in every step (CPython 3.11).
KEYS_MAX = 2_000


@dataclass(kw_only=True, slots=True)
class Sums:
    """The sums of some entries.

    Attributes:
        entries: The number of entries.
        credits_in: The sum of the positive effects.
        credits_out: The sum of the negative effects, as a positive number.
    """

    entries: int = 0
    credits_in: int = 0
    credits_out: int = 0

    def add(self, other: "Sums", sign: int = 1) -> None:
        """Add the numbers of other sums, or subtract them."""
        self.entries += sign * other.entries
        self.credits_in += sign * other.credits_in
        self.credits_out += sign * other.credits_out


@dataclass(frozen=True, kw_only=True, slots=True)
class Busy(Generic[_KeyT]):
    """The entries of a key in the window.

    Attributes:
        key: The key.
        sums: The sums of the entries.
        last_at: When the last entry was created.
    """

    key: _KeyT
    sums: Sums
    last_at: datetime


@dataclass(slots=True)
class _Step(Generic[_KeyT]):
    number: int
    by_key: dict[_KeyT, Sums] = field(default_factory=dict)
    others: Sums = field(default_factory=Sums)


class Activity(Generic[_KeyT]):
    """Adds up the entries of a window that ends now.

    When there are too many keys, the half with the fewest entries is merged into `others`. If a
    merged key has entries again, its sums start at 0. So `total` is always exact, but if `others`
    is not empty, the sums of a key can be too low.

    Attributes:
        total: The sums of all entries in the window.
        others: The sums of the entries in the window that belong to no key.
    """

    def __init__(self, *, window_seconds: float, keys_max: int = KEYS_MAX) -> None:
        """Start with an empty window.

        Args:
            window_seconds: The length of the window.
            keys_max: The most keys with sums of their own, at least 2.
        """
        self.total = Sums()
        self.others = Sums()
        self._step_seconds = window_seconds / STEPS
        self._keys_max = keys_max
        self._steps: deque[_Step[_KeyT]] = deque()
        self._by_key: dict[_KeyT, Sums] = {}
        self._last_at: dict[_KeyT, datetime] = {}

    def add(self, key: _KeyT, effect: int, *, seconds: float, created_at: datetime) -> None:
        """Add an entry.

        Args:
            key: The user, app or type that it counts for.
            effect: Its effect on the balance.
            seconds: The time at which it counts, not before that of the previous entry.
            created_at: When it was created.
        """
        self.move(seconds)
        number = self._number(seconds)
        if not self._steps or self._steps[-1].number != number:
            self._steps.append(_Step(number))
        if key not in self._by_key and len(self._by_key) >= self._keys_max:
            self._drop_half()
        entry = Sums(entries=1, credits_in=max(0, effect), credits_out=max(0, -effect))
        of_step = self._steps[-1].by_key.setdefault(key, Sums())
        for sums in (of_step, self._by_key.setdefault(key, Sums()), self.total):
            sums.add(entry)
        self._last_at[key] = created_at

    def move(self, seconds: float) -> None:
        """Move the window to a time: drop the entries that have left it."""
        first = self._number(seconds) - STEPS + 1
        while self._steps and self._steps[0].number < first:
            step = self._steps.popleft()
            self.others.add(step.others, -1)
            self.total.add(step.others, -1)
            for key, sums in step.by_key.items():
                self.total.add(sums, -1)
                self._by_key[key].add(sums, -1)
                if not self._by_key[key].entries:
                    del self._by_key[key], self._last_at[key]

    def covered_seconds(self, seconds: float, *, since: float) -> float:
        """Return how much time of the window at `seconds` has passed since the count began."""
        begin = (self._number(seconds) - STEPS + 1) * self._step_seconds
        return seconds - max(begin, since)

    def busiest(self, limit: int | None = None) -> list[Busy[_KeyT]]:
        """Return the keys with the most entries; among equal keys, the latest entry wins."""
        keys = sorted(self._by_key, key=self._rank, reverse=True)[:limit]
        return [Busy(key=key, sums=self._by_key[key], last_at=self._last_at[key]) for key in keys]

    def _rank(self, key: _KeyT) -> tuple[int, datetime]:
        return self._by_key[key].entries, self._last_at[key]

    def _number(self, seconds: float) -> int:
        return int(seconds // self._step_seconds)

    def _drop_half(self) -> None:
        for busy in self.busiest()[self._keys_max // 2 :]:
            self.others.add(busy.sums)
            del self._by_key[busy.key], self._last_at[busy.key]
            for step in self._steps:
                sums = step.by_key.pop(busy.key, None)
                if sums is not None:
                    step.others.add(sums)
