"""Describe the requests that write: what they concern, and when two are the same."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from credit_models import (
    SpendingCaps,
    TransferCreditsRequest,
)
from credit_models.operations import WRITE_TYPES, AnyWrite

Write = AnyWrite


def users_of(request: Write) -> tuple[int, ...]:
    """Return the users whose accounts a request concerns; the first one sends it."""
    assert request.user_id is not None
    if isinstance(request, TransferCreditsRequest):
        return tuple(dict.fromkeys((request.user_id, request.to_user_id or request.user_id)))
    return (request.user_id,)


def apps_of(request: Write) -> tuple[int, ...]:
    """Return the apps in which a request changes balances."""
    if isinstance(request, TransferCreditsRequest):
        return request.app_id, request.to_app_id or request.app_id
    return (request.app_id,)


def is_dry_run(request: Write) -> bool:
    """Return whether a request is only validated."""
    return bool(getattr(request, "validate_only", False))


_SAME = {"user_id", "app_id", "idempotency_key", "validate_only"}
_COMPARED: Mapping[type, Sequence[str]] = {
    write_type: [entry.name for entry in fields(write_type) if entry.name not in _SAME]
    for write_type in WRITE_TYPES
}


def differing_fields(earlier: Any, later: Any) -> list[str]:
    """Return the fields that differ, in the contract's order. Any: two requests of any types."""
    if type(earlier) is not type(later):
        return ["call"]
    return [
        name
        for name in _COMPARED[type(later)]
        if getattr(earlier, name) != getattr(later, name)
        and _meaning(earlier, name) != _meaning(later, name)
    ]


# Any: a request of any type.
_DEFAULTS: Mapping[str, Callable[[Any], object]] = {
    "priority": lambda request: 500,
    "final": lambda request: True,
    "caps": lambda request: SpendingCaps(),
    "to_user_id": lambda request: request.user_id,
    "to_app_id": lambda request: request.app_id,
}
"""The values that the contract defines for fields that are not set."""


def _meaning(request: Any, name: str) -> object:
    """Return the value of a field, or what the contract defines for an unset one."""
    value = getattr(request, name)
    if value is None and name in _DEFAULTS:
        return _DEFAULTS[name](request)
    return value
