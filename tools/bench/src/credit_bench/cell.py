"""One cell of the benchmark: whose credits are used, and the number of concurrent callers."""

from dataclasses import dataclass
from enum import StrEnum


class Users(StrEnum):
    """The users whose credits the calls change."""

    RANDOM = "random"
    HOT = "one hot"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A number of callers, each of which sends its next call when the last one has ended.

    Attributes:
        users: The users whose credits the calls change.
        callers: The number of concurrent calls, at least 1.
    """

    users: Users
    callers: int

    @property
    def name(self) -> str:
        """Return the name of the cell in reports."""
        return f"users {self.users}, callers {self.callers}"


def cells(callers: tuple[int, ...]) -> tuple[Cell, ...]:
    """Return all cells, those with random users first."""
    return tuple(Cell(users=users, callers=number) for users in Users for number in callers)
