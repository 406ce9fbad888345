"""Build the requests that attacks send: valid calls, which an attack changes in one place."""

from credit_models import AppId, CreditRequest, UserId
from credit_models.codec import encode
from credit_testing import frames
from credit_testing.calls import SERVICE, call_headers, framed
from credit_testing.frames import Header

BALANCE = SERVICE + "GetAppBalance"
ADD = SERVICE + "AddCredits"
TRANSACTIONS = SERVICE + "ListUserTransactions"

APP_ID = 1
HISTORY_USER_ID = 4_000_000_001
"""The user whose long history attacks read."""


def call_block(path: str, *more: Header) -> bytes:
    """Return the header block of a valid call."""
    return frames.header_block(call_headers(path, *more))


def balance_message() -> bytes:
    """Return a request for an app's balance, the cheapest call."""
    return framed(encode(AppId(app_id=APP_ID)))


def history_message() -> bytes:
    """Return a request for the long history."""
    return framed(encode(UserId(user_id=HISTORY_USER_ID)))


def add_message(padding: bytes = b"") -> bytes:
    """Return a request that grants one credit.

    Args:
        padding: The value of an unknown field that is appended to the request.
    """
    # Field 15, of type bytes: receivers skip unknown fields.
    unknown = b"" if not padding else b"\x7a" + _varint(len(padding)) + padding
    request = CreditRequest(user_id=1, app_id=APP_ID, credits=1, created_by=1)
    return framed(encode(request) + unknown)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes(encoded) + bytes([number])
