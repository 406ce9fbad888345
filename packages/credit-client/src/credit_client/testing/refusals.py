"""The refusals of the fake, with the contract's reasons and figures."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum

from credit_models import ErrorReason, ledger
from credit_models.constraints import Violation
from credit_models.reasons import RULES, reason_name

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# What the reasons of the seed's calls mean, for people. Other refusals name their figures.
_SENTENCES = {
    ErrorReason.IDEMPOTENCY_KEY_REUSED: "the key was used for another request: {fields} differ",
    ErrorReason.INSUFFICIENT_CREDITS: "{required} credits are needed and {available} are there",
    ErrorReason.CREDITS_LIMIT_EXCEEDED: (
        "the request adds {credits} credits, one call may add {limit}"
    ),
    ErrorReason.BALANCE_OVERFLOW: "the balance is {balance}; {credits} more do not fit",
    ErrorReason.TOO_MANY_APPS: "the user has credits in {limit} apps",
    ErrorReason.APP_TOTAL_OVERFLOW: "the sum over all users is {total}",
    ErrorReason.BATCH_ABORTED: "operation {index} of the batch was rejected",
}


class Refused(Exception):
    """The contract's answer to a request that is rejected.

    Attributes:
        reason: The contract's reason.
        metadata: The metadata that the contract defines for the reason.
        violations: The broken fields, for INVALID_FIELD.
    """

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        *,
        metadata: Mapping[str, object] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        self.violations = tuple(violations)


def refused(reason: ErrorReason, **figures: object) -> Refused:
    """Return the refusal for a reason with its figures."""
    metadata = {key: _text(figures[key]) for key in RULES[reason].metadata}
    shown = {
        key: figure.isoformat() if isinstance(figure := figures[key], datetime) else value
        for key, value in metadata.items()
    }
    shown = {key: value.replace(",", ", ") for key, value in shown.items()}
    sentence = _SENTENCES.get(reason)
    if sentence is not None:
        return Refused(reason, sentence.format(**shown), metadata=metadata)
    words = reason_name(reason).lower().replace("_", " ")
    listed = ", ".join(f"{key} {value}" for key, value in shown.items())
    return Refused(reason, f"{words}: {listed}" if listed else words, metadata=metadata)


def refusal_to_refused(refusal: ledger.Refusal) -> Refused:
    """Return what the contract answers for a refusal of the ledger."""
    name = re.sub(r"(?<!^)([A-Z])", r"_\1", type(refusal).__name__).upper()
    reason = ErrorReason["IDEMPOTENCY_KEY_REUSED" if name == "KEY_REUSED" else name]
    # The figures are the attributes of the refusal.
    names = {key: "kind" if key == "type" else key for key in RULES[reason].metadata}
    return refused(reason, **{key: getattr(refusal, name) for key, name in names.items()})


def _text(figure: object) -> str:
    match figure:
        case tuple():
            return ",".join(figure)
        case datetime():
            return str(max(0, (figure - _EPOCH) // timedelta(milliseconds=1)))
        case ledger.Kind():
            return str(figure.name)
        case Enum():
            return str(figure.value)
    return str(figure)
