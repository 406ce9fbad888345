"""Compare the status, metadata and details of each reason."""

from collections.abc import Iterator
from typing import Any

from contract_check.image import Image
from contract_check.rules.errors import OPTION, reasons
from contract_check.violation import Violation


def reason_violations(before: Image, after: Image) -> Iterator[Violation]:
    """Find reasons whose status, metadata, details or retryability has changed."""
    for enum_name, enum in reasons(before).items():
        later_enum = after.enums.get(enum_name)
        if later_enum is None:
            continue
        for name, value in enum.values_by_name.items():
            earlier, later_value = before.option(value, OPTION), later_enum.values_by_name.get(name)
            if earlier is None or later_value is None:
                continue
            where = after.where(f"{enum_name}.{name}")
            for rule, message in _differences(earlier, after.option(later_value, OPTION)):
                yield Violation(rule=rule, where=where, message=f"Reason {name}: {message}.")


# Any: the option's class is made from the image.
def _differences(earlier: Any, later: Any) -> Iterator[tuple[str, str]]:
    if later is None:
        yield "REASON_SAME_STATUS", "the option with its status was removed"
        return
    if earlier.status != later.status:
        yield "REASON_SAME_STATUS", f"the status changed from {earlier.status} to {later.status}"
    for key in earlier.metadata:
        if key not in later.metadata:
            yield "REASON_METADATA_NO_DELETE", f'the metadata key "{key}" was removed'
    for detail in earlier.details:
        if detail not in later.details:
            yield "REASON_DETAILS_NO_DELETE", f"the detail {detail} was removed"
    if earlier.retryable != later.retryable:
        was = "retryable" if earlier.retryable else "final"
        yield "REASON_SAME_RETRYABLE", f"it was {was} and is no longer"
