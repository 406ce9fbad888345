"""One change of a contract that breaks an installed SDK."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One broken rule.

    Attributes:
        rule: The rule's name: one of buf's, or one of `contract_check.advice.OWN_RULES`.
        where: The place in the sources, such as `contracts/credit/v1/credit.proto:208:3`; or the
            element's full name if it is no longer in a source.
        message: The change.
    """

    rule: str
    where: str
    message: str
