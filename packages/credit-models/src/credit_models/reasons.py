"""Why a call is refused, and how each reason travels, as the contract's options say."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from google.protobuf.descriptor import EnumValueDescriptor, MethodDescriptor
from grpclib.const import Status

from credit_models import ErrorReason
from credit_models.image import POOL, option

__all__ = ["ACCESS_REASONS", "DOMAIN", "RULES", "ReasonRule", "method_reasons", "reason_name"]

# `google.rpc.ErrorInfo.domain` of every refusal: the contract's package.
DOMAIN = "credit.v1"

_PREFIX = "ERROR_REASON_"
_SERVICE = POOL.FindServiceByName("credit.v1.CreditService")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonRule:
    """How one reason travels."""

    reason: ErrorReason
    status: Status  # always comes with the reason
    metadata: tuple[str, ...]  # the keys that `ErrorInfo.metadata` always has
    details: tuple[str, ...]  # the messages of `google.rpc` that always accompany `ErrorInfo`
    retryable: bool  # whether the same request may succeed later without anybody doing anything


def reason_name(reason: ErrorReason) -> str:
    """Gives a reason's name as `google.rpc.ErrorInfo.reason` carries it, such as `INVALID_FIELD`.

    Raises:
        KeyError: The number is none of the contract's.
    """
    return _NAMES[reason]


def method_reasons() -> Mapping[str, tuple[ErrorReason, ...]]:
    """Gives the reasons with which each method may be refused.

    Returns:
        Reasons in the order of precedence, by path, such as `/credit.v1.CreditService/AddCredits`.
    """
    return _METHOD_REASONS


def _rule(value: EnumValueDescriptor) -> ReasonRule | None:
    found = option(value, "credit.options.v1.error")
    if found is None:
        return None
    return ReasonRule(
        reason=ErrorReason(value.number),
        status=Status(found.status),
        metadata=tuple(found.metadata),
        details=tuple(found.details),
        retryable=found.retryable,
    )


def _method_reasons(method: MethodDescriptor) -> tuple[ErrorReason, ...]:
    return tuple(ErrorReason(number) for number in option(method, "credit.v1.errors") or ())


_VALUES = POOL.FindEnumTypeByName("credit.v1.ErrorReason").values
_NAMES = {ErrorReason(value.number): value.name.removeprefix(_PREFIX) for value in _VALUES}
_METHOD_REASONS = MappingProxyType(
    {f"/{_SERVICE.full_name}/{method.name}": _method_reasons(method) for method in _SERVICE.methods}
)

# The reasons with which every call may be refused, before its own, in the order of precedence.
ACCESS_REASONS: tuple[ErrorReason, ...] = tuple(
    ErrorReason(number) for number in option(_SERVICE, "credit.v1.access_errors") or ()
)

# All reasons but the zero value, which is never sent.
RULES: Mapping[ErrorReason, ReasonRule] = MappingProxyType(
    {rule.reason: rule for rule in map(_rule, _VALUES) if rule is not None}
)
