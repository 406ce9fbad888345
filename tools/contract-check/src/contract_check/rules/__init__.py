"""Rules for what buf does not compare. Each compares two images."""

from contract_check.image import Image
from contract_check.rules.constraints import constraint_violations
from contract_check.rules.errors import error_violations
from contract_check.rules.reasons import reason_violations
from contract_check.rules.reuse import reuse_violations
from contract_check.rules.scopes import scope_violations
from contract_check.violation import Violation

__all__ = ["own_violations", "reuse_violations"]


def own_violations(before: Image, after: Image) -> list[Violation]:
    """Compare the contract's options of two images.

    Args:
        before: What installed SDKs were made from.
        after: The contract as it is now.

    Returns:
        The changes that would break an installed SDK, in the order of the contract.
    """
    return [
        *constraint_violations(before, after),
        *error_violations(before, after),
        *reason_violations(before, after),
        *scope_violations(before, after),
    ]
