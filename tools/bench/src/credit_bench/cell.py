"""One cell of the benchmark: who calls, and how many at once."""

from dataclasses import dataclass
from enum import StrEnum


class Users(StrEnum):
    """Whose credits the calls are about."""

    RANDOM = "random"
    HOT = "one hot"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A number of callers, each of which sends its next call when the last one was answered.

    Attributes:
        users: Whose credits.
        callers: How many calls are under way at any time, at least 1.
    """

    users: Users
    callers: int

    @property
    def name(self) -> str:
        """What reports call the cell."""
        return f"users {self.users}, callers {self.callers}"


def cells(callers: tuple[int, ...]) -> tuple[Cell, ...]:
    """Make all cells, those with random users first."""
    return tuple(Cell(users=users, callers=number) for users in Users for number in callers)
