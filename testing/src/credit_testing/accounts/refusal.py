"""Read a rejection from a status."""

from collections.abc import Iterable

from credit_models.reasons import RULES
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status

from credit_testing.accounts.journal import Unforeseen, Unknown
from credit_testing.accounts.rules.decision import Refused

_TRANSIENT = (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.CANCELLED)


def refused(
    status: Status, details: Iterable[object], sentence: str
) -> Refused | Unknown | Unforeseen:
    """Return the rejection that a status reports.

    Args:
        status: The status, which is not OK.
        details: Its details.
        sentence: Its message.
    """
    if status in _TRANSIENT:
        return Unknown()
    found = [entry for entry in details if isinstance(entry, ErrorInfo)]
    if not found or found[0].reason == "INVALID_FIELD":
        return Unforeseen(error=f"{status.name}: {sentence}")
    (info,) = found
    rule = next(rule for reason, rule in RULES.items() if reason.name == info.reason)
    if rule.status is not status or set(rule.metadata) != set(info.metadata):
        return Unforeseen(error=f"{status.name}, {info}: the contract documents {rule}")
    return Refused(info.reason, tuple(sorted(info.metadata.items())))
