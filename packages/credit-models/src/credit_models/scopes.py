"""The scope that an identity needs for each method, from the contract's options."""

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.descriptor import MethodDescriptor

from credit_models.image import POOL, option

__all__ = ["METHOD_SCOPES", "SCOPES"]

_PREFIX = "SCOPE_CREDITS_"
_SERVICE = POOL.FindServiceByName("credit.v1.CreditService")
_VALUES = POOL.FindEnumTypeByName("credit.options.v1.Scope").values_by_number


def _name(number: int) -> str:
    """Return a scope's name in tokens: `credits:spend` for `SCOPE_CREDITS_SPEND`."""
    return "credits:" + _VALUES[number].name.removeprefix(_PREFIX).lower()


def _scope(method: MethodDescriptor) -> str:
    number = option(method, "credit.options.v1.scope")
    if not number:
        raise LookupError(f"{method.full_name} has no option credit.options.v1.scope; add one")
    return _name(number)


# All scopes, by their names in tokens.
SCOPES: frozenset[str] = frozenset(_name(number) for number in _VALUES if number)

# The scope of each method by its path, such as `/credit.v1.CreditService/UseCredits`. The import
# fails for a method without a scope: every identity, or no identity, could then call it.
METHOD_SCOPES: Mapping[str, str] = MappingProxyType(
    {f"/{_SERVICE.full_name}/{method.name}": _scope(method) for method in _SERVICE.methods}
)
