"""The requests that an `Operation` of the contract takes: those of all writes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias, get_args

from credit_models import (
    AdjustBalanceRequest,
    CaptureHoldRequest,
    CreditRequest,
    ExtendHoldRequest,
    GrantCreditsRequest,
    Operation,
    PlaceHoldRequest,
    PurchaseRequest,
    ReleaseHoldRequest,
    ReverseTransactionRequest,
    SetSpendingCapRequest,
    TransferCreditsRequest,
    VoidGrantRequest,
)
from credit_models._generated.message_pool import default_message_pool
from credit_models.image import POOL, full_names

__all__ = ["WRITE_TYPES", "AnyWrite", "kind_of", "operation_of", "request_of"]

AnyWrite: TypeAlias = (
    CreditRequest
    | PurchaseRequest
    | GrantCreditsRequest
    | VoidGrantRequest
    | PlaceHoldRequest
    | CaptureHoldRequest
    | ReleaseHoldRequest
    | ExtendHoldRequest
    | ReverseTransactionRequest
    | TransferCreditsRequest
    | AdjustBalanceRequest
    | SetSpendingCapRequest
)

WRITE_TYPES: tuple[type[AnyWrite], ...] = get_args(AnyWrite)


def _kinds() -> Mapping[type[AnyWrite], str]:
    names = full_names(default_message_pool)
    types = {names[write_type]: write_type for write_type in WRITE_TYPES}
    fields = POOL.FindMessageTypeByName(names[Operation]).fields
    return {
        types[field.message_type.full_name]: field.name
        for field in fields
        if field.message_type is not None
    }


_KINDS: Mapping[type[AnyWrite], str] = MappingProxyType(_kinds())


def kind_of(request: AnyWrite) -> str:
    """Return the kind of an operation: the name of the field of `Operation` for the request."""
    return _KINDS[type(request)]


def operation_of(request: AnyWrite) -> Operation:
    """Return the operation that stands for the call with this request."""
    # Any: mypy cannot know which field it is.
    field: dict[str, Any] = {kind_of(request): request}
    return Operation(**field)


def request_of(operation: Operation | None) -> AnyWrite | None:
    """Return the request of an operation; None if there is none of a known kind."""
    for kind in _KINDS.values():
        request: AnyWrite | None = getattr(operation, kind, None)
        if request is not None:
            return request
    return None
