"""Describe the requests that write: what they concern, and when two are the same."""

from dataclasses import fields
from typing import Any

from credit_models import (
    SpendingCaps,
    TransferCreditsRequest,
)
from credit_models.operations import AnyWrite

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


def differing_fields(earlier: Any, later: Any) -> list[str]:
    """Return the fields that differ, in the contract's order. Any: two requests of any types."""
    if type(earlier) is not type(later):
        return ["call"]
    names = [entry.name for entry in fields(later) if entry.name not in _SAME]
    return [name for name in names if _meaning(earlier, name) != _meaning(later, name)]


def _meaning(request: Any, name: str) -> object:
    """Return the value of a field, or what the contract defines for an unset one."""
    value = getattr(request, name)
    if value is not None:
        return value
    defaults = {
        "priority": 500,
        "final": True,
        "caps": SpendingCaps(),
        "to_user_id": getattr(request, "user_id", None),
        "to_app_id": request.app_id,
    }
    return defaults.get(name)
