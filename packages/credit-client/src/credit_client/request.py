"""The calls of the contract, and what each sends: a checked request and a request id."""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from credit_models import (
    AppId,
    Balance,
    BatchWriteRequest,
    BatchWriteResponse,
    CreditRequest,
    CreditTransaction,
    Empty,
    Purchase,
    PurchaseRequest,
    UserCredits,
    UserId,
    WriteRequest,
    WriteResponse,
)
from credit_models.constraints import Violation, violations

from credit_client.errors import InvalidField
from credit_client.transport import Method

RequestT = TypeVar("RequestT", CreditRequest, PurchaseRequest, UserId, AppId)

Values = Mapping[str, int | str | None]

_SERVICE = "/credit.v1.CreditService"
_LEDGER = "/credit.v1.LedgerService"

ADD = Method(path=f"{_SERVICE}/AddCredits", request_type=CreditRequest, reply_type=Empty)
USE = Method(path=f"{_SERVICE}/UseCredits", request_type=PurchaseRequest, reply_type=Empty)
USER_CREDITS = Method(
    path=f"{_SERVICE}/GetUserCredits", request_type=UserId, reply_type=UserCredits
)
BALANCE = Method(path=f"{_SERVICE}/GetAppBalance", request_type=AppId, reply_type=Balance)
PURCHASES = Method(path=f"{_SERVICE}/ListUserPurchases", request_type=UserId, reply_type=Purchase)
TRANSACTIONS = Method(
    path=f"{_SERVICE}/ListUserTransactions", request_type=UserId, reply_type=CreditTransaction
)
BATCH_WRITE = Method(
    path=f"{_LEDGER}/BatchWrite", request_type=BatchWriteRequest, reply_type=BatchWriteResponse
)
WRITE = Method(path=f"{_LEDGER}/Write", request_type=WriteRequest, reply_type=WriteResponse)

# The ids that the server writes to its logs. It replaces any other id with one of its own.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_given_id: ContextVar[str | None] = ContextVar("credit_client.request_id", default=None)


def build(message_type: type[RequestT], values: Values) -> RequestT:
    """Build a valid request: the server's own rules are checked before anything is sent.

    Args:
        message_type: The request's class.
        values: A value for each field; None leaves an optional field unset.

    Raises:
        InvalidField: Values break the contract's constraints. The error names all broken fields,
            as the server would.
        TypeError: A value has another type than its field, or is None where the field is required.
    """
    request: RequestT = message_type()
    for name, value in values.items():
        unset = getattr(request, name)
        if value is None and unset is None:
            continue
        expected = str if isinstance(unset, str) else int
        if not isinstance(value, expected) or isinstance(value, bool):
            raise TypeError(f"{name} must be {expected.__name__}, not {type(value).__name__}")
        # Assigned and not passed to the constructor, which would reject values that do not fit
        # the wire one at a time, and accept "7" and 7.0 for 7.
        setattr(request, name, value)
    broken = violations(request)
    unencodable = _unencodable(values)
    if unencodable:
        named = {violation.field for violation in broken}
        broken += tuple(found for found in unencodable if found.field not in named)
    if broken:
        raise InvalidField(describe(broken), violations=broken, request_id=given_request_id())
    return request


def describe(broken: Sequence[Violation]) -> str:
    """Describe in one sentence what the broken fields accept."""
    return "; ".join(f"{violation.field} {violation.description}" for violation in broken)


@contextmanager
def request_id(name: str) -> Iterator[str]:
    """Give all calls inside a `with` block one request id, instead of a new one for each call.

    Use it where the app has an id already, such as that of a request that the app serves. The id
    applies to the current task and to the tasks that are started inside the block. Outside such a
    block each call gets a UUID.

    Args:
        name: 1 to 128 letters, digits, dots, underscores and hyphens.

    Raises:
        ValueError: The name has another form.
    """
    if _REQUEST_ID.fullmatch(name) is None:
        raise ValueError(
            "a request id has 1 to 128 letters, digits, dots, underscores and hyphens,"
            f" and {name!r} does not"
        )
    before = _given_id.set(name)
    try:
        yield name
    finally:
        _given_id.reset(before)


def current_request_id() -> str:
    """Return the id for a call that begins now: the one that the app has given, or a new one."""
    return _given_id.get() or uuid.uuid4().hex


def given_request_id() -> str | None:
    """Return the id that the app has given, or None.

    The error of a request that is rejected before its call begins carries this id. A new id would
    be found in no log.
    """
    return _given_id.get()


def _unencodable(values: Values) -> list[Violation]:
    """Find values that cannot be sent.

    All numbers of requests are unsigned. A Python string may hold halves of surrogate pairs, for
    which UTF-8 has no bytes.
    """
    found = []
    for name, value in values.items():
        if isinstance(value, int) and value < 0:
            found.append(Violation(field=name, description=f"must be 0 or more, got {value}"))
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                found.append(Violation(field=name, description="must be valid Unicode text"))
    return found
