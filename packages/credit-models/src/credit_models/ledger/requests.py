"""Compare a request with an earlier one that had the same idempotency key.

An entry of a plain ADD or USE holds its whole request. Other entries also record the fields of the
request that they do not hold, as strings.
"""

from datetime import datetime, timedelta
from enum import Enum

from credit_models.ledger.commands import (
    Add,
    AdjustBalance,
    AnnotatedCommand,
    CaptureHold,
    Command,
    ExtendHold,
    GrantCredits,
    PlaceHold,
    ReleaseHold,
    ReverseTransaction,
    SetAlert,
    SetSpendingCap,
    Settle,
    TransferCredits,
    Use,
    VoidGrant,
    WriteCommand,
)
from credit_models.ledger.invariants import invariant
from credit_models.ledger.outcomes import KeyReused, Replayed
from credit_models.ledger.records import (
    NO_CAPS,
    PRIORITY_DEFAULT,
    Allocation,
    Caps,
    Category,
    Details,
    Kind,
    Pairs,
    Transaction,
)

_CONDITIONS = ("expected_revision", "min_available_after")
_COMMON = ("created_by", "note", "metadata", *_CONDITIONS)
_GRANT = ("credits", "expires_at", "expires_after_seconds", "effective_at", "priority", "category")
_HOLD = ("credits", "expires_after_seconds", "purpose", "allow_partial")
_CAPTURE = ("hold_id", "credits", "report_id", "report_name", "final", "allow_excess")

# The fields of each request, in the contract's order, less those by which the entry was found.
_FIELDS: dict[type[WriteCommand], tuple[str, ...]] = {
    Add: ("credits", "created_by", *_CONDITIONS),
    Use: ("report_id", "report_name", "credits", "created_by", "once", *_CONDITIONS),
    GrantCredits: (*_COMMON, *_GRANT),
    VoidGrant: (*_COMMON, "grant_id"),
    PlaceHold: (*_COMMON, *_HOLD),
    CaptureHold: (*_COMMON, *_CAPTURE),
    ReleaseHold: (*_COMMON, "hold_id"),
    ExtendHold: (*_COMMON, "hold_id", "expires_after_seconds"),
    ReverseTransaction: (*_COMMON, "transaction_id", "credits", "restore_until"),
    TransferCredits: (*_COMMON, "to_user_id", "to_app_id", "credits"),
    AdjustBalance: (*_COMMON, "delta"),
    SetSpendingCap: (*_COMMON, "caps"),
    SetAlert: ("created_by", "credits", "direction", "remove"),
    Settle: (),
}

# The fields whose attribute of the command has another name.
_ATTRIBUTES = {"expires_after_seconds": "expires_after", "transaction_id": "reversed_id"}

# The values that stand for an unset field. Others are None and the empty string.
_DEFAULTS = {
    "allow_excess": False,
    "allow_partial": False,
    "caps": NO_CAPS,
    "category": Category.UNSPECIFIED,
    "credits": 0,
    "final": True,
    "once": False,
    "priority": PRIORITY_DEFAULT,
    "remove": False,
}

# The fields that the entries hold: those of all requests, and `credits` of some.
_IN_ENTRY = frozenset({"created_by", "note", "metadata", "report_id", "report_name"})
_CREDITS_IN_ENTRY = (Add, Use, GrantCredits, TransferCredits, SetAlert)

# The other fields, by name.
_RECORDED = {
    call: tuple(
        sorted(
            name
            for name in names
            if name not in _IN_ENTRY and not (name == "credits" and call in _CREDITS_IN_ENTRY)
        )
    )
    for call, names in _FIELDS.items()
}


def details_of(
    command: Command,
    *,
    related_id: str = "",
    related_total: int = 0,
    allocations: tuple[Allocation, ...] = (),
    delta: int | None = None,
    effective_at: datetime | None = None,
    ends_at: datetime | None = None,
    released: int = 0,
    held_after: int = 0,
) -> Details:
    """Return the details of a command's own entry, with the recorded fields of the request."""
    return Details(
        related_id=related_id,
        related_total=related_total,
        allocations=allocations,
        delta=delta,
        effective_at=effective_at,
        ends_at=ends_at,
        released=released,
        held_after=held_after,
        metadata=command.metadata if isinstance(command, AnnotatedCommand) else (),
        note=command.note if isinstance(command, AnnotatedCommand) else "",
        request=request_of(command),
    )


def request_of(command: Command) -> Pairs:
    """Return the fields of a request that its entry does not hold, by name."""
    if isinstance(command, (Add, Use)) and not _is_conditional(command):
        return ()
    texts = ((name, _text(command, name)) for name in _RECORDED[type(command)])
    return tuple((name, text) for name, text in texts if text)


def _is_conditional(command: Add | Use) -> bool:
    """Return whether a request has a condition, the only part that its entry does not hold."""
    return (
        command.expected_revision is not None
        or command.min_available_after is not None
        or (isinstance(command, Use) and command.once)
    )


def repeated(command: Command, earlier: Transaction) -> Replayed | KeyReused:
    """Return the outcome of a command whose key or id an earlier entry has."""
    invariant(
        (command.user_id, command.app_id) == (earlier.user_id, earlier.app_id),
        "a key belongs to a user in an app",
    )
    fields = _differences(command, earlier)
    return KeyReused(fields=fields) if fields else Replayed(transaction=earlier)


def _differences(command: Command, earlier: Transaction) -> tuple[str, ...]:
    """Return the names of the fields in which a request differs from that of an entry.

    The user, the app and the key are equal by the look-up. `created_by` is compared, because the
    requester is part of the request.
    """
    call = type(command)
    if _call_of(earlier) is not call:
        return ("call",)
    request, recorded = dict(earlier.details.request), _RECORDED[call]
    return tuple(
        name
        for name in _FIELDS[call]
        if (
            _text(command, name) != request.get(name, "")
            if name in recorded
            else getattr(command, name) != _in_entry(earlier, name)
        )
    )


def _call_of(entry: Transaction) -> type[WriteCommand] | None:
    """Return the command that made an entry; None if it is not a command's own entry."""
    match entry.kind:
        case Kind.ADD:
            return Add
        case Kind.USE:
            return CaptureHold if entry.details.related_id else Use
        case Kind.GRANT | Kind.SCHEDULE:
            return GrantCredits
        case Kind.VOID:
            return VoidGrant
        case Kind.HOLD:
            return PlaceHold
        case Kind.RELEASE:
            return ReleaseHold
        case Kind.EXTEND:
            return ExtendHold
        case Kind.REFUND | Kind.REVOKE:
            return ReverseTransaction
        case Kind.TRANSFER_OUT:
            return TransferCredits
        case Kind.ADJUST:
            return AdjustBalance
        case Kind.CAP:
            return SetSpendingCap
        case Kind.ALERT:
            return SetAlert
        case Kind.ACTIVATE | Kind.EXPIRE | Kind.TRANSFER_IN:
            return None


def _in_entry(entry: Transaction, name: str) -> object:
    return getattr(entry.details if name in ("note", "metadata") else entry, name)


def _text(command: Command, name: str) -> str:
    """Return the value of a field as a string; empty if it is unset or has its default."""
    value = getattr(command, _ATTRIBUTES.get(name, name))
    if value is None or value == _DEFAULTS.get(name, ""):
        return ""
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.isoformat()
        case timedelta():
            return str(value // timedelta(seconds=1))
        case Enum():
            return str(value.value)
        case Caps(hour=hour, day=day, month=month):
            return ",".join("" if cap is None else str(cap) for cap in (hour, day, month))
        case _:
            return str(value)
