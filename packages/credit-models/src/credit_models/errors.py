"""The errors of this package.

ValueError
└── WireError   the bytes, or the message to be written, do not fit the contract

A `WireError` is the fault of whoever made the bytes or the message, never of who reads them.
"""

from collections.abc import Sequence

from credit_models.violation import Violation


class WireError(ValueError):
    """Bytes are not a valid message, or a message cannot be written as bytes.

    The text is one sentence for the other side to read: it names types and fields of the contract
    and holds no content of strings.

    Attributes:
        violations: The fields whose integers do not fit their types; empty where the bytes are no
            message at all, and on writing.
    """

    def __init__(self, message: str, *, violations: Sequence[Violation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)
