"""The errors of this package, and the violation that names one broken field.

ValueError
└── WireError   the bytes, or the message to be written, do not fit the contract

A `WireError` is the fault of the side that made the bytes or the message, never of the reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One field that breaks its constraint, or whose bytes do not fit its type.

    Attributes:
        field: The field's name in the contract, with a path where the field is nested, such as
            `balances[0].app_id`.
        description: What the field accepts. It quotes at most one character of a string that was
            sent: one that is not allowed.
    """

    field: str
    description: str


class WireError(ValueError):
    """Bytes are not a valid message, or a message cannot be written as bytes.

    The text is one sentence for the other side to read. It names types and fields of the contract
    and quotes no content of strings.

    Attributes:
        violations: The fields whose integers or times do not fit their types, or whose number of
            items breaks a constraint. Empty where the bytes are not a message at all, and where
            writing fails.
    """

    def __init__(self, message: str, *, violations: Sequence[Violation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)
