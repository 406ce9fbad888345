"""The reasons for rejecting a call, and how each is sent, from the contract's options."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from google.protobuf.descriptor import EnumValueDescriptor, MethodDescriptor
from grpclib.const import Status

from credit_models import ErrorReason
from credit_models.image import POOL, SERVICES, method_path, option

__all__ = ["ACCESS_REASONS", "DOMAIN", "RULES", "ReasonRule", "method_reasons", "reason_name"]

# The `domain` in `google.rpc.ErrorInfo` of every refusal: the contract's package.
DOMAIN = "credit.v1"

_PREFIX = "ERROR_REASON_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonRule:
    """How the server sends one reason."""

    reason: ErrorReason
    status: Status  # always the same for the reason
    metadata: tuple[str, ...]  # the keys that are always in `ErrorInfo.metadata`
    details: tuple[str, ...]  # the messages of `google.rpc` that always accompany `ErrorInfo`
    retryable: bool  # whether the same request may succeed later without any action


def reason_name(reason: ErrorReason) -> str:
    """Return a reason's name as sent in `google.rpc.ErrorInfo.reason`, such as `INVALID_FIELD`.

    Raises:
        KeyError: The contract does not define the number.
    """
    return _NAMES[reason]


def method_reasons() -> Mapping[str, tuple[ErrorReason, ...]]:
    """Return the reasons for which each method may reject a call.

    Returns:
        Reasons in order of precedence, by path, such as `/credit.v1.CreditService/AddCredits`.
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
    {
        method_path(method): _method_reasons(method)
        for service in SERVICES
        for method in service.methods
    }
)

# The reasons for which every method may reject a call, in order of precedence. They come before the
# method's own reasons. All services declare the same reasons.
ACCESS_REASONS: tuple[ErrorReason, ...] = tuple(
    ErrorReason(number) for number in option(SERVICES[0], "credit.v1.access_errors") or ()
)

# The rules of all reasons except the zero value, which is never sent.
RULES: Mapping[ErrorReason, ReasonRule] = MappingProxyType(
    {rule.reason: rule for rule in map(_rule, _VALUES) if rule is not None}
)
