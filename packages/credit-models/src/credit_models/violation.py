"""One field that holds what it may not hold."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One field that breaks its constraint, or whose bytes do not fit its type.

    `field` is the contract's name of the field, with a path where it is nested, such as
    `balances[0].app_id`. `description` says what it takes. Of a string that was sent it names at
    most one character, which is not allowed.
    """

    field: str
    description: str
