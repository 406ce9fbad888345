"""Translates between the contract's messages and the ledger's values, for the fake."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import betterproto2
from credit_models import (
    AdjustBalanceRequest,
    Allocation,
    Balance,
    CaptureHoldRequest,
    CreditRequest,
    CreditTransaction,
    ExpiringCredits,
    ExtendHoldRequest,
    ForecastStep,
    GrantCategory,
    GrantCreditsRequest,
    HoldState,
    PlaceHoldRequest,
    Purchase,
    PurchaseRequest,
    Receipt,
    ReleaseHoldRequest,
    ReverseTransactionRequest,
    SetSpendingCapRequest,
    SpendingCaps,
    SpendingCapStatus,
    SpendingPeriod,
    TransactionType,
    TransferCreditsRequest,
    UserCredits,
    VoidGrantRequest,
    ledger,
)
from credit_models import Grant as GrantMessage
from credit_models import Hold as HoldMessage
from credit_models.constraints import Violation, violations
from credit_models.ledger import Account, Caps, Category, Command, Grant, Hold, Kind, Transaction

from credit_client.methods import AnyWrite

_COMMANDS: Mapping[type[AnyWrite], type[Command]] = {
    CreditRequest: ledger.Add,
    PurchaseRequest: ledger.Use,
    GrantCreditsRequest: ledger.GrantCredits,
    VoidGrantRequest: ledger.VoidGrant,
    PlaceHoldRequest: ledger.PlaceHold,
    CaptureHoldRequest: ledger.CaptureHold,
    ReleaseHoldRequest: ledger.ReleaseHold,
    ExtendHoldRequest: ledger.ExtendHold,
    ReverseTransactionRequest: ledger.ReverseTransaction,
    TransferCreditsRequest: ledger.TransferCredits,
    AdjustBalanceRequest: ledger.AdjustBalance,
    SetSpendingCapRequest: ledger.SetSpendingCap,
}

# The kinds of entries that place a grant or a hold, or extend a hold.
_WITH_END = {Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN, Kind.HOLD, Kind.EXTEND}


def broken_fields(request: betterproto2.Message) -> Sequence[Violation]:
    """Return the fields that break the contract's options and its comments."""
    return (*violations(request), *_further_violations(request))


def _further_violations(request: betterproto2.Message) -> Iterator[Violation]:
    match request:
        case GrantCreditsRequest(category=category) if category.name is None:
            yield Violation(field="category", description="must be a known category")
        case TransferCreditsRequest(to_user_id=user_id, to_app_id=app_id) if user_id in (
            None,
            request.user_id,
        ) and app_id in (None, request.app_id):
            what = "must differ from user_id unless to_app_id differs from app_id"
            yield Violation(field="to_user_id", description=what)
        case SetSpendingCapRequest(user_id=None):
            for name in ("note", "metadata", "min_available_after"):
                if getattr(request, name) not in ("", {}, None):
                    yield Violation(field=name, description="must not be set without user_id")


# Any: the attributes of commands have many types.
def command_of(request: AnyWrite, **given: Any) -> Command:
    """Return the command of a valid write.

    Args:
        request: The write.
        given: The attributes that are no fields of it.
    """
    kind = _COMMANDS[type(request)]
    values = {}
    for field in dataclasses.fields(kind):
        value = given[field.name] if field.name in given else _attribute(request, field.name)
        if value is not None:  # otherwise, the command's own default
            values[field.name] = value
    return kind(**values)


def _attribute(request: Any, name: str) -> Any:
    match name:
        case "key":
            return request.idempotency_key
        case "reversed_id":
            return request.transaction_id
        case "to_user_id" | "to_app_id":
            return getattr(request, name) or getattr(request, name.removeprefix("to_"))
        case "expires_after":
            seconds = request.expires_after_seconds
            return None if seconds is None else timedelta(seconds=seconds)
        case "metadata":
            return tuple(sorted(request.metadata.items()))
        case "category":
            return Category[request.category.name]
        case "caps":
            return caps_of(request.caps)
    value = getattr(request, name, None)
    if isinstance(value, datetime):
        return value.replace(microsecond=value.microsecond // 1000 * 1000)
    return value


def caps_of(caps: SpendingCaps | None) -> Caps:
    """Return the caps of a request."""
    if caps is None:
        return ledger.NO_CAPS
    return Caps(hour=caps.per_hour, day=caps.per_day, month=caps.per_month)


def spending_caps_of(caps: Caps) -> SpendingCaps | None:
    """Return spending caps; None for no cap."""
    if caps == ledger.NO_CAPS:
        return None
    return SpendingCaps(per_hour=caps.hour, per_day=caps.day, per_month=caps.month)


def cap_status_of(status: ledger.CapStatus) -> SpendingCapStatus:
    """Return a cap that applies, and what counts."""
    return SpendingCapStatus(
        period=SpendingPeriod[status.period.name],
        cap=status.cap,
        spent=status.spent,
        held=status.held,
        left=status.left,
        starts_at=status.starts_at,
        resets_at=status.resets_at,
    )


def receipt_of(entry: Transaction, *, replayed: bool = False, validated: bool = False) -> Receipt:
    """Return the receipt of a write; that of an `add` or `use` is as short as the server's."""
    details, balance = entry.details, entry.final_balance
    receipt = Receipt(
        transaction_id=entry.id,
        purchase_id=entry.purchase_id,
        balance=max(0, balance),
        sequence=entry.sequence,
        replayed=replayed,
        owed=max(0, -balance),
    )
    if entry.kind is Kind.ADD or (entry.kind is Kind.USE and not details.related_id):
        return receipt
    receipt.type = TransactionType[entry.kind.name]
    receipt.credits = entry.credits
    receipt.effect = entry.effect
    receipt.balance_before = max(0, entry.balance_after - entry.effect)
    receipt.held = details.held_after
    receipt.expires_at = details.ends_at if entry.kind in _WITH_END else None
    receipt.related_id = details.related_id
    receipt.revision = entry.final_revision
    receipt.released_credits = details.released
    if validated:
        receipt.transaction_id, receipt.purchase_id, receipt.validated = "validated", "", True
    return receipt


def transaction_of(entry: Transaction) -> CreditTransaction:
    """Return an entry of a history."""
    details, balance = entry.details, entry.balance_after
    return CreditTransaction(
        id=entry.id,
        user_id=entry.user_id,
        app_id=entry.app_id,
        credits=entry.credits,
        created_at=entry.created_at,
        created_by=entry.created_by,
        type=TransactionType[entry.kind.name],
        balance_after=max(0, balance),
        sequence=entry.sequence,
        purchase_id=entry.purchase_id,
        idempotency_key=entry.key,
        effect=entry.effect,
        effective_at=details.effective_at,
        related_id=details.related_id,
        allocations=[
            Allocation(grant_id=part.grant_id, credits=part.credits) for part in details.allocations
        ],
        metadata=dict(details.metadata),
        note=details.note,
        owed_after=max(0, -balance),
        report_id=entry.report_id,
        report_name=entry.report_name,
        expires_at=details.ends_at if entry.kind in _WITH_END else None,
    )


def purchase_of(bought: ledger.Purchase) -> Purchase:
    """Return a purchase."""
    return Purchase(
        **{field.name: getattr(bought, field.name) for field in dataclasses.fields(bought)}
    )


def balance_of(account: Account, app_id: int) -> Balance:
    """Return a user's balance in an app."""
    balance, app = account.balance(app_id), account.apps.get(app_id)
    expiring = None if app is None else app.expiring_next
    return Balance(
        app_id=app_id,
        balance=max(0, balance),
        owed=max(0, -balance),
        held=0 if app is None else app.held,
        expiring_next=(
            None if expiring is None else ExpiringCredits(credits=expiring.credits, at=expiring.at)
        ),
    )


def user_credits_of(account: Account) -> UserCredits:
    """Return a user's balances."""
    return UserCredits(
        id=account.id if account.revision else "",
        user_id=account.user_id,
        balances=[balance_of(account, app_id) for app_id in sorted(account.balances)],
        created_at=account.created_at,
        updated_at=account.updated_at,
        created_by=account.created_by,
        updated_by=account.updated_by,
        revision=account.revision,
    )


def grant_of(grant: Grant) -> GrantMessage:
    """Return a live grant."""
    return GrantMessage(
        id=grant.id,
        sequence=grant.sequence,
        credits=grant.credits,
        left=grant.left,
        priority=grant.priority,
        category=GrantCategory[grant.category.name],
        effective_at=grant.starts_at,
        expires_at=grant.ends_at,
    )


def hold_of(placed: Transaction, still_open: Hold | None, latest: Transaction) -> HoldMessage:
    """Return a hold.

    Args:
        placed: The entry that placed it.
        still_open: The hold, if it is open.
        latest: The latest entry that concerns it.
    """
    message = HoldMessage(
        id=placed.id,
        sequence=placed.sequence,
        credits=placed.credits,
        state=HoldState.OPEN,
        placed_at=placed.created_at,
        expires_at=placed.details.ends_at,
        purpose=dict(placed.details.request).get("purpose", ""),
        created_by=placed.created_by,
    )
    if still_open is not None:
        message.held, message.captured = still_open.credits, still_open.captured
        message.expires_at = still_open.ends_at
        return message
    ended_at = latest.details.effective_at
    message.captured = latest.details.related_total
    message.released = placed.credits - message.captured
    message.settled_at = ended_at or latest.created_at
    message.expires_at = ended_at or latest.details.ends_at or message.expires_at
    if latest.kind is Kind.USE:
        message.state = HoldState.CAPTURED
    else:
        message.state = HoldState.RELEASED if ended_at is None else HoldState.EXPIRED
    return message


def step_of(due: Transaction) -> ForecastStep:
    """Return what will happen by time alone."""
    return ForecastStep(
        at=due.details.effective_at,
        type=TransactionType[due.kind.name],
        related_id=due.details.related_id,
        credits=due.credits,
        effect=due.effect,
        balance_after=max(0, due.balance_after),
    )
