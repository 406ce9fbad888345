"""Translates the values of the ledger into the contract's messages."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

from credit_models import Allocation as AllocationMessage
from credit_models import (
    Balance,
    CreditTransaction,
    ExpiringCredits,
    ForecastStep,
    GetForecastResponse,
    GetSpendingCapResponse,
    HoldState,
    ListGrantsResponse,
    SpendingCaps,
    SpendingCapStatus,
    SpendingPeriod,
    UserCredits,
)
from credit_models import Grant as GrantMessage
from credit_models import Hold as HoldMessage
from credit_models import Purchase as PurchaseMessage
from credit_models import Receipt as ReceiptMessage
from credit_models.codec import decode
from credit_models.image import message_class
from credit_models.ledger import (
    NO_CAPS,
    Account,
    AppAccount,
    Caps,
    Grant,
    Hold,
    Kind,
    Policy,
    Purchase,
    Receipt,
    Transaction,
    cap_statuses,
    settle,
)
from credit_models.translation.commands import CATEGORIES, KINDS

TYPES = {kind: message for message, kind in KINDS.items()}
_CATEGORIES = {category: message for message, category in CATEGORIES.items()}

# The id in the receipt of a request that was only validated. The request has no transaction, but
# the contract requires an id.
_VALIDATED = "validated"
# Any: protobuf makes this class at run time.
_RECEIPT: Any = message_class("credit.v1.Receipt")
_NO_APP = AppAccount()
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


def receipt_to_message(receipt: Receipt) -> ReceiptMessage:
    """Return the receipt of an accepted write; see `set_receipt`."""
    return decode(ReceiptMessage, receipt_to_wire(receipt))


def receipt_to_wire(receipt: Receipt) -> bytes:
    """Write the receipt of an accepted write; see `set_receipt`."""
    message = _RECEIPT()
    set_receipt(message, receipt)
    return bytes(message.SerializeToString())


# Any: see `_RECEIPT`.
def set_receipt(message: Any, receipt: Receipt) -> None:
    """Set the fields of protobuf's empty `Receipt` from that of an accepted write.

    The receipt of `AddCredits` and `UseCredits` has the fields that it had in 0.2.0, `owed` and
    `hash`.
    This takes a third of the time that a dataclass and its conversion take.
    """
    entry, details = receipt.transaction, receipt.transaction.details
    balance = entry.final_balance
    message.transaction_id = entry.id
    message.purchase_id = entry.purchase_id
    message.balance = max(0, balance)
    message.sequence = entry.sequence
    message.replayed = receipt.replayed
    if balance < 0:
        message.owed = -balance
    if not receipt.validated:
        message.hash = entry.hash
    if entry.kind is Kind.ADD or (entry.kind is Kind.USE and not details.related_id):
        return
    message.type = TYPES[entry.kind]
    message.credits = entry.credits
    message.effect = entry.effect
    message.balance_before = max(0, entry.balance_after - entry.effect)
    message.held = details.held_after
    if entry.kind.has_end and details.ends_at is not None:
        message.expires_at.FromDatetime(details.ends_at)
    message.related_id = details.related_id
    message.revision = entry.final_revision
    message.released_credits = details.released
    if receipt.validated:
        message.transaction_id, message.purchase_id, message.validated = _VALIDATED, "", True


def balance_to_message(account: Account, app_id: int) -> Balance:
    """Return a user's balance in an app."""
    balance = account.balance(app_id)
    message = Balance(app_id=app_id, balance=max(0, balance))
    if balance < 0:
        message.owed = -balance
    app = account.apps.get(app_id)
    if app is None:
        return message
    message.held = app.held
    expiring = app.expiring_next
    if expiring is not None:
        message.expiring_next = ExpiringCredits(credits=expiring.credits, at=expiring.at)
    return message


def account_to_message(account: Account) -> UserCredits:
    """Return the balances of a user."""
    return UserCredits(
        id=account.id,
        user_id=account.user_id,
        balances=[balance_to_message(account, app_id) for app_id in sorted(account.balances)],
        created_at=account.created_at,
        updated_at=account.updated_at,
        created_by=account.created_by,
        updated_by=account.updated_by,
        revision=account.revision,
    )


def grant_to_message(grant: Grant) -> GrantMessage:
    """Return a live grant."""
    return GrantMessage(
        id=grant.id,
        sequence=grant.sequence,
        credits=grant.credits,
        left=grant.left,
        priority=grant.priority,
        category=_CATEGORIES[grant.category],
        effective_at=grant.starts_at,
        expires_at=grant.ends_at,
    )


def hold_to_message(hold: Hold) -> HoldMessage:
    """Return an open hold."""
    return HoldMessage(
        id=hold.id,
        sequence=hold.sequence,
        credits=hold.credits + hold.captured,
        held=hold.credits,
        captured=hold.captured,
        state=HoldState.OPEN,
        placed_at=hold.placed_at,
        expires_at=hold.ends_at,
        purpose=hold.purpose,
        created_by=hold.created_by,
    )


def settled_hold_to_message(placed: Transaction, latest: Transaction) -> HoldMessage:
    """Return a settled hold.

    Args:
        placed: The entry that placed it.
        latest: The latest entry that refers to it: the one that settled it.
    """
    captured, effective_at = latest.details.related_total, latest.details.effective_at
    if latest.kind is Kind.USE:
        state = HoldState.CAPTURED
    else:
        state = HoldState.RELEASED if effective_at is None else HoldState.EXPIRED
    return HoldMessage(
        id=placed.id,
        sequence=placed.sequence,
        credits=placed.credits,
        captured=captured,
        released=placed.credits - captured,
        state=state,
        placed_at=placed.created_at,
        expires_at=effective_at or latest.details.ends_at or placed.details.ends_at,
        settled_at=effective_at or latest.created_at,
        purpose=purpose_of(placed),
        created_by=placed.created_by,
    )


def purpose_of(placed: Transaction) -> str:
    """Return the purpose of a hold from the entry that placed it."""
    return dict(placed.details.request).get("purpose", "")


def step_to_message(due: Transaction) -> ForecastStep:
    """Return a step of a forecast from the entry that will be due then."""
    return ForecastStep(
        at=due.details.effective_at,
        type=TYPES[due.kind],
        related_id=due.details.related_id,
        credits=due.credits,
        effect=due.effect,
        balance_after=max(0, due.balance_after),
    )


def grants_to_message(account: Account, app_id: int) -> ListGrantsResponse:
    """Return the live grants of a user in an app."""
    app = account.apps.get(app_id, _NO_APP)
    return ListGrantsResponse(
        grants=[grant_to_message(grant) for grant in (*app.grants, *app.scheduled)],
        base_credits=max(0, account.base(app_id)),
        revision=account.revision,
    )


def forecast_to_message(
    account: Account, app_id: int, *, until: datetime | None
) -> GetForecastResponse:
    """Return how a user's balance in an app changes by time alone; until None: forever."""
    ahead = settle(account, until or _END_OF_TIME, {app_id})
    return GetForecastResponse(
        balance=max(0, account.balance(app_id)),
        steps=[step_to_message(due) for due in ahead.entries],
        revision=account.revision,
    )


def transaction_to_message(entry: Transaction) -> CreditTransaction:
    """Return an entry of a history."""
    details, balance = entry.details, entry.balance_after
    return CreditTransaction(
        id=entry.id,
        user_id=entry.user_id,
        app_id=entry.app_id,
        credits=entry.credits,
        created_at=entry.created_at,
        created_by=entry.created_by,
        type=TYPES[entry.kind],
        balance_after=max(0, balance),
        sequence=entry.sequence,
        purchase_id=entry.purchase_id,
        idempotency_key=entry.key,
        effect=entry.effect,
        effective_at=details.effective_at,
        related_id=details.related_id,
        allocations=[
            AllocationMessage(grant_id=each.grant_id, credits=each.credits)
            for each in details.allocations
        ],
        metadata=dict(details.metadata),
        note=details.note,
        owed_after=max(0, -balance),
        report_id=entry.report_id,
        report_name=entry.report_name,
        expires_at=details.ends_at if entry.kind.has_end else None,
        previous_hash=entry.previous_hash,
        hash=entry.hash,
    )


def purchase_to_message(purchase: Purchase) -> PurchaseMessage:
    """Return a purchase."""
    names = (field.name for field in dataclasses.fields(purchase))
    return PurchaseMessage(**{name: getattr(purchase, name) for name in names})


def spending_cap_to_message(
    account: Account, app_id: int, policy: Policy, at: datetime
) -> GetSpendingCapResponse:
    """Return the caps of a user in an app, and what counts at a time."""
    app = account.apps.get(app_id, _NO_APP)
    return GetSpendingCapResponse(
        user_caps=caps_to_message(app.caps),
        app_caps=caps_to_message(policy.caps),
        statuses=[
            SpendingCapStatus(
                period=SpendingPeriod[status.period.name],
                cap=status.cap,
                spent=status.spent,
                held=status.held,
                left=status.left,
                starts_at=status.starts_at,
                resets_at=status.resets_at,
            )
            for status in cap_statuses(app, policy, at)
        ],
        revision=account.revision,
    )


def caps_to_message(caps: Caps) -> SpendingCaps | None:
    """Return the caps of a user or an app; None if there are none."""
    if caps == NO_CAPS:
        return None
    return SpendingCaps(per_hour=caps.hour, per_day=caps.day, per_month=caps.month)
