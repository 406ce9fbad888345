"""Which scope an identity needs for each call, as the contract's options say."""

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.descriptor import MethodDescriptor

from credit_models.image import POOL, option

__all__ = ["METHOD_SCOPES", "SCOPES"]

_PREFIX = "SCOPE_CREDITS_"
_SERVICE = POOL.FindServiceByName("credit.v1.CreditService")
_VALUES = POOL.FindEnumTypeByName("credit.options.v1.Scope").values_by_number


def _name(number: int) -> str:
    """Gives a scope as tokens carry it: `SCOPE_CREDITS_SPEND` is `credits:spend`."""
    return "credits:" + _VALUES[number].name.removeprefix(_PREFIX).lower()


def _scope(method: MethodDescriptor) -> str:
    number = option(method, "credit.options.v1.scope")
    if not number:
        raise LookupError(f"{method.full_name} has no option credit.options.v1.scope: give it one")
    return _name(number)


# All scopes there are, as tokens carry them.
SCOPES: frozenset[str] = frozenset(_name(number) for number in _VALUES if number)

# The scope of each call by its path, such as `/credit.v1.CreditService/UseCredits`. A contract with
# a call that has none cannot be imported: it would be a call that nobody, or everybody, may make.
METHOD_SCOPES: Mapping[str, str] = MappingProxyType(
    {f"/{_SERVICE.full_name}/{method.name}": _scope(method) for method in _SERVICE.methods}
)
