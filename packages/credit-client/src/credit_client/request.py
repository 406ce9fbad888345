"""Puts a request together and checks it with the server's own rules, before anything is sent."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from credit_models import AppId, CreditRequest, PurchaseRequest, UserId
from credit_models.constraints import Violation, violations

from credit_client.correlation import given_request_id
from credit_client.errors import InvalidField

RequestT = TypeVar("RequestT", CreditRequest, PurchaseRequest, UserId, AppId)


def build(message_type: type[RequestT], values: Mapping[str, int | str | None]) -> RequestT:
    """Makes a valid request.

    Args:
        message_type: The request's class.
        values: A value for each field; None leaves one that is optional unset.

    Raises:
        InvalidField: Values break the contract's constraints; it names them all, as the
            server would.
        TypeError: A value has another type than its field, or is None where it must not be.
    """
    request: RequestT = message_type()
    for name, value in values.items():
        unset = getattr(request, name)
        if value is not None or unset is not None:
            _check_type(name, value, str if isinstance(unset, str) else int)
            # Assigned and not passed to the constructor, which would refuse values that do not fit
            # the wire one at a time, and take "7" and 7.0 for 7.
            setattr(request, name, value)
    broken = violations(request)
    named = {violation.field for violation in broken}
    broken += tuple(found for found in _unencodable(values) if found.field not in named)
    if broken:
        raise InvalidField(describe(broken), violations=broken, request_id=given_request_id())
    return request


def describe(broken: Sequence[Violation]) -> str:
    """Says in a sentence what the fields take."""
    return "; ".join(f"{violation.field} {violation.description}" for violation in broken)


def _check_type(name: str, value: object, expected: type) -> None:
    if not isinstance(value, expected) or isinstance(value, bool):
        raise TypeError(f"{name} must be {expected.__name__}, not {type(value).__name__}")


def _unencodable(values: Mapping[str, int | str | None]) -> list[Violation]:
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
