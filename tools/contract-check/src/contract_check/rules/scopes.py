"""Compares the scopes that calls take: each has one, and it stays the same.

A token is made for the scopes that its holder's calls take. A call that takes another one refuses
holders who did nothing wrong; a call that takes none would be open to nobody, or to everybody.
"""

from collections.abc import Iterator

from google.protobuf.descriptor import MethodDescriptor

from contract_check.image import Image
from contract_check.violation import Violation

_OPTION = "credit.options.v1.scope"
_ENUM = "credit.options.v1.Scope"
_PREFIX = "SCOPE_"


def scope_of(image: Image, method: MethodDescriptor) -> str:
    """Names the scope that a call takes as tokens carry it; empty where none is declared."""
    number = image.option(method, _OPTION)
    if not number:
        return ""
    name: str = image.enums[_ENUM].values_by_number[number].name
    # "SCOPE_CREDITS_SPEND" is `credits:spend`.
    return name.removeprefix(_PREFIX).lower().replace("_", ":", 1)


def scope_violations(before: Image, after: Image) -> Iterator[Violation]:
    """Finds calls without a scope, old or new, and calls that take another one than before."""
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
                message=f'Call "{method.name}" took {earlier} and takes {later} now.',
            )
