"""Resume tokens of `Watch`: a position, and the user and the app that are watched.

Like a page token, it needs no secret: the caller's permissions are checked for each stream, and a
forged token returns nothing that the caller may not read. So a token is valid on every server, even
after a restart.
"""

import base64
import binascii
import struct
from typing import NamedTuple

# The version of the format, the user and the app; the position follows.
_FORMAT = struct.Struct(">BII")
_VERSION = 1
_SEQUENCE = struct.Struct(">Q")

# The largest `sequence` that the store has.
_SEQUENCE_MAX = 2**63 - 1


class ResumeTokenInvalid(Exception):
    """A resume token belongs to another user or app."""


class Scope(NamedTuple):
    """What is watched: a user, a user in an app, or an app.

    Attributes:
        user_id: The user; 0: all users of the app.
        app_id: The app; 0: all apps of the user.
    """

    user_id: int
    app_id: int


def sequence_token(scope: Scope, sequence: int) -> str:
    """Return the token of a user's position: the `sequence` of the last transaction."""
    return _text(scope, _SEQUENCE.pack(sequence))


def log_token(scope: Scope, position: bytes) -> str:
    """Return the token of an app's position in the log."""
    return _text(scope, position)


def sequence_of(token: str, scope: Scope) -> int:
    """Return the sequence in the token of a user.

    Raises:
        ResumeTokenInvalid: The token was not made for the scope.
    """
    try:
        (sequence,) = _SEQUENCE.unpack(position_of(token, scope))
    except struct.error:
        raise ResumeTokenInvalid from None
    if sequence > _SEQUENCE_MAX:
        raise ResumeTokenInvalid
    return int(sequence)


def position_of(token: str, scope: Scope) -> bytes:
    """Return the position in the token of an app.

    Raises:
        ResumeTokenInvalid: The token was not made for the scope.
    """
    try:
        data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        version, user_id, app_id = _FORMAT.unpack_from(data)
    except (ValueError, binascii.Error, struct.error):
        raise ResumeTokenInvalid from None
    position = data[_FORMAT.size :]
    if version != _VERSION or (user_id, app_id) != scope or not position:
        raise ResumeTokenInvalid
    return position


def _text(scope: Scope, position: bytes) -> str:
    data = _FORMAT.pack(_VERSION, *scope) + position
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
