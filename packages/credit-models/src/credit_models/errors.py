"""The errors of this package.

ValueError
└── WireError   the bytes, or the message to be written, do not fit the contract

A `WireError` is the fault of whoever made the bytes or the message, never of who reads them.
"""


class WireError(ValueError):
    """Bytes are not a valid message, or a message cannot be written as bytes.

    The text is one sentence for the other side to read: it names types and fields of the contract
    and never repeats what was sent.
    """
