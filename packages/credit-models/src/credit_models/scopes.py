"""The scope that an identity needs for each method, from the contract's options."""

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.descriptor import MethodDescriptor

from credit_models.image import POOL, SERVICES, method_path, option

__all__ = ["METHOD_SCOPES", "SCOPED_BY_OPERATION", "SCOPES"]

_PREFIX = "SCOPE_CREDITS_"
_ENUM = POOL.FindEnumTypeByName("credit.options.v1.Scope")
_VALUES = _ENUM.values_by_number
# The value of methods whose messages contain operations, each of which requires its own scope.
_OF_EACH_OPERATION = _ENUM.values_by_name["SCOPE_OF_EACH_OPERATION"].number


def _name(number: int) -> str:
    """Return a scope's name in tokens: `credits:spend` for `SCOPE_CREDITS_SPEND`."""
    return "credits:" + _VALUES[number].name.removeprefix(_PREFIX).lower()


def _scope(method: MethodDescriptor) -> int:
    number: int | None = option(method, "credit.options.v1.scope")
    if not number:
        raise LookupError(f"{method.full_name} has no option credit.options.v1.scope; add one")
    return number


# All scopes, by their names in tokens.
SCOPES: frozenset[str] = frozenset(
    _name(number) for number in _VALUES if number not in {0, _OF_EACH_OPERATION}
)

# The import fails for a method without a scope: every identity, or no identity, could then call it.
_NUMBERS = {
    method_path(method): _scope(method) for service in SERVICES for method in service.methods
}

# The scope of each method by its path, such as `/credit.v1.CreditService/UseCredits`.
METHOD_SCOPES: Mapping[str, str] = MappingProxyType(
    {path: _name(number) for path, number in _NUMBERS.items() if number != _OF_EACH_OPERATION}
)

# The paths of the methods whose operations require the scopes of the calls that they stand for.
SCOPED_BY_OPERATION: frozenset[str] = frozenset(_NUMBERS.keys() - METHOD_SCOPES.keys())
