"""One way in which a contract breaks an installed SDK."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One broken rule.

    Attributes:
        rule: The rule's name: one of buf's, or one of `contract_check.advice.OWN_RULES`.
        where: The place in the sources, such as `contracts/credit/v1/credit.proto:208:3`; or the
            element's full name where it is in no source any more.
        message: What was changed.
    """

    rule: str
    where: str
    message: str
