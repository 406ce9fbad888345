"""The request id: one name for a call in the app, in the SDK's errors and in the server's logs."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# What the server takes over into its logs; it would replace another id by one of its own.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_given: ContextVar[str | None] = ContextVar("credit_client.request_id", default=None)


@contextmanager
def request_id(name: str) -> Iterator[str]:
    """Gives all calls inside a `with` block one name, instead of a new one for each.

    For an app that has such a name already, say from a request that it serves itself. The name
    belongs to the task, and to those that are started inside. Without, each call gets a UUID.

    Args:
        name: 1 to 128 letters, digits, dots, underscores and hyphens.

    Raises:
        ValueError: The name is none of that kind.
    """
    if _REQUEST_ID.fullmatch(name) is None:
        raise ValueError(
            "a request id has 1 to 128 letters, digits, dots, underscores and hyphens,"
            f" which {name!r} has not"
        )
    before = _given.set(name)
    try:
        yield name
    finally:
        _given.reset(before)


def current_request_id() -> str:
    """The id for a call that begins now: the one that was given, else a new one."""
    return given_request_id() or uuid.uuid4().hex


def given_request_id() -> str | None:
    """The id that the app has given; None where it has not.

    It names what is refused before a call begins: a new one would be found nowhere else.
    """
    return _given.get()
