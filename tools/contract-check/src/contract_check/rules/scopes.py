"""Compare the scopes that calls require: each has one, and it stays the same.

A token is issued for the scopes of its holder's calls. A call that requires another scope rejects
holders of valid tokens; the server cannot serve a call that requires none.
"""

from collections.abc import Iterator

from google.protobuf.descriptor import MethodDescriptor

from contract_check.image import Image
from contract_check.violation import Violation

_OPTION = "credit.options.v1.scope"
_ENUM = "credit.options.v1.Scope"
_PREFIX = "SCOPE_"
_OF_EACH_OPERATION = "SCOPE_OF_EACH_OPERATION"
# The scope of a call whose operations require scopes of their own.
OF_EACH_OPERATION = "of each operation"


def scope_of(image: Image, method: MethodDescriptor) -> str:
    """Return the scope that a call requires, as tokens contain it; empty if none is declared.

    It is `OF_EACH_OPERATION` if the operations in the call's messages require scopes of their own.
    """
    number = image.option(method, _OPTION)
    if not number:
        return ""
    name: str = image.enums[_ENUM].values_by_number[number].name
    if name == _OF_EACH_OPERATION:
        return OF_EACH_OPERATION
    # "SCOPE_CREDITS_SPEND" is `credits:spend`.
    return name.removeprefix(_PREFIX).lower().replace("_", ":", 1)


def scope_violations(before: Image, after: Image) -> Iterator[Violation]:
    """Find calls without a scope, and calls that require another one than before."""
    for name, method in after.methods.items():
        earlier = "" if name not in before.methods else scope_of(before, before.methods[name])
        later = scope_of(after, method)
        where = after.where(name)
        if not later:
            yield Violation(
                rule="CALL_WITHOUT_SCOPE",
                where=where,
                message=f'Call "{method.name}" has no scope.',
            )
        elif earlier and earlier != later:
            yield Violation(
                rule="CALL_SAME_SCOPE",
                where=where,
                message=f'Call "{method.name}" required {earlier} and requires {later} now.',
            )
